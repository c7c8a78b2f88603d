//! Maps errors of the server, the network and TLS to the contract's errors.

use std::io;

use cubbyhole_core::{Error, ErrorKind};
use rustls::AlertDescription;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::conninfo::Host;

/// The SQLSTATE that the store's SQL functions raise for a TTL that ends past the year 9999.
const TTL_TOO_LONG: &str = "CBH01";

/// The message for a call whose every attempt conflicted with other transactions.
pub(crate) const TOO_MANY_CONFLICTS: &str =
    "the call conflicted with other transactions on every attempt; try again";

/// Whether a call writes. The outcome of a write is unknown if the connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Read,
    Write,
}

/// Maps an error of a call. `schema` is named in the advice.
pub(crate) fn from_call(error: tokio_postgres::Error, effect: Effect, schema: &str) -> Error {
    let Some(database) = error.as_db_error() else {
        // The request may have been executed, and only its answer was lost.
        let lost = Error::unavailable("the connection to the server was lost").with_source(error);
        return unknown_if_written(lost, effect);
    };
    let error = from_database(database, Some(schema));
    // A server that shuts down may have committed before it ended the connection.
    if ended_connection(database) { unknown_if_written(error, effect) } else { error }
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

/// Maps an error of the driver while connecting.
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
            "the server's authentication is not bound to its certificate, as `channel_binding` \
             requires: the connection may be intercepted",
        );
    }
    if text.contains("authentication error") {
        return Error::permission_denied(format!("authentication failed: {text}"));
    }
    if text.contains("password") {
        return Error::permission_denied(
            "the server requires a password; set it in PGPASSWORD, ~/.pgpass or the URL",
        );
    }
    if text.contains("server does not support TLS") {
        return Error::unavailable(
            "the server offers no TLS, which `sslmode` requires; enable TLS on the server",
        )
        .permanent();
    }
    if text.contains("certificate") {
        let message = format!(
            "the server's certificate is not accepted: {text}; see docs/backends/postgres.md for the \
             requirements"
        );
        return Error::unavailable(message).permanent();
    }
    Error::unavailable(format!("cannot reach the server: {text}"))
}

/// Whether the TLS handshake failed.
pub(crate) fn is_tls_failure(error: &tokio_postgres::Error) -> bool {
    // The driver exposes the kind of an error only in its text.
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

/// Maps a TLS alert of the server.
fn from_alert(alert: AlertDescription) -> Error {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked,
        CertificateUnknown, DecryptError, UnknownCA, UnsupportedCertificate,
    };
    match alert {
        AccessDenied | BadCertificate | CertificateExpired | CertificateRequired
        | CertificateRevoked | CertificateUnknown | DecryptError | UnknownCA
        | UnsupportedCertificate => Error::permission_denied(format!(
            "the server rejects the client certificate, or requires one ({alert:?}): `sslcert` must \
             be valid and signed by an authority in the server's `ssl_ca_file`"
        )),
        _ => Error::unavailable(format!(
            "the server rejects the TLS connection ({alert:?}); compare its `ssl_min_protocol_version` \
             and `ssl_max_protocol_version` with those of this client"
        ))
        .permanent(),
    }
}

/// Adds the source of the password to the error of a rejected login.
pub(crate) fn with_password_note(error: Error, host: &Host) -> Error {
    match &host.password_note {
        Some(note) if error.kind() == ErrorKind::PermissionDenied => {
            Error::permission_denied(format!("{}; {note}", error.message())).with_source(error)
        }
        _ => error,
    }
}

/// Maps a network error while connecting.
pub(crate) fn from_connect_io(error: io::Error, target: &str) -> Error {
    Error::unavailable(format!("cannot connect to {target}: {error}")).with_source(error)
}

/// Maps an error that the server reports. The statement had no effect, unless the error ended the
/// connection.
fn from_database(database: &DbError, schema: Option<&str>) -> Error {
    let code = database.code().code();
    let (_, meaning) = SQLSTATES
        .iter()
        .find(|(prefix, _)| code.starts_with(prefix))
        .copied()
        .unwrap_or(("", Internal));
    // Only the primary message is kept: detail, hint and context may quote values.
    let source = ServerMessage(format!("{} (SQLSTATE {code})", database.message()));
    match meaning {
        Unavailable(message) => Error::unavailable(message),
        PermanentlyUnavailable(message) => Error::unavailable(message).permanent(),
        DeadlineExceeded(message) => Error::new(ErrorKind::DeadlineExceeded, message),
        InvalidArgument(message) => Error::invalid_argument(message),
        PermissionDenied(message) => {
            Error::permission_denied(message.replace("<schema>", schema.unwrap_or("<schema>")))
        }
        ResourceExhausted(message) => Error::resource_exhausted(message),
        Corrupt(message) => Error::corrupt(message),
        Unsupported(message) => Error::unsupported(message),
        Internal => Error::internal("the server rejected the statement"),
    }
    .with_source(source)
}

/// The server's primary message and SQLSTATE.
#[derive(Debug)]
struct ServerMessage(String);

impl std::fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ServerMessage {}

/// The kind and the message of the error that a SQLSTATE is mapped to.
#[derive(Clone, Copy)]
enum Meaning {
    Unavailable(&'static str),
    /// Unavailable until an administrator changes something, so a retry is pointless.
    PermanentlyUnavailable(&'static str),
    DeadlineExceeded(&'static str),
    InvalidArgument(&'static str),
    PermissionDenied(&'static str),
    ResourceExhausted(&'static str),
    Corrupt(&'static str),
    Unsupported(&'static str),
    Internal,
}

use Meaning::{
    Corrupt, DeadlineExceeded, Internal, InvalidArgument, PermanentlyUnavailable, PermissionDenied,
    ResourceExhausted, Unavailable, Unsupported,
};

const UNENCODABLE_TEXT: &str = "the database's encoding cannot represent the text";
const SCHEMA_OUTDATED: &str =
    "the schema is missing or outdated; run `cubbyhole migrate` as an administrator";

/// SQLSTATEs (Appendix A of the PostgreSQL manual) or prefixes of them. The first match applies.
const SQLSTATES: [(&str, Meaning); 37] = [
    (
        TTL_TOO_LONG,
        InvalidArgument("the TTL ends past the year 9999; omit it for an entry that never expires"),
    ),
    ("08", Unavailable("the connection to the server was lost")),
    ("0A", Unsupported("the server does not support this; version 15 or later is required")),
    ("22021", InvalidArgument(UNENCODABLE_TEXT)),
    ("22P05", InvalidArgument(UNENCODABLE_TEXT)),
    // A standby and `default_transaction_read_only` raise the same error with the same text.
    (
        "25006",
        Unavailable(
            "the server rejects writes: it is a standby, or `default_transaction_read_only` is on for \
             the server, the database or the role; run `cubbyhole doctor` to find out which",
        ),
    ),
    ("25P03", Unavailable("the server ended an idle transaction")),
    (
        "26000",
        Unavailable(
            "a pooler lost a prepared statement; use `statement_cache=off`, or PgBouncer 1.21 or \
             later with `max_prepared_statements`",
        ),
    ),
    ("28", PermissionDenied("the server rejects the user or its password")),
    ("3D000", PermanentlyUnavailable("the database does not exist on the server")),
    ("3F000", PermanentlyUnavailable(SCHEMA_OUTDATED)),
    ("40", Unavailable(TOO_MANY_CONFLICTS)),
    (
        "42501",
        PermissionDenied(
            "the role lacks a privilege; grant it the role `<schema>_app` (for `scan_tenants`, \
             `<schema>_operator`)",
        ),
    ),
    ("42883", PermanentlyUnavailable(SCHEMA_OUTDATED)),
    ("42P01", PermanentlyUnavailable(SCHEMA_OUTDATED)),
    (
        "42P05",
        Unavailable(
            "a pooler confuses prepared statements; use `statement_cache=off`, or PgBouncer 1.21 or \
             later with `max_prepared_statements`",
        ),
    ),
    ("53100", ResourceExhausted("the server's disk is full")),
    ("53200", ResourceExhausted("the server is out of memory")),
    (
        "53300",
        Unavailable(
            "the server has no connection slot left for this role; retry, reduce `pool_size`, or raise \
             `max_connections` or the CONNECTION LIMIT of the role or database",
        ),
    ),
    ("53400", ResourceExhausted("the server reached a limit of its configuration")),
    ("53", ResourceExhausted("the server lacks a resource")),
    ("54", InvalidArgument("the value or the batch exceeds a limit of the server")),
    ("55P03", Unavailable("a lock was unavailable within `lock_timeout`")),
    ("55006", Unavailable("an object is in use on the server")),
    (
        "57014",
        DeadlineExceeded(
            "the server cancelled the statement: its timeout expired, or an administrator asked for it",
        ),
    ),
    ("57P01", Unavailable("the server is shutting down")),
    ("57P02", Unavailable("the server crashed and is restarting")),
    ("57P03", Unavailable("the server is starting or shutting down")),
    ("57P04", PermanentlyUnavailable("the database was dropped")),
    ("57P05", Unavailable("the server closed an idle connection")),
    ("57", Unavailable("an administrator of the server intervened")),
    ("58030", Unavailable("the server cannot read or write its files")),
    ("58", Unavailable("the operating system of the server failed")),
    ("XX001", Corrupt("the table is corrupt; restore it from a backup")),
    ("XX002", Corrupt("an index is corrupt; run REINDEX on the table `entries`")),
    ("F0", Unavailable("the server cannot read its configuration")),
    ("", Internal),
];

/// Whether the statement failed because of a concurrent transaction. It had no effect and can be
/// retried.
pub(crate) fn is_transaction_conflict(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED
    })
}

/// Whether the server cancelled the statement, on request or because of `statement_timeout`. It had
/// no effect.
pub(crate) fn is_query_canceled(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::QUERY_CANCELED)
}

/// Whether the statement was rejected because an earlier statement of its transaction failed.
pub(crate) fn is_in_failed_transaction(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION)
}

/// Whether a migration invalidated the prepared statement.
pub(crate) fn has_stale_statement(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|database| {
        *database.code() == SqlState::FEATURE_NOT_SUPPORTED
            && database.message().contains("cached plan")
    })
}

/// Whether the connection must not serve further calls. A new connection may reach another server,
/// such as the new primary, or start without the broken state of this one.
pub(crate) fn retires_connection(error: &tokio_postgres::Error) -> bool {
    let Some(database) = error.as_db_error() else { return true };
    let code = database.code().code();
    ended_connection(database)
        || ["25006", "25P02", "26000", "42P05", "08"].iter().any(|prefix| code.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sqlstate_prefix_shadows_a_later_one() {
        for (index, (prefix, _)) in SQLSTATES.iter().enumerate() {
            for (later, _) in &SQLSTATES[index + 1..] {
                assert!(!later.starts_with(prefix), "{prefix} shadows {later}");
            }
        }
    }
}
