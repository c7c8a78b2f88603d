//! The reaction to an error reply.

use redis::RedisError;

use crate::config::Address;
use crate::refusal::Refusal;

/// The reaction of a call to an error reply.
#[derive(Debug)]
pub(crate) enum NextStep {
    /// The slot has moved: update the slot map and repeat the request there.
    Moved(Address),
    /// The slot is being migrated: repeat this one request there.
    Ask(Address),
    /// The server does not know the script: repeat the request with its source.
    LoadScript,
    /// Retry after a pause, and re-read the slot map first if `refresh` is set.
    Later { refresh: bool },
    /// The script refused the request.
    Refusal(Refusal),
    /// Return the error.
    Fail,
}

impl NextStep {
    /// Decides by an error reply of the server `asked`. A redirection may omit the host, and then
    /// means the host of that server.
    pub(crate) fn after(error: &RedisError, asked: &Address) -> Self {
        let details = || error.detail().unwrap_or_default().split(' ');
        let fail = |next: Option<Self>| next.unwrap_or(Self::Fail);
        match error.code().unwrap_or_default() {
            "MOVED" => fail(redirection(error, asked).map(Self::Moved)),
            "ASK" => fail(redirection(error, asked).map(Self::Ask)),
            "NOSCRIPT" => Self::LoadScript,
            "TRYAGAIN" | "LOADING" | "BUSY" => Self::Later { refresh: false },
            "CLUSTERDOWN" | "MASTERDOWN" | "READONLY" => Self::Later { refresh: true },
            "UNREGISTERED" => {
                let mut words = details();
                let mut word = || words.next().unwrap_or_default().to_owned();
                Self::Refusal(Refusal::Unregistered { issued: word(), fence: word() })
            }
            "TOOLATE" => {
                let is_idle = details().nth(1) == Some("idle");
                Self::Refusal(Refusal::TooLate { is_idle })
            }
            "CHANGED" => Self::Refusal(Refusal::Changed),
            "CONFLICT" => {
                let mut words = details();
                let index = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                // The version as 32 hexadecimal digits, or `absent`.
                let current = words.next().and_then(|word| word.parse().ok());
                Self::Refusal(Refusal::Conflict { index, current })
            }
            _ => Self::Fail,
        }
    }
}

fn redirection(error: &RedisError, asked: &Address) -> Option<Address> {
    let (address, _) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // A server that does not know its host name omits it or sends `?`.
    let host = if host.is_empty() || host == "?" { &asked.host } else { host };
    Some(Address { host: host.to_owned(), port: port.parse().ok()? })
}
