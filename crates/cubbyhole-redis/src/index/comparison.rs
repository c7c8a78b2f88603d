//! The mode of a comparison of an index with its values.

use cubbyhole_core::OrphanAction;

/// The mode of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Changes nothing.
    Check,
    /// Repairs the index, and applies the action to orphaned values.
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
