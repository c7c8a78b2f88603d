//! [`Condition`] of a write.

use crate::{Error, Result, Version};

/// The condition of a write. The write is applied only if it holds. An expired entry counts as absent.
///
/// A condition is a separate argument and not a field of [`PutOptions`](crate::PutOptions). A plain
/// [`Store`](crate::Store) therefore cannot receive a condition that it would ignore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Condition {
    /// Always holds.
    #[default]
    Always,
    /// Holds if there is no live entry.
    IfAbsent,
    /// Holds if there is a live entry, with any version.
    IfPresent,
    /// Holds if there is a live entry with this version.
    IfVersion(Version),
}

impl Condition {
    /// Evaluates the condition. `current` is the version of the live entry, or `None` without one.
    ///
    /// # Errors
    /// `Conflict` with the current version if the condition does not hold.
    pub fn check(self, current: Option<Version>) -> Result<()> {
        let holds = match self {
            Self::Always => true,
            Self::IfAbsent => current.is_none(),
            Self::IfPresent => current.is_some(),
            Self::IfVersion(version) => current == Some(version),
        };
        if holds { Ok(()) } else { Err(Error::conflict(current)) }
    }
}
