//! The address of a server.

use std::fmt;

use cubbyhole_core::{Error, Result};

use super::url_option::decoded;

const DEFAULT_PORT: u16 = 6379;

/// Host and port of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Address {
    /// Parses `HOST:PORT`. The default host is `localhost` and the default port is 6379.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid_argument(
                "a server in the Redis URL is not HOST:PORT; write an IPv6 address in brackets",
            )
        };
        let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
            let (host, rest) = bracketed.split_once(']').ok_or_else(bad)?;
            (host, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some("")))
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())),
                None => (text, Some("")),
            }
        };
        let port = match port.ok_or_else(bad)? {
            "" => DEFAULT_PORT,
            number => number.parse().map_err(|_| bad())?,
        };
        let host = if host.is_empty() { "localhost".to_owned() } else { decoded("host", host)? };
        Ok(Self { host, port })
    }
}
