//! What a comparison of an index with its values changes.

use cubbyhole_core::OrphanAction;

/// What a comparison does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Changes nothing.
    Check,
    /// Repairs the index, and does that to orphaned values.
    Repair(OrphanAction),
}

impl Comparison {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Repair(OrphanAction::List) => "list",
            Self::Repair(OrphanAction::Register) => "register",
            Self::Repair(OrphanAction::Remove) => "remove",
        }
    }

    pub(super) const fn needs_versions(self) -> bool {
        matches!(self, Self::Repair(OrphanAction::Register))
    }
}
