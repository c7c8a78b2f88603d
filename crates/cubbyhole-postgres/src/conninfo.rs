//! libpq's connection parameters: the URL, the service file, the environment and the password file,
//! with libpq's precedence.
//!
//! A parameter of the URL overrides the service file, which overrides the environment. The password
//! file is the last source, for the password alone. No message quotes a value.

mod environment;
mod hosts;
mod keywords;
mod passfile;
mod service;
mod session;
#[cfg(test)]
mod tests;
mod tls;
mod uri;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use cubbyhole_core::{Error, Result};

pub(crate) use environment::Environment;
pub(crate) use hosts::{Host, HostAddress, hosts};
use keywords::{KEYWORDS, Keyword, Support};
pub(crate) use session::{SessionAttrs, SessionParameters, SocketOptions};
pub(crate) use tls::{ClientFiles, Encryption, TlsMode};

/// libpq's parameters by their names. An empty value means the default, and hides the sources of
/// lower precedence.
#[derive(Default)]
pub(crate) struct Parameters(BTreeMap<&'static str, Parameter>);

pub(crate) struct Parameter {
    value: Vec<u8>,
    origin: Origin,
}

/// Where a parameter was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Url,
    Service { name: String, file: PathBuf },
    Variable(&'static str),
}

/// A URL, read: libpq's parameters, completed from its other sources, and the store's own options in
/// the order of the URL.
pub(crate) struct Resolved {
    pub(crate) parameters: Parameters,
    pub(crate) own: Vec<(&'static str, String)>,
}

/// Reads `url` and completes it. `own` names the store's own options.
pub(crate) fn resolve(
    url: &str,
    own: &[&'static str],
    environment: &Environment,
) -> Result<Resolved> {
    let uri = uri::parse(url)?;
    let mut resolved = Resolved { parameters: Parameters::default(), own: Vec::new() };
    let parameters = &mut resolved.parameters;
    for (name, value) in uri.parameters {
        if let Some(own) = own.iter().find(|own| **own == name) {
            let value = String::from_utf8(value).map_err(|_| Origin::Url.invalid(own, NOT_UTF8))?;
            resolved.own.push((own, value));
        } else if name == "ssl" && value == b"true" {
            // As JDBC writes it; libpq reads it too.
            parameters.set("sslmode", b"require".to_vec(), Origin::Url)?;
        } else if let Some(keyword) = Keyword::find(&name) {
            parameters.set(keyword.name, value, Origin::Url)?;
        } else {
            // Where the URL has no `@`, its options may be a part of a password.
            let shown = if uri.names_may_be_shown { format!(" `{name}`") } else { String::new() };
            return Err(Error::invalid_argument(format!(
                "the PostgreSQL URL has an option{shown} that is neither one of libpq's options nor \
                 one of the store's"
            )));
        }
    }
    service::complete(parameters, environment)?;
    for keyword in &KEYWORDS {
        let Some(variable) = keyword.variable else { continue };
        if !parameters.0.contains_key(keyword.name)
            && let Some(value) = environment.variable(variable)?
        {
            parameters.set(keyword.name, value.into_bytes(), Origin::Variable(variable))?;
        }
    }
    let requires_ssl = environment.variable("PGREQUIRESSL")?.is_some_and(|v| v.starts_with('1'));
    if requires_ssl && !parameters.0.contains_key("sslmode") {
        let origin = Origin::Variable("PGREQUIRESSL");
        parameters.set("sslmode", b"require".to_vec(), origin)?;
    }
    Ok(resolved)
}

impl Parameters {
    /// Sets a parameter, in place of the value that it may have. Refuses unsupported values.
    fn set(&mut self, name: &'static str, value: Vec<u8>, origin: Origin) -> Result<()> {
        if value.contains(&0) {
            return Err(origin.invalid(name, "it contains a NUL"));
        }
        let support = Keyword::find(name).map(|keyword| keyword.support);
        let refused = match support {
            Some(Support::Refused(why)) if !value.is_empty() => Some(why),
            Some(Support::Only(values, why))
                if !value.is_empty() && !values.iter().any(|only| only.as_bytes() == value) =>
            {
                Some(why)
            }
            _ => None,
        };
        match refused {
            Some(why) => Err(Error::unsupported(format!("{}: {why}", origin.of(name)))),
            None => {
                self.0.insert(name, Parameter { value, origin });
                Ok(())
            }
        }
    }

    /// The value, and where it was set; `None` where the default applies.
    pub(crate) fn bytes(&self, name: &str) -> Option<(&[u8], &Origin)> {
        let Parameter { value, origin } = self.0.get(name)?;
        (!value.is_empty()).then_some((value, origin))
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<(&str, &Origin)>> {
        let Some((value, origin)) = self.bytes(name) else { return Ok(None) };
        match std::str::from_utf8(value) {
            Ok(text) => Ok(Some((text, origin))),
            Err(_) => Err(origin.invalid(name, NOT_UTF8)),
        }
    }

    /// The value as `read` understands it; `advice` says what may be written.
    pub(crate) fn parsed<T>(
        &self,
        name: &str,
        advice: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some((text, origin)) = self.text(name)? else { return Ok(None) };
        read(text).map(Some).ok_or_else(|| origin.invalid(name, advice))
    }
}

const NOT_UTF8: &str = "it is not UTF-8";

impl Origin {
    /// The parameter `name` in words: where it is set.
    fn of(&self, name: &str) -> String {
        match self {
            Self::Url => format!("option `{name}` of the PostgreSQL URL"),
            Self::Service { name: service, file } => {
                format!("`{name}` of the service `{service}` in {}", file.display())
            }
            Self::Variable(variable) => format!("the environment variable {variable}"),
        }
    }

    pub(crate) fn invalid(&self, name: &str, advice: &str) -> Error {
        Error::invalid_argument(format!("{}: {advice}", self.of(name)))
    }
}

impl fmt::Debug for Parameters {
    /// The names alone: a value may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
