//! The table: how large it is, what has expired and is not swept, what is dead and not vacuumed.

use std::time::Duration;

use cubbyhole_core::{Diagnosis, Result, Verdict};

use super::{problem, query};
use crate::connection::Connection;
use crate::rows::{self, column};

/// Up to how many expired entries are counted.
const MOST_COUNTED: i64 = 100_000;
/// Whatever runs the sweep, a timer or cron, has come by within that.
const SWEPT_WITHIN_SECS: u64 = 24 * 60 * 60;
/// How many dead rows are not worth a word, however few others there are.
const FEW_DEAD: i64 = 10_000;

/// What has expired over all tenants, which a function in the schema tells to the application's role.
pub(super) async fn check_entries(
    diagnosis: &mut Diagnosis,
    connection: &Connection,
    schema: &str,
) -> Result<()> {
    let select = format!(
        "SELECT b.expired, coalesce(b.late, 0) AS late, \
         pg_total_relation_size('\"{schema}\".entries'::regclass) AS bytes \
         FROM \"{schema}\".backlog({MOST_COUNTED}) b"
    );
    let rows = match query(connection, &select, None).await {
        // The server goes, and all that is left to look at with it.
        Err(error) if error.is_retryable() => return Err(error),
        Err(error) => {
            let advice = "make the function `backlog` as `migrations/0002_backlog.sql` does";
            problem(diagnosis, "entries", &error, advice);
            return Ok(());
        }
        Ok(rows) => rows,
    };
    let row = rows::first(&rows)?;
    let (expired, late): (i64, i64) = (column(row, "expired")?, column(row, "late")?);
    let size = column::<i64>(row, "bytes")? as f64 / 1_048_576.0;
    let late = Duration::from_millis(u64::try_from(late).unwrap_or(0)).as_secs();
    let finding = match expired {
        0 => format!("{size:.1} MiB, none of them expired"),
        _ => {
            let least = if expired < MOST_COUNTED { "" } else { "or more " };
            let since = words(late);
            format!("{size:.1} MiB; {expired} {least}expired and not swept, the first {since} ago")
        }
    };
    if late > SWEPT_WITHIN_SECS || expired >= MOST_COUNTED {
        let advice = "run `cubbyhole evict`, and then regularly";
        diagnosis.found(Verdict::Warning, "entries", finding, advice);
    } else {
        diagnosis.ok("entries", finding);
    }
    Ok(())
}

/// Whether what is overwritten and deleted makes room again. The numbers are the server's estimates.
pub(super) async fn check_vacuum(
    diagnosis: &mut Diagnosis,
    connection: &Connection,
    schema: &str,
) -> Result<()> {
    let select = "SELECT current_setting('autovacuum')::bool AS by_server, \
                  coalesce((SELECT o.option_value::bool FROM pg_options_to_table(c.reloptions) o \
                  WHERE o.option_name = 'autovacuum_enabled'), true) AS by_table, \
                  coalesce(pg_stat_get_live_tuples(c.oid), 0) AS live, \
                  coalesce(pg_stat_get_dead_tuples(c.oid), 0) AS dead \
                  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                  WHERE n.nspname = $1 AND c.relname = 'entries'";
    let rows = query(connection, select, Some(schema)).await?;
    let row = rows::first(&rows)?;
    let (live, dead): (i64, i64) = (column(row, "live")?, column(row, "dead")?);
    let mut off = Vec::new();
    for (name, whose) in [("by_server", "for the server"), ("by_table", "for the table")] {
        if !column::<bool>(row, name)? {
            off.push(whose);
        }
    }
    if !off.is_empty() {
        diagnosis.found(
            Verdict::Warning,
            "vacuum",
            format!(
                "autovacuum is off {}: the table grows with every overwriting",
                off.join(" and ")
            ),
            "turn it on, or run VACUUM regularly",
        );
    } else if dead > FEW_DEAD && dead > live {
        diagnosis.found(
            Verdict::Warning,
            "vacuum",
            format!(
                "about {dead} dead rows beside {live}: reads go past them, and the table grows"
            ),
            format!(
                "see what holds vacuuming back (a transaction that was left open, a replication \
                 slot, a prepared transaction), then run `VACUUM {schema}.entries`"
            ),
        );
    } else {
        diagnosis.ok("vacuum", format!("autovacuum is on; about {dead} dead rows beside {live}"));
    }
    Ok(())
}

/// A length of time in its largest unit.
fn words(secs: u64) -> String {
    match secs {
        0..=119 => format!("{secs} s"),
        120..=7199 => format!("{} min", secs / 60),
        7200..=172_799 => format!("{} h", secs / 3600),
        _ => format!("{} days", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn times_are_told_in_their_largest_unit() {
        let told = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(words);
        assert_eq!(told, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
    }
}
