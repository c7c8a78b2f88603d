//! The errors for files that are not stores, have another format, or are damaged.

use std::path::Path;

use cubbyhole_core::Error;

use crate::url_path::shown;

pub(super) fn earlier(path: &Path) -> Error {
    Error::unsupported(format!(
        "{} was written by an earlier build; export it with that build, and import it into a new \
         store",
        shown(path)
    ))
}

pub(super) fn foreign(path: &Path) -> Error {
    Error::invalid_argument(format!(
        "{} is a redb file of another program, not a Cubbyhole store",
        shown(path)
    ))
}

pub(super) fn not_a_store(path: &Path) -> Error {
    Error::invalid_argument(format!("{} is not a Cubbyhole store", shown(path)))
}

pub(super) fn damaged(path: &Path) -> Error {
    Error::corrupt(format!("{} is damaged; restore it from a backup or an export", shown(path)))
}

pub(super) fn truncated(path: &Path) -> Error {
    Error::corrupt(format!(
        "{} is empty or nearly empty and contains no store; if it contained one, restore it from a \
         backup or an export",
        shown(path)
    ))
}
