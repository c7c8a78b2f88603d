//! libpq's connection parameters, read from the URL, the service file, the environment and the
//! password file.
//!
//! The precedence is libpq's: the URL overrides the service file, which overrides the environment.
//! The password file is the last source and only for the password. No message quotes a value.

mod environment;
mod hosts;
mod keywords;
mod parameters;
mod passfile;
mod service;
mod session;
#[cfg(test)]
mod tests;
mod tls;
mod uri;

use cubbyhole_core::{Error, Result};

pub(crate) use environment::Environment;
pub(crate) use hosts::{Host, HostAddress, hosts};
use keywords::{KEYWORDS, Keyword};
pub(crate) use parameters::Origin;
use parameters::{NOT_UTF8, Parameters};
pub(crate) use session::{SessionAttrs, SessionParameters, SocketOptions};
pub(crate) use tls::{ClientFiles, Encryption, TlsMode};

/// The parsed URL: libpq's parameters, completed from the other sources, and the store's options in
/// the order of the URL.
pub(crate) struct Resolved {
    pub(crate) parameters: Parameters,
    pub(crate) store_options: Vec<(&'static str, String)>,
}

/// Parses `url` and completes it from the other sources. `store_options` lists the names of the
/// store's options.
pub(crate) fn resolve(
    url: &str,
    store_options: &[&'static str],
    environment: &Environment,
) -> Result<Resolved> {
    let uri = uri::parse(url)?;
    let mut resolved = Resolved { parameters: Parameters::default(), store_options: Vec::new() };
    let parameters = &mut resolved.parameters;
    for (name, value) in uri.parameters {
        if let Some(option) = store_options.iter().find(|option| **option == name) {
            let value =
                String::from_utf8(value).map_err(|_| Origin::Url.invalid(option, NOT_UTF8))?;
            resolved.store_options.push((option, value));
        } else if name == "ssl" && value == b"true" {
            // The spelling of JDBC, which libpq accepts too.
            parameters.set("sslmode", b"require".to_vec(), Origin::Url)?;
        } else if let Some(keyword) = Keyword::find(&name) {
            parameters.set(keyword.name, value, Origin::Url)?;
        } else {
            // Without an `@` in the URL, the text after `?` may be part of a password.
            let shown = if uri.names_may_be_shown { format!(" `{name}`") } else { String::new() };
            return Err(Error::invalid_argument(format!(
                "the PostgreSQL URL has an unknown option{shown}: it is neither an option of libpq nor \
                 of the store"
            )));
        }
    }
    service::complete(parameters, environment)?;
    for keyword in &KEYWORDS {
        let Some(variable) = keyword.variable else { continue };
        if !parameters.contains(keyword.name)
            && let Some(value) = environment.variable(variable)?
        {
            parameters.set(keyword.name, value.into_bytes(), Origin::Variable(variable))?;
        }
    }
    let requires_ssl = environment.variable("PGREQUIRESSL")?.is_some_and(|v| v.starts_with('1'));
    if requires_ssl && !parameters.contains("sslmode") {
        let origin = Origin::Variable("PGREQUIRESSL");
        parameters.set("sslmode", b"require".to_vec(), origin)?;
    }
    Ok(resolved)
}
