//! What the server's errors mean to a caller.

use std::io;

use cubbyhole_core::{Error, ErrorKind};
use rustls::AlertDescription;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::conninfo::Host;

/// Raised by the store's own functions for a TTL that ends past the year 9999.
const TTL_PAST_THE_END: &str = "CBH01";

/// Whether a call changes anything: what is unknown after it failed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Read,
    Write,
}

/// What an error of a call in `schema` means.
pub(crate) fn from_call(error: tokio_postgres::Error, effect: Effect, schema: &str) -> Error {
    let Some(database) = error.as_db_error() else {
        // The connection broke: the request may have arrived and the answer been lost.
        let lost = Error::unavailable("the connection to the server was lost").with_source(error);
        return unknown_if_written(lost, effect);
    };
    // The server ends a connection as it is shut down: whether it had committed cannot be told.
    let ended = ended_connection(database);
    let told = from_database(database, Some(schema));
    if ended { unknown_if_written(told, effect) } else { told }
}

fn ended_connection(database: &DbError) -> bool {
    matches!(database.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
}

fn unknown_if_written(error: Error, effect: Effect) -> Error {
    match effect {
        Effect::Read => error,
        Effect::Write => error.with_unknown_outcome(),
    }
}

/// What an error on connecting means.
pub(crate) fn from_connect(error: &tokio_postgres::Error) -> Error {
    if let Some(database) = error.as_db_error() {
        return from_database(database, None);
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    if let Some(rustls::Error::AlertReceived(alert)) = tls_cause(error) {
        return from_alert(*alert);
    }
    if text.contains("channel binding") {
        return Error::permission_denied(
            "the server's answer to the password is not bound to its certificate, as \
             `channel_binding` asks: somebody may stand in between",
        );
    }
    if text.contains("authentication error") {
        return Error::permission_denied(format!("the server and this build do not agree: {text}"));
    }
    if text.contains("password") {
        return Error::permission_denied(
            "the server asks for a password; put it into PGPASSWORD, ~/.pgpass or the URL",
        );
    }
    if text.contains("server does not support TLS") {
        return Error::unavailable(
            "the server offers no TLS, which `sslmode` asks for; turn it on there",
        )
        .permanent();
    }
    if text.contains("certificate") {
        let message = format!(
            "the server's certificate is not accepted: {text}; docs/backends/postgres.md says which ones are"
        );
        return Error::unavailable(message).permanent();
    }
    Error::unavailable(format!("the server could not be reached: {text}"))
}

/// Whether encrypting the connection failed.
pub(crate) fn is_about_tls(error: &tokio_postgres::Error) -> bool {
    // The driver's kinds of error differ in their text alone.
    error.to_string().starts_with("error performing TLS handshake") || tls_cause(error).is_some()
}

fn tls_cause(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(tls) = inner.or_else(|| cause.downcast_ref()) {
            return Some(tls);
        }
        source = cause.source();
    }
    None
}

/// The meaning of an alert with which the server ends the TLS connection.
fn from_alert(alert: AlertDescription) -> Error {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked,
        CertificateUnknown, DecryptError, UnknownCA, UnsupportedCertificate,
    };
    match alert {
        AccessDenied | BadCertificate | CertificateExpired | CertificateRequired
        | CertificateRevoked | CertificateUnknown | DecryptError | UnknownCA
        | UnsupportedCertificate => Error::permission_denied(format!(
            "the server refuses the client certificate, or asks for one ({alert:?}): `sslcert` must \
             be signed by an authority of the server's `ssl_ca_file`, and be in force"
        )),
        _ => Error::unavailable(format!(
            "the server refuses the TLS connection ({alert:?}); compare its `ssl_min_protocol_version` \
             and `ssl_max_protocol_version` with those of this client"
        ))
        .permanent(),
    }
}

/// A refused password, with what is known of its source.
pub(crate) fn with_password_note(error: Error, host: &Host) -> Error {
    match &host.password_note {
        Some(note) if error.kind() == ErrorKind::PermissionDenied => {
            Error::permission_denied(format!("{}; {note}", error.message())).with_source(error)
        }
        _ => error,
    }
}

/// What an error of the network on connecting means.
pub(crate) fn from_connect_io(error: io::Error, target: &str) -> Error {
    Error::unavailable(format!("no connection to {target}: {error}")).with_source(error)
}

/// What a SQLSTATE means: its code, or the first letters of it for the whole class.
///
/// Every failure that the server tells of had no effect, unless it ended the connection.
fn from_database(database: &DbError, schema: Option<&str>) -> Error {
    let code = database.code().code();
    let (_, kind) = SQLSTATES
        .iter()
        .find(|(prefix, _)| code.starts_with(prefix))
        .copied()
        .unwrap_or(("", Meaning::Defect));
    // Only the server's primary message is shown: detail, hint and context may quote values.
    let said = Said(format!("{} (SQLSTATE {code})", database.message()));
    match kind {
        Meaning::Outage(message) => Error::unavailable(message),
        Meaning::NotThere(message) => Error::unavailable(message).permanent(),
        Meaning::Late(message) => Error::new(cubbyhole_core::ErrorKind::DeadlineExceeded, message),
        Meaning::Mistake(message) => Error::invalid_argument(message),
        Meaning::Denied(message) => {
            Error::permission_denied(message.replace("<schema>", schema.unwrap_or("<schema>")))
        }
        Meaning::Exhausted(message) => Error::resource_exhausted(message),
        Meaning::Damaged(message) => Error::corrupt(message),
        Meaning::Unknown(message) => Error::unsupported(message),
        Meaning::Defect => Error::internal("the server refused the statement"),
    }
    .with_source(said)
}

/// The server's primary message and code.
#[derive(Debug)]
struct Said(String);

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}

#[derive(Clone, Copy)]
enum Meaning {
    Outage(&'static str),
    NotThere(&'static str),
    Late(&'static str),
    Mistake(&'static str),
    Denied(&'static str),
    Exhausted(&'static str),
    Damaged(&'static str),
    Unknown(&'static str),
    Defect,
}

use Meaning::{Damaged, Defect, Denied, Exhausted, Late, Mistake, NotThere, Outage, Unknown};

/// The table of SQLSTATEs (Appendix A of PostgreSQL's manual); the first line that fits counts.
const SQLSTATES: [(&str, Meaning); 37] = [
    (
        TTL_PAST_THE_END,
        Mistake("the TTL ends past the year 9999; leave it out for an entry that never expires"),
    ),
    ("08", Outage("the connection to the server was lost")),
    ("0A", Unknown("the server cannot do this; version 15 or later is needed")),
    ("22021", Mistake("the text is none that the database's encoding can hold")),
    ("22P05", Mistake("the text is none that the database's encoding can hold")),
    // A standby and the setting raise the same error with the same text.
    (
        "25006",
        Outage(
            "the server refuses writes: it is a standby, or `default_transaction_read_only` is on for \
             the server, the database or the role; `cubbyhole doctor` says which",
        ),
    ),
    ("25P03", Outage("the server ended an idle transaction")),
    (
        "26000",
        Outage(
            "a pooler lost a prepared statement; use `statement_cache=off`, or PgBouncer 1.21 or \
         later with `max_prepared_statements`",
        ),
    ),
    ("28", Denied("the server refuses this user or its password")),
    ("3D000", NotThere("there is no such database on the server")),
    ("3F000", NotThere("the schema is not there; run `cubbyhole migrate` with a role that may")),
    ("40", Outage("the call kept colliding with others; try again")),
    (
        "42501",
        Denied(
            "the role may not do this; grant it the role `<schema>_app` (for `scan_tenants`, \
         `<schema>_operator`)",
        ),
    ),
    (
        "42883",
        NotThere(
            "the schema is not there or too old; run `cubbyhole migrate` with a role that may",
        ),
    ),
    (
        "42P01",
        NotThere(
            "the schema is not there or too old; run `cubbyhole migrate` with a role that may",
        ),
    ),
    (
        "42P05",
        Outage(
            "a pooler mixes up prepared statements; use `statement_cache=off`, or PgBouncer 1.21 or \
         later with `max_prepared_statements`",
        ),
    ),
    ("53100", Exhausted("the server's disk is full")),
    ("53200", Exhausted("the server is out of memory")),
    (
        "53300",
        Outage(
            "the server has no connection slot left for this role; retry, make the pools smaller \
             (`pool_size`), or raise `max_connections` or the CONNECTION LIMIT of the role or database",
        ),
    ),
    ("53400", Exhausted("a limit of the server's configuration is reached")),
    ("53", Exhausted("the server is short of a resource")),
    ("54", Mistake("the value or the batch is larger than the server can take")),
    ("55P03", Outage("a lock was not to be had in time")),
    ("55006", Outage("what is asked for is in use on the server")),
    (
        "57014",
        Late("the server stopped the statement: its time was up, or an administrator cancelled it"),
    ),
    ("57P01", Outage("the server is shutting down")),
    ("57P02", Outage("the server crashed and is starting again")),
    ("57P03", Outage("the server is starting or shutting down")),
    ("57P04", NotThere("the database was dropped")),
    ("57P05", Outage("the server closed an idle connection")),
    ("57", Outage("an administrator of the server stepped in")),
    ("58030", Outage("the server could not read or write its files")),
    ("58", Outage("the server's system failed")),
    ("XX001", Damaged("the table is damaged; restore it from a backup")),
    ("XX002", Damaged("an index is damaged; run REINDEX on the table `entries`")),
    ("F0", Outage("the server's configuration cannot be read")),
    ("", Defect),
];

/// Whether the statement certainly had no effect and will do when it is run again: it lost against
/// another.
pub(crate) fn lost_a_race(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED
    })
}

/// Whether the server stopped the statement: at its time limit, or asked to. It had no effect.
pub(crate) fn was_stopped(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::QUERY_CANCELED)
}

/// Whether the statement was refused for an error of one before it in its transaction.
pub(crate) fn follows_another(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION)
}

/// Whether the connection's prepared statements are of no more use: the schema was migrated.
pub(crate) fn statements_are_stale(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|database| {
        *database.code() == SqlState::FEATURE_NOT_SUPPORTED
            && database.message().contains("cached plan")
    })
}

/// Whether the connection leads to a server, or a state of it, that another may not have.
pub(crate) fn spoils_connection(error: &tokio_postgres::Error) -> bool {
    let Some(database) = error.as_db_error() else { return true };
    let code = database.code().code();
    ended_connection(database)
        || ["25006", "25P02", "26000", "42P05", "08"].iter().any(|prefix| code.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_the_table_hides_a_later_one() {
        for (place, (prefix, _)) in SQLSTATES.iter().enumerate() {
            for (later, _) in &SQLSTATES[place + 1..] {
                assert!(!later.starts_with(prefix), "{later} is never reached after {prefix}");
            }
        }
    }
}
