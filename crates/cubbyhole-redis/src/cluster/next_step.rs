//! What a call does after an error reply.

use redis::RedisError;

use crate::config::Address;
use crate::refusal::Refusal;

/// What to do about what the server answered.
#[derive(Debug)]
pub(crate) enum NextStep {
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

impl NextStep {
    /// Judges an error that the server answered; `asked` names the server, for redirections that
    /// leave the host out.
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
            "TOOLATE" => Self::Refusal(Refusal::TooLate),
            "CONFLICT" => {
                let mut words = details();
                let index = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                // Thirty-two digits, or `absent`.
                let current = words.next().and_then(|word| word.parse().ok());
                Self::Refusal(Refusal::Conflict { index, current })
            }
            _ => Self::Fail,
        }
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
