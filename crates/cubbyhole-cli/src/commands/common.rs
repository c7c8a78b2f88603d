//! Helpers of several commands.

use cubbyhole::Namespace;

use crate::error::Failure;
use crate::output::{escape, shell_quoted};

/// The page size of listings without values.
pub(super) const PAGE_NAMES: usize = 1000;

pub(super) fn not_found(namespace: &Namespace, key: &str) -> Failure {
    let name = escape(namespace.as_str());
    Failure::NotFound(format!(
        "there is no entry `{}` in {name}; `cubbyhole list {}` lists the keys",
        escape(key),
        shell_quoted(&name),
    ))
}
