//! What must hold for a write to be applied.

use crate::{Error, Result, Version};

/// What must hold for a write to be applied. An expired entry counts as absent.
///
/// A condition is an argument of its own and not one of [`PutOptions`](crate::PutOptions), so that
/// a plain [`Store`](crate::Store) cannot be handed one that it would ignore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Condition {
    /// Write whatever stands there.
    #[default]
    Always,
    /// Write only if there is no entry.
    IfAbsent,
    /// Write only if the entry is there at this version.
    IfVersion(Version),
}

impl Condition {
    /// Judges the condition: `current` is the version of the live entry, `None` without one.
    ///
    /// # Errors
    /// `Conflict` with the current version.
    pub fn check(self, current: Option<Version>) -> Result<()> {
        let holds = match self {
            Self::Always => true,
            Self::IfAbsent => current.is_none(),
            Self::IfVersion(version) => current == Some(version),
        };
        if holds { Ok(()) } else { Err(Error::conflict(current)) }
    }
}
