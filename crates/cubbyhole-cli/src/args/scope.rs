//! The part of a store that a command works on: a prefix or everything.

use std::fmt;

use clap::Args;
use cubbyhole::NamespacePrefix;

use super::parse::parse_prefix;
use crate::output::escape;

/// The arguments `PREFIX` and `--all`, of which exactly one is given.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ScopeArguments {
    /// Prefix: a tenant and segments, as in acme:agent-7
    #[arg(value_parser = parse_prefix)]
    prefix: Option<NamespacePrefix>,
    /// Include every tenant
    #[arg(long)]
    all: bool,
}

impl ScopeArguments {
    pub(crate) fn into_scope(self) -> Scope {
        Scope(self.prefix)
    }
}

/// Everything under a prefix, or in the whole store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope(pub(crate) Option<NamespacePrefix>);

impl Scope {
    /// The prefix; `None` for the whole store.
    pub(crate) fn prefix(&self) -> Option<&NamespacePrefix> {
        self.0.as_ref()
    }
}

/// The scope as messages name it: `under acme` or `in the store`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(prefix) => write!(f, "under {}", escape(prefix.as_str())),
            None => f.write_str("in the store"),
        }
    }
}
