//! The URL as libpq reads it: `postgres://USER:PASSWORD@HOST:PORT,…/DATABASE?OPTION=VALUE&…`.

use cubbyhole_core::{Error, Result};
use percent_encoding::percent_decode_str;

/// What a URL says, decoded and in order: a later parameter overrides an earlier one.
pub(crate) struct Uri {
    pub(crate) parameters: Vec<(String, Vec<u8>)>,
    /// Whether no name of an option can be a part of a password.
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
    // After an unencoded `@` in a password, the rest of it would be a host or an option, which are
    // shown.
    if address.matches('@').count() > 1 || query.contains('@') {
        return Err(Error::invalid_argument(
            "the PostgreSQL URL has a `@` besides the one before the host: write `%40`, and in a \
             password also `%3F` for `?`",
        ));
    }
    let (userinfo, address) = match address.split_once('@') {
        // libpq would read a host before the `/`.
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
    // One host without a port has neither; of several each has its place in both lists.
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

/// The names and the ports of `a:1,[::1]:2,c`, in two lists of the same length.
fn split_hosts(hosts: &str) -> Result<(Vec<&str>, Vec<&str>)> {
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(bracketed) => {
                let (name, after) = bracketed.split_once(']').ok_or_else(unclosed)?;
                match after.strip_prefix(':') {
                    Some(port) => (name, port),
                    None if after.is_empty() => (name, ""),
                    None => return Err(unclosed()),
                }
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(name);
        ports.push(port);
    }
    Ok((names, ports))
}

fn unclosed() -> Error {
    Error::invalid_argument("the PostgreSQL URL has a malformed IPv6 address: write `[::1]:5432`")
}
