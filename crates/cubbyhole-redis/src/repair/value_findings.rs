//! The findings for some values of a namespace.

use cubbyhole_core::Namespace;

use crate::index::IndexFinding;

/// The findings for some values of a namespace.
pub(super) struct ValueFindings {
    pub(super) ns: Namespace,
    pub(super) findings: Vec<(String, IndexFinding)>,
}
