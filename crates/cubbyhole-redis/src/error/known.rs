//! Known error replies of servers, and their errors in the contract.

use cubbyhole_core::{Error, ErrorKind};
use redis::RedisError;

/// Returns whether a request that failed with this error may have had an effect.
///
/// A known error means that it had none, because scripts fail only before their first write. An
/// unknown error does not guarantee that.
pub(super) fn has_doubtful_effect(error: &RedisError) -> bool {
    known_as(error).is_none_or(|known| known.text == NOT_LOCAL)
}

pub(super) fn known_as(error: &RedisError) -> Option<&'static KnownError> {
    let code = error.code().unwrap_or_default();
    let detail = error.detail().unwrap_or_default();
    KNOWN.iter().find(|known| known.code == code && detail.contains(known.text))
}

/// Returns whether a script failed in its own code rather than in a command, because stored data
/// was malformed.
fn is_stuck_script(error: &RedisError) -> bool {
    error.code() == Some("ERR")
        && error.detail().is_some_and(|detail| detail.starts_with("user_script:"))
}

pub(super) fn refused(error: RedisError) -> Error {
    let Some(known) = known_as(&error) else {
        if is_stuck_script(&error) {
            let message = "a script of the store found malformed data: another program writes \
                           under its prefix; `erase` removes the data";
            return Error::corrupt(message).with_source(error).permanent();
        }
        let code = error.code().unwrap_or_default().to_owned();
        return Error::internal(format!("Redis refused the command ({code})")).with_source(error);
    };
    let mapped = Error::new(known.kind, known.message).with_source(error);
    if known.permanent { mapped.permanent() } else { mapped }
}

pub(super) struct KnownError {
    code: &'static str,
    /// A part of the message, if the code alone is ambiguous.
    text: &'static str,
    kind: ErrorKind,
    permanent: bool,
    message: &'static str,
}

const fn known(code: &'static str, kind: ErrorKind, message: &'static str) -> KnownError {
    KnownError { code, text: "", kind, permanent: false, message }
}

const fn permanent(
    code: &'static str,
    text: &'static str,
    kind: ErrorKind,
    message: &'static str,
) -> KnownError {
    KnownError { code, text, kind, permanent: true, message }
}

/// A part of the error of a script command whose key is missing while its slot is being migrated.
const NOT_LOCAL: &str = "access a non local key";

static KNOWN: [KnownError; 23] = [
    known(
        "OOM",
        ErrorKind::ResourceExhausted,
        "Redis has no memory left for writes (`maxmemory`); raise the limit, or erase or evict \
         entries",
    ),
    known(
        "MISCONF",
        ErrorKind::Unavailable,
        "Redis rejects writes because it cannot save to disk; see its log",
    ),
    known(
        "NOREPLICAS",
        ErrorKind::Unavailable,
        "Redis rejects writes because too few replicas are connected (`min-replicas-to-write`)",
    ),
    known(
        "READONLY",
        ErrorKind::Unavailable,
        "the server is a replica and rejects writes: the URL names a replica, or a failover has \
         demoted the master; name the master",
    ),
    known("LOADING", ErrorKind::Unavailable, "Redis is still loading its data"),
    known("BUSY", ErrorKind::Unavailable, "Redis is busy running a script"),
    known("TRYAGAIN", ErrorKind::Unavailable, "the slot is being moved to another master"),
    known("ASK", ErrorKind::Unavailable, "the slot is being moved to another master"),
    known("MOVED", ErrorKind::Unavailable, "the masters do not agree on the owner of the slot"),
    known("CLUSTERDOWN", ErrorKind::Unavailable, "the Redis Cluster is down"),
    known("MASTERDOWN", ErrorKind::Unavailable, "the replica has lost its master"),
    KnownError {
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
        "Redis requires authentication; add user and password to the URL",
    ),
    permanent(
        "WRONGPASS",
        "",
        ErrorKind::PermissionDenied,
        "Redis rejects the user or the password",
    ),
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
        "a key of the store has the wrong type: another program writes under its prefix",
    ),
    KnownError {
        code: "ERR",
        text: "max number of clients",
        kind: ErrorKind::Unavailable,
        permanent: false,
        message: "Redis accepts no more connections (`maxclients`); raise the limit, or close some",
    },
    permanent(
        "ERR",
        "unknown command",
        ErrorKind::Unsupported,
        "the server lacks a command that the store needs; use Redis 7 or newer",
    ),
    permanent(
        "ERR",
        "DB index is out of range",
        ErrorKind::InvalidArgument,
        "the server has no such database: correct the number after the `/` of the URL",
    ),
    permanent(
        "ERR",
        "SELECT is not allowed",
        ErrorKind::InvalidArgument,
        "a Redis Cluster has no databases: remove the number after the `/` of the URL",
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
        "the keys of one call are in several slots: this is a defect",
    ),
];
