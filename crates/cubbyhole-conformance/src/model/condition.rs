//! The conditions of writes, as the model evaluates them.

use cubbyhole_core::{Condition, Result, Version};

use crate::outcome::{Outcome, check, check_eq};
use crate::world::is_conflict;

/// Returns true if a condition holds for the current version of a key; `None` is an absent key.
pub(super) fn holds(condition: Condition, current: Option<Version>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::IfAbsent => current.is_none(),
        Condition::IfPresent => current.is_some(),
        Condition::IfVersion(version) => current == Some(version),
    }
}

/// Checks the reply of a conditional write. Returns `None` for a correct conflict.
pub(super) fn check_conditional<T>(
    reply: Result<T>,
    condition: Condition,
    current: Option<Version>,
    what: &str,
) -> Outcome<Option<T>> {
    let holds = holds(condition, current);
    match reply {
        Ok(reply) => {
            check!(holds, "{what} succeeds, but {condition:?} does not hold: version {current:?}");
            Ok(Some(reply))
        }
        Err(error) if is_conflict(&error) => {
            check!(!holds, "{what} returns a conflict, but {condition:?} holds: {current:?}");
            check_eq!(error.current_version(), current, "the version in the conflict of {what}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
