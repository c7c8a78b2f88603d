//! Parses a URL as libpq does: `postgres://USER:PASSWORD@HOST:PORT,…/DATABASE?OPTION=VALUE&…`.

use cubbyhole_core::{Error, Result};
use percent_encoding::percent_decode_str;

/// The decoded parameters of a URL in order. A later parameter overrides an earlier one.
pub(crate) struct Uri {
    pub(crate) parameters: Vec<(String, Vec<u8>)>,
    /// Whether messages may show option names. Otherwise a name could be part of a password.
    pub(crate) names_may_be_shown: bool,
}

pub(crate) fn parse(url: &str) -> Result<Uri> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let rest = rest.ok_or_else(|| {
        Error::invalid_argument(
            "not a PostgreSQL URL: write `postgres://USER:PASSWORD@HOST/DATABASE`, with names \
             percent-encoded and options after `?`",
        )
    })?;
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    // After an unencoded `@` in a password, the remainder would be parsed as a host or an option, and
    // messages show those.
    if address.matches('@').count() > 1 || query.contains('@') {
        return Err(Error::invalid_argument(
            "the PostgreSQL URL has more than one `@`: write `%40` for all but the one before the host, \
             and in a password also `%3F` for `?`",
        ));
    }
    let (userinfo, address) = match address.split_once('@') {
        // libpq would parse the text before the `/` as a host.
        Some((userinfo, _)) if userinfo.contains('/') => {
            return Err(Error::invalid_argument(
                "the PostgreSQL URL has a `/` before the `@`: write `%2F` in a user or password, or \
                 `%40` in the name of a database",
            ));
        }
        Some((userinfo, address)) => (Some(userinfo), address),
        None => (None, address),
    };
    let (hosts, database) = address.split_once('/').unwrap_or((address, ""));
    let mut parameters = Vec::new();
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            parameters.push((name.to_owned(), decode(value)));
        }
    };
    if let Some(userinfo) = userinfo {
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        add("user", user);
        add("password", password);
    }
    let (names, ports) = split_hosts(hosts)?;
    // A single empty host sets no parameter. With several hosts, empty entries keep the lists
    // aligned.
    if names.iter().any(|name| !name.is_empty()) || names.len() > 1 {
        add("host", &names.join(","));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        add("port", &ports.join(","));
    }
    add("dbname", database);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| Error::invalid_argument("an option in the PostgreSQL URL has no `=`"))?;
        let name = String::from_utf8_lossy(&decode(name)).into_owned();
        parameters.push((name, decode(value)));
    }
    let names_may_be_shown = userinfo.is_some() || !hosts.contains(':');
    Ok(Uri { parameters, names_may_be_shown })
}

fn decode(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}

/// Splits `a:1,[::1]:2,c` into names and ports, in two lists of equal length.
fn split_hosts(hosts: &str) -> Result<(Vec<&str>, Vec<&str>)> {
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(bracketed) => {
                let (name, after) = bracketed.split_once(']').ok_or_else(malformed_ipv6)?;
                match after.strip_prefix(':') {
                    Some(port) => (name, port),
                    None if after.is_empty() => (name, ""),
                    None => return Err(malformed_ipv6()),
                }
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(name);
        ports.push(port);
    }
    Ok((names, ports))
}

fn malformed_ipv6() -> Error {
    Error::invalid_argument("the PostgreSQL URL has a malformed IPv6 address: write `[::1]:5432`")
}
