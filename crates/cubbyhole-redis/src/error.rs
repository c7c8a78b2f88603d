//! What Redis answers and what the connection meets, as the contract's errors.

use std::io;
use std::sync::Arc;

use cubbyhole_core::{Error, ErrorKind, Version};
use redis::RedisError;

use crate::config::Address;

/// What a call changes, and so whether it may be sent again when its outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    Read,
    /// The books of what is registered, which the caller does not see: twice does no harm.
    Registration,
    /// Entries.
    Write,
}

/// A script's own way to say that it wrote nothing.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The condition of this operation does not hold.
    Conflict { index: usize, current: Option<Version> },
    /// The place is not listed in its index: register it, above this fence.
    Unregistered { issued: String, fence: String },
    /// The expiry is past the year 9999.
    TooLate,
}

/// Why a command has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was not sent.
    Unsent(Error),
    /// No server is known that has the slot.
    NoOwner,
    /// It was sent, and the connection ended before the answer.
    Lost(RedisError),
    /// The server refused it.
    Refused(RedisError),
    /// It was applied, and this many replicas have it, fewer than asked for.
    FewReplicas(i64),
    /// It was applied, and the server refused to wait for replicas.
    NotWaited(RedisError),
}

/// What to do about what the server answered.
#[derive(Debug)]
pub(crate) enum Next {
    /// The slot is there now.
    Moved(Address),
    /// This one call is to be asked there.
    Ask(Address),
    /// The script is to be sent along.
    LoadScript,
    /// It is to be tried again a little later; with the map of slots read anew.
    Later { refresh: bool },
    /// It is an answer.
    Refusal(Refusal),
    /// It is an error.
    Fail,
}

/// Judges an error that the server answered; `asked` names the server, for redirections that
/// leave the host out.
pub(crate) fn judge(error: &RedisError, asked: &Address) -> Next {
    let details = || error.detail().unwrap_or_default().split(' ');
    let fail = |next: Option<Next>| next.unwrap_or(Next::Fail);
    match error.code().unwrap_or_default() {
        "MOVED" => fail(redirection(error, asked).map(Next::Moved)),
        "ASK" => fail(redirection(error, asked).map(Next::Ask)),
        "NOSCRIPT" => Next::LoadScript,
        "TRYAGAIN" | "LOADING" | "BUSY" => Next::Later { refresh: false },
        "CLUSTERDOWN" | "MASTERDOWN" | "READONLY" => Next::Later { refresh: true },
        "UNREGISTERED" => {
            let mut words = details();
            let mut word = || words.next().unwrap_or_default().to_owned();
            Next::Refusal(Refusal::Unregistered { issued: word(), fence: word() })
        }
        "TOOLATE" => Next::Refusal(Refusal::TooLate),
        "CONFLICT" => {
            let mut words = details();
            let index = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            // Thirty-two digits, or `absent`.
            let current = words.next().and_then(|word| word.parse().ok());
            Next::Refusal(Refusal::Conflict { index, current })
        }
        _ => Next::Fail,
    }
}

fn redirection(error: &RedisError, asked: &Address) -> Option<Address> {
    let (place, _) = error.redirect_node()?;
    let (host, port) = place.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // A server that does not know its own name means that the port changes and the host does not.
    let host = if host.is_empty() || host == "?" { &asked.host } else { host };
    Some(Address { host: host.to_owned(), port: port.parse().ok()? })
}

impl Failure {
    /// The error that the caller sees.
    pub(crate) fn into_error(self, effect: Effect) -> Error {
        let (error, may_be_applied) = match self {
            Self::Unsent(error) => (error, false),
            Self::NoOwner => {
                let message =
                    "no master of the Redis Cluster serves the slot; see `cubbyhole doctor`";
                (Error::unavailable(message), false)
            }
            Self::Lost(error) => {
                let lost = Error::unavailable("the connection to Redis ended before the answer");
                (lost.with_source(error), true)
            }
            Self::Refused(error) => {
                let is_doubtful = has_doubtful_effect(&error);
                (refused(error), is_doubtful)
            }
            Self::FewReplicas(count) => {
                let message =
                    format!("too few replicas have confirmed the write in time ({count})");
                (Error::unavailable(message), true)
            }
            Self::NotWaited(error) => (refused(error), true),
        };
        let unknown = may_be_applied && effect == Effect::Write;
        if unknown { error.with_unknown_outcome() } else { error }
    }
}

/// What the server refuses had no effect: a script fails before its first write or not at all. If
/// one fails as no script of ours should, that is not relied on.
fn has_doubtful_effect(error: &RedisError) -> bool {
    known_as(error).is_none_or(|known| known.text == NOT_LOCAL)
}

fn known_as(error: &RedisError) -> Option<&'static Known> {
    let code = error.code().unwrap_or_default();
    let detail = error.detail().unwrap_or_default();
    KNOWN.iter().find(|known| known.code == code && detail.contains(known.text))
}

/// Whether a script of ours failed by itself and not in a command: on the bytes that it was given.
fn is_stuck_script(error: &RedisError) -> bool {
    error.code() == Some("ERR")
        && error.detail().is_some_and(|detail| detail.starts_with("user_script:"))
}

fn refused(error: RedisError) -> Error {
    let Some(known) = known_as(&error) else {
        if is_stuck_script(&error) {
            let message = "a script of the store met what it cannot read: another program writes \
                           under its prefix; `erase` removes what stands there";
            return Error::corrupt(message).with_source(error).permanent();
        }
        let code = error.code().unwrap_or_default().to_owned();
        return Error::internal(format!("Redis refused the command ({code})")).with_source(error);
    };
    let mapped = Error::new(known.kind, known.message).with_source(error);
    if known.permanent { mapped.permanent() } else { mapped }
}

struct Known {
    code: &'static str,
    /// A part of the message, where the code alone does not tell.
    text: &'static str,
    kind: ErrorKind,
    permanent: bool,
    message: &'static str,
}

const fn known(code: &'static str, kind: ErrorKind, message: &'static str) -> Known {
    Known { code, text: "", kind, permanent: false, message }
}

const fn permanent(
    code: &'static str,
    text: &'static str,
    kind: ErrorKind,
    message: &'static str,
) -> Known {
    Known { code, text, kind, permanent: true, message }
}

/// A part of what a command of a script is told whose key is not there while its slot is moved.
const NOT_LOCAL: &str = "access a non local key";

static KNOWN: [Known; 23] = [
    known(
        "OOM",
        ErrorKind::ResourceExhausted,
        "Redis has no memory left for writes (`maxmemory`); erase or evict, or give it more",
    ),
    known(
        "MISCONF",
        ErrorKind::Unavailable,
        "Redis takes no writes because it cannot save to disk; see its log",
    ),
    known(
        "NOREPLICAS",
        ErrorKind::Unavailable,
        "Redis takes no writes because too few replicas are connected (`min-replicas-to-write`)",
    ),
    known(
        "READONLY",
        ErrorKind::Unavailable,
        "the server is a replica and takes no writes: the URL names a replica, or a failover has made \
         the master one; name the master",
    ),
    known("LOADING", ErrorKind::Unavailable, "Redis is still loading its data"),
    known("BUSY", ErrorKind::Unavailable, "Redis is busy with a script"),
    known("TRYAGAIN", ErrorKind::Unavailable, "the slot is being moved to another master"),
    known("ASK", ErrorKind::Unavailable, "the slot is being moved to another master"),
    known("MOVED", ErrorKind::Unavailable, "the masters do not agree on who has the slot"),
    known("CLUSTERDOWN", ErrorKind::Unavailable, "the Redis Cluster is down"),
    known("MASTERDOWN", ErrorKind::Unavailable, "the replica has lost its master"),
    Known {
        code: "ERR",
        text: NOT_LOCAL,
        kind: ErrorKind::Unavailable,
        permanent: false,
        message: "the slot is being moved to another master",
    },
    permanent(
        "NOAUTH",
        "",
        ErrorKind::PermissionDenied,
        "Redis asks for a password; put user and password in the URL",
    ),
    permanent("WRONGPASS", "", ErrorKind::PermissionDenied, "Redis refuses the user or password"),
    permanent(
        "NOPERM",
        "",
        ErrorKind::PermissionDenied,
        "the Redis user may not run this command or use these keys; see its ACL",
    ),
    permanent(
        "ERR",
        "The user executing the script",
        ErrorKind::PermissionDenied,
        "the Redis user may not run a command of the scripts; see its ACL",
    ),
    permanent(
        "WRONGTYPE",
        "",
        ErrorKind::Corrupt,
        "a key of the store holds something else: another program writes under its prefix",
    ),
    Known {
        code: "ERR",
        text: "max number of clients",
        kind: ErrorKind::Unavailable,
        permanent: false,
        message: "Redis takes no more connections (`maxclients`); close some, or raise it",
    },
    permanent(
        "ERR",
        "unknown command",
        ErrorKind::Unsupported,
        "the server lacks a command that the store needs; it takes Redis 7 or newer",
    ),
    permanent(
        "ERR",
        "DB index is out of range",
        ErrorKind::InvalidArgument,
        "the server has no such database: see the number after the `/` of the URL",
    ),
    permanent(
        "ERR",
        "SELECT is not allowed",
        ErrorKind::InvalidArgument,
        "a Redis Cluster has no databases: leave the number after the `/` of the URL out",
    ),
    permanent(
        "ERR",
        "cluster support disabled",
        ErrorKind::InvalidArgument,
        "the server is not part of a Redis Cluster: write `redis://`",
    ),
    permanent(
        "CROSSSLOT",
        "",
        ErrorKind::Internal,
        "the keys of one call stand in several slots: this is a defect",
    ),
];

/// Why a server could not be connected to.
pub(crate) fn unreachable(address: &Address, error: io::Error, has_certificate: bool) -> Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        None => Error::unavailable(format!("the Redis server {address} cannot be reached")),
        Some(rustls::Error::InvalidCertificate(_)) => Error::unavailable(format!(
            "the certificate of the Redis server {address} is refused: name the host as it does, \
             and its authority with `tls_ca`"
        ))
        .permanent(),
        Some(rustls::Error::AlertReceived(_)) => client_refused(address, has_certificate),
        Some(_) => Error::unavailable(format!(
            "the Redis server {address} does not speak TLS: write `redis://`, or use its TLS port"
        ))
        .permanent(),
    }
    .with_source(error)
}

/// The server ended the handshake, which it does if it asks for a certificate of the client's.
fn client_refused(address: &Address, has_certificate: bool) -> Error {
    let message = if has_certificate {
        format!(
            "the Redis server {address} refuses the TLS connection: its authorities must have signed \
             the certificate of `tls_cert`, which must be in force"
        )
    } else {
        format!(
            "the Redis server {address} refuses the TLS connection: if it asks for a client \
             certificate (`tls-auth-clients`), name one with `tls_cert` and `tls_key`"
        )
    };
    Error::permission_denied(message).permanent()
}

/// Whether the server ended the TLS connection and said so.
fn is_alert(error: &RedisError) -> bool {
    // As the client shares it.
    type Shared = Arc<dyn std::error::Error + Send + Sync>;
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<Shared>());
    let io = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    let tls = io.and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::AlertReceived(_)))
}

/// Why a connection that stands cannot be used.
pub(crate) fn not_admitted(address: &Address, error: RedisError, has_certificate: bool) -> Error {
    // With TLS 1.3 a server judges the client after the client has judged the server.
    if is_alert(&error) {
        return client_refused(address, has_certificate).with_source(error);
    }
    if known_as(&error).is_some() {
        return refused(error);
    }
    // The client gives what `SELECT` was told in words of its own, without the code.
    if error.detail().is_some_and(|detail| detail.contains("no permissions to run")) {
        return Error::permission_denied(
            "the Redis user may not run a command that connecting needs (for a database after the \
             `/` of the URL it is `SELECT`); see its ACL",
        )
        .with_source(error)
        .permanent();
    }
    if error.kind() == redis::ErrorKind::AuthenticationFailed {
        return Error::permission_denied("Redis refuses the user or password")
            .with_source(error)
            .permanent();
    }
    let message = if error.is_connection_dropped() {
        format!(
            "the Redis server {address} ended the connection at once: it takes no more \
             (`maxclients`), expects TLS or another client certificate, or is no Redis"
        )
    } else {
        format!("the Redis server {address} does not answer as one")
    };
    Error::unavailable(message).with_source(error)
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    /// The error of an answer.
    fn answered(line: &str) -> RedisError {
        let value = redis::parse_redis_value(line.as_bytes()).unwrap();
        Value::extract_error(value).unwrap_err()
    }

    #[test]
    fn maxclients_is_unavailable_and_retryable() {
        let address = Address { host: "cache".to_owned(), port: 6379 };
        let refusal = || answered("-ERR max number of clients reached\r\n");
        let in_a_call = Failure::Refused(refusal()).into_error(Effect::Write);
        for error in [in_a_call, not_admitted(&address, refusal(), false)] {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            assert!(error.is_retryable() && error.message().contains("`maxclients`"), "{error:?}");
        }
    }
}
