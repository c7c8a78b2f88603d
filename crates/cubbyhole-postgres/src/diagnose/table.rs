//! Checks the table: its size, the backlog of expired entries, and dead rows.

use std::time::Duration;

use cubbyhole_core::{Diagnosis, Result, Verdict};

use super::report::{problem, query};
use crate::connection::Connection;
use crate::rows::{self, column};

/// The maximum number of expired entries that are counted.
const MAX_COUNTED: i64 = 100_000;
/// The age of the oldest expired entry that triggers a warning: a daily sweep has then missed it.
const MAX_SWEEP_DELAY_SECS: u64 = 24 * 60 * 60;
/// Up to this number of dead rows there is no warning, regardless of the number of live rows.
const DEAD_ROWS_TOLERANCE: i64 = 10_000;

/// Checks the backlog of the sweep over all tenants. The application's role sees no rows of other
/// tenants, so a `SECURITY DEFINER` function counts them.
pub(super) async fn check_entries(
    diagnosis: &mut Diagnosis,
    connection: &Connection,
    schema: &str,
) -> Result<()> {
    let select = format!(
        "SELECT b.expired, coalesce(b.late, 0) AS late, \
         pg_total_relation_size('\"{schema}\".entries'::regclass) AS bytes \
         FROM \"{schema}\".backlog({MAX_COUNTED}) b"
    );
    let rows = match query(connection, &select, None).await {
        // The connection is lost, so no further check can run.
        Err(error) if error.is_retryable() => return Err(error),
        Err(error) => {
            let advice = "create the function `backlog` as in `migrations/0002_backlog.sql`";
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
        0 => format!("{size:.1} MiB, no expired entries"),
        _ => {
            let or_more = if expired < MAX_COUNTED { "" } else { "or more " };
            let age = format_duration(late);
            format!(
                "{size:.1} MiB; {expired} {or_more}expired entries not swept, the oldest for {age}"
            )
        }
    };
    if late > MAX_SWEEP_DELAY_SECS || expired >= MAX_COUNTED {
        let advice = "run `cubbyhole evict` now and on a schedule";
        diagnosis.found(Verdict::Warning, "entries", finding, advice);
    } else {
        diagnosis.ok("entries", finding);
    }
    Ok(())
}

/// Checks that autovacuum reclaims the space of overwritten and deleted rows. The row counts are
/// the server's estimates.
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
                "autovacuum is off {}: the table grows with every overwrite",
                off.join(" and ")
            ),
            "turn it on, or run VACUUM on a schedule",
        );
    } else if dead > DEAD_ROWS_TOLERANCE && dead > live {
        diagnosis.found(
            Verdict::Warning,
            "vacuum",
            format!(
                "about {dead} dead rows and {live} live rows: reads skip dead rows, and the table grows"
            ),
            format!(
                "find out what blocks vacuum (an open transaction, a replication slot, a prepared \
                 transaction), then run `VACUUM {schema}.entries`"
            ),
        );
    } else {
        diagnosis
            .ok("vacuum", format!("autovacuum is on; about {dead} dead rows and {live} live rows"));
    }
    Ok(())
}

/// Formats seconds in the largest unit that gives at least 2.
fn format_duration(secs: u64) -> String {
    match secs {
        0..=119 => format!("{secs} s"),
        120..=7199 => format!("{} min", secs / 60),
        7200..=172_799 => format!("{} h", secs / 3600),
        _ => format!("{} days", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::format_duration;

    #[test]
    fn durations_are_formatted_in_their_largest_unit() {
        let formatted = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(format_duration);
        assert_eq!(formatted, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
    }
}
