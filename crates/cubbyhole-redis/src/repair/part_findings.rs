//! The findings in one part of an index.

use cubbyhole_core::Error;

use super::contents::NamespaceContents;

/// The findings in one part of an index.
#[derive(Default)]
pub(super) struct PartFindings {
    pub(super) expiries: u64,
    pub(super) without_value: u64,
    pub(super) unlisted: u64,
    pub(super) contents: NamespaceContents,
    pub(super) failure: Option<Error>,
}
