//! What Redis answers and what the connection meets, as the contract's errors.

mod connect;
mod known;

pub(crate) use connect::{not_admitted, unreachable};
use cubbyhole_core::Error;
use redis::RedisError;

use crate::effect::Effect;
use known::{has_doubtful_effect, refused};

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

#[cfg(test)]
mod tests {
    use cubbyhole_core::ErrorKind;
    use redis::Value;

    use super::*;
    use crate::config::Address;

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
