//! Checks the server and the session: version, pooler, writes, encryption, clock and settings.

use std::time::Duration;

use cubbyhole_core::{Clock, Diagnosis, Result, SystemClock, Timestamp, Verdict};

use super::report::{problem, query};
use crate::config::{Config, Pooler};
use crate::connection::{Connection, Connector};
use crate::conninfo::Encryption;
use crate::inspect::Inspection;
use crate::pooling::{self, Pooling};
use crate::rows::{self, column};

/// How far the clocks of server and client may differ without a warning.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

pub(super) fn check_server(diagnosis: &mut Diagnosis, found: &Inspection) {
    let (major, minor) = (found.server_version / 10_000, found.server_version % 10_000);
    match found.check_server() {
        Ok(()) => diagnosis.ok("server", format!("PostgreSQL {major}.{minor}, UTF8")),
        Err(error) => problem(diagnosis, "server", &error, "use another server or database"),
    }
}

/// Checks that the URL declares a pooler in transaction mode.
pub(super) async fn check_pooler(
    diagnosis: &mut Diagnosis,
    connector: &Connector,
    connection: &Connection,
    found: &Inspection,
) -> Result<()> {
    let is_direct = connection.announced_backend().await == Some(found.backend);
    let finding = match (connector.config().pooler, is_direct) {
        (Pooler::None, true) => "none",
        (Pooler::Transaction, true) => "none; `pooler=transaction` is set, which is harmless",
        (Pooler::Transaction, false) => "a pooler, and `pooler=transaction` is set",
        (Pooler::None, false) => match pooling::detect(connector, connection).await? {
            Pooling::Session => "a pooler in session mode",
            Pooling::Transaction => {
                diagnosis.found(
                    Verdict::Problem,
                    "pooler",
                    "a pooler assigns a server connection to each transaction: \
                     `statement_timeout` leaks into other clients' sessions",
                    pooling::TRANSACTION_MODE_ADVICE,
                );
                return Ok(());
            }
        },
    };
    diagnosis.ok("pooler", finding);
    Ok(())
}

/// Checks that the server accepts writes. Opening a store does not write, so it does not notice.
pub(super) async fn check_writes(diagnosis: &mut Diagnosis, connection: &Connection) -> Result<()> {
    let select = "SELECT pg_is_in_recovery() AS is_standby, \
                  current_setting('default_transaction_read_only')::bool AS read_only";
    let rows = query(connection, select, None).await?;
    let row = rows::first(&rows)?;
    if column(row, "is_standby")? {
        diagnosis.found(
            Verdict::Problem,
            "writes",
            "the server is a standby and rejects writes",
            "use the address of the primary in the URL, or list all servers with \
             `target_session_attrs=read-write`",
        );
    } else if column(row, "read_only")? {
        diagnosis.found(
            Verdict::Problem,
            "writes",
            "`default_transaction_read_only` is on, so the server rejects writes (it is not a standby)",
            "reset it where it is set: `ALTER SYSTEM`, `ALTER DATABASE` or `ALTER ROLE … RESET \
             default_transaction_read_only`, or `options` in the URL",
        );
    } else {
        diagnosis.ok("writes", "the server accepts writes");
    }
    Ok(())
}

pub(super) async fn check_encryption(
    diagnosis: &mut Diagnosis,
    connection: &Connection,
    config: &Config,
) -> Result<()> {
    let select = "SELECT coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), \
                  false) AS encrypted, coalesce(host(inet_client_addr()) IN ('127.0.0.1', '::1'), \
                  true) AS local";
    let rows = query(connection, select, None).await?;
    let row = rows::first(&rows)?;
    let (encrypted, local): (bool, bool) = (column(row, "encrypted")?, column(row, "local")?);
    let verified = config.tls.encryption == Encryption::VerifyFull;
    match (encrypted, local) {
        (true, _) if verified => {
            diagnosis.ok("encryption", "TLS, and the server's name is verified");
        }
        (true, false) => diagnosis.found(
            Verdict::Warning,
            "encryption",
            "TLS, but the identity of the server is not verified",
            "add `sslmode=verify-full` to the URL, and `sslrootcert` for a private authority",
        ),
        (true, true) => diagnosis.ok("encryption", "TLS, on this machine"),
        (false, true) => diagnosis.ok("encryption", "none, on this machine"),
        (false, false) => diagnosis.found(
            Verdict::Warning,
            "encryption",
            "none: values and the password proof cross the network unencrypted",
            "enable TLS on the server and add `sslmode=verify-full` to the URL",
        ),
    }
    Ok(())
}

pub(super) async fn check_clock(diagnosis: &mut Diagnosis, connection: &Connection) -> Result<()> {
    let select = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8 AS now";
    let before = SystemClock.now();
    let rows = query(connection, select, None).await?;
    let after = SystemClock.now();
    let millis: i64 = column(rows::first(&rows)?, "now")?;
    let server = Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))?;
    let difference = before.saturating_since(server).max(server.saturating_since(after));
    if difference > CLOCK_TOLERANCE {
        diagnosis.found(
            Verdict::Warning,
            "clock",
            format!("the clocks of the server and this machine differ by {difference:?}"),
            "synchronise both with NTP; the clock of the server decides which entries have expired",
        );
    } else {
        let finding = format!("the server is within {CLOCK_TOLERANCE:?} of this machine");
        diagnosis.ok("clock", finding);
    }
    Ok(())
}

pub(super) async fn check_settings(
    diagnosis: &mut Diagnosis,
    connection: &Connection,
    config: &Config,
) -> Result<()> {
    let select = "SELECT current_setting('synchronous_commit') AS synchronous_commit, \
                  current_setting('fsync') AS fsync, \
                  current_setting('full_page_writes') AS full_page_writes, \
                  current_setting('default_transaction_isolation') AS isolation, \
                  current_setting('max_connections')::int4 AS connections";
    let rows = query(connection, select, None).await?;
    let row = rows::first(&rows)?;
    let setting = |name: &str| column::<&str>(row, name);
    let safety = ["fsync", "full_page_writes", "synchronous_commit"];
    let off: Vec<&str> =
        safety.into_iter().filter(|name| setting(name).is_ok_and(|value| value == "off")).collect();
    if off.is_empty() {
        diagnosis.ok("durability", "the server acknowledges a write after it is on disk");
    } else {
        diagnosis.found(
            Verdict::Warning,
            "durability",
            format!(
                "off: {}; a crash of the server can lose acknowledged writes or corrupt the database",
                off.join(", ")
            ),
            "turn it on, unless the data can be restored from elsewhere",
        );
    }
    if setting("isolation")? != "read committed" {
        diagnosis.found(
            Verdict::Warning,
            "isolation",
            format!("`default_transaction_isolation` is `{}`", setting("isolation")?),
            "set it to `read committed` for the role: stricter levels cause more serialization \
             failures and retries, and the store does not need them",
        );
    }
    let connections: i32 = column(row, "connections")?;
    let size = config.pool_size;
    if usize::try_from(connections).unwrap_or(0) <= size {
        diagnosis.found(
            Verdict::Warning,
            "pool",
            format!("up to {size} connections, but the server accepts only {connections} in total"),
            "reduce `pool_size` or raise `max_connections`; every process has its own pool",
        );
    } else {
        diagnosis.ok("pool", format!("up to {size} of the server's {connections} connections"));
    }
    Ok(())
}
