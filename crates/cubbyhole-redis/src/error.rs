//! Mapping of error replies and connection failures to the errors of the contract.

mod connect;
mod known;

pub(crate) use connect::{not_admitted, unreachable};
use cubbyhole_core::Error;
use redis::RedisError;

use crate::effect::Effect;
use known::{has_doubtful_effect, refused};

/// The reason why a request has no usable reply.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request was not sent.
    Unsent(Error),
    /// No known server owns the slot.
    NoOwner,
    /// The connection ended after the request was sent and before the reply.
    Lost(RedisError),
    /// The server replied with an error.
    Refused(RedisError),
    /// The write was applied, but only this many replicas confirmed it.
    FewReplicas(i64),
    /// The write was applied, but the server refused to wait for replicas.
    NotWaited(RedisError),
}

impl Failure {
    /// Returns the error for the caller of the store.
    pub(crate) fn into_error(self, effect: Effect) -> Error {
        // The master has applied the write, so a read proves nothing about the replicas.
        let lacks_replicas = matches!(self, Self::FewReplicas(_) | Self::NotWaited(_));
        let (error, may_be_applied) = match self {
            Self::Unsent(error) => (error, false),
            Self::NoOwner => {
                let message =
                    "no master of the Redis Cluster serves the slot; see `cubbyhole doctor`";
                (Error::unavailable(message), false)
            }
            Self::Lost(error) => {
                let lost = Error::unavailable("the connection to Redis ended before the reply");
                (lost.with_source(error), true)
            }
            Self::Refused(error) => {
                let is_doubtful = has_doubtful_effect(&error);
                (refused(error), is_doubtful)
            }
            Self::FewReplicas(count) => {
                let message = format!("too few replicas confirmed the write in time ({count})");
                (Error::unavailable(message), true)
            }
            Self::NotWaited(error) => (refused(error), true),
        };
        let unknown = may_be_applied && effect == Effect::Write;
        match unknown {
            true if lacks_replicas => error.with_unknown_outcome().permanent(),
            true => error.with_unknown_outcome(),
            false => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use cubbyhole_core::ErrorKind;
    use redis::Value;

    use super::*;
    use crate::config::Address;

    /// Parses an error reply.
    fn answered(line: &str) -> RedisError {
        let value = redis::parse_redis_value(line.as_bytes()).unwrap();
        Value::extract_error(value).unwrap_err()
    }

    #[test]
    fn write_without_confirmation_of_replicas_is_permanent() {
        let few = Failure::FewReplicas(0).into_error(Effect::Write);
        let not_waited = Failure::NotWaited(answered("-ERR no WAIT\r\n")).into_error(Effect::Write);
        for error in [few, not_waited] {
            assert!(error.may_have_been_applied() && error.is_permanent(), "{error:?}");
        }
        let lost = Failure::Lost(answered("-ERR lost\r\n")).into_error(Effect::Write);
        assert!(lost.may_have_been_applied() && !lost.is_permanent(), "{lost:?}");
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
