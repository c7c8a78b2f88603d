//! Parameter values and their origin.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use cubbyhole_core::{Error, Result};

use super::keywords::{Keyword, Support};

pub(super) const NOT_UTF8: &str = "the value is not UTF-8";

/// libpq's parameters by name. An empty value selects the default and hides sources of lower
/// precedence.
#[derive(Default)]
pub(crate) struct Parameters(BTreeMap<&'static str, Parameter>);

struct Parameter {
    value: Vec<u8>,
    origin: Origin,
}

/// The source of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Url,
    Service { name: String, file: PathBuf },
    Variable(&'static str),
}

impl Parameters {
    /// Whether a source has set the parameter, even to an empty value.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Sets or replaces a parameter. Rejects unsupported values.
    pub(super) fn set(&mut self, name: &'static str, value: Vec<u8>, origin: Origin) -> Result<()> {
        if value.contains(&0) {
            return Err(origin.invalid(name, "the value contains a NUL character"));
        }
        let support = Keyword::find(name).map(|keyword| keyword.support);
        let reason = match support {
            Some(Support::Refused(reason)) if !value.is_empty() => Some(reason),
            Some(Support::Only(values, reason))
                if !value.is_empty() && !values.iter().any(|only| only.as_bytes() == value) =>
            {
                Some(reason)
            }
            _ => None,
        };
        match reason {
            Some(reason) => Err(Error::unsupported(format!("{}: {reason}", origin.describe(name)))),
            None => {
                self.0.insert(name, Parameter { value, origin });
                Ok(())
            }
        }
    }

    /// The value and its origin, or `None` if the default applies.
    pub(crate) fn bytes(&self, name: &str) -> Option<(&[u8], &Origin)> {
        let Parameter { value, origin } = self.0.get(name)?;
        (!value.is_empty()).then_some((value, origin))
    }

    /// Like [`bytes`](Self::bytes), as UTF-8.
    pub(crate) fn text(&self, name: &str) -> Result<Option<(&str, &Origin)>> {
        let Some((value, origin)) = self.bytes(name) else { return Ok(None) };
        match std::str::from_utf8(value) {
            Ok(text) => Ok(Some((text, origin))),
            Err(_) => Err(origin.invalid(name, NOT_UTF8)),
        }
    }

    /// The value, parsed by `parse`. `advice` describes the valid values for the error message.
    pub(crate) fn parsed<T>(
        &self,
        name: &str,
        advice: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some((text, origin)) = self.text(name)? else { return Ok(None) };
        parse(text).map(Some).ok_or_else(|| origin.invalid(name, advice))
    }
}

impl Origin {
    /// Describes where the parameter `name` is set, for messages.
    pub(super) fn describe(&self, name: &str) -> String {
        match self {
            Self::Url => format!("option `{name}` of the PostgreSQL URL"),
            Self::Service { name: service, file } => {
                format!("`{name}` of the service `{service}` in {}", file.display())
            }
            Self::Variable(variable) => format!("the environment variable {variable}"),
        }
    }

    pub(crate) fn invalid(&self, name: &str, advice: &str) -> Error {
        Error::invalid_argument(format!("{}: {advice}", self.describe(name)))
    }
}

impl fmt::Debug for Parameters {
    /// Lists only the names, because a value may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
