//! The outcome of a call and the level at which it is reported.

use cubbyhole_core::{Error, ErrorKind};

/// The outcome of a call: one word in spans, events and labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    NotFound,
    Dropped,
    Failed(ErrorKind),
}

/// The error kinds whose metric keys are cached.
const KINDS: [ErrorKind; 12] = [
    ErrorKind::InvalidArgument,
    ErrorKind::Conflict,
    ErrorKind::Cancelled,
    ErrorKind::DeadlineExceeded,
    ErrorKind::Unavailable,
    ErrorKind::PermissionDenied,
    ErrorKind::ResourceExhausted,
    ErrorKind::RateLimited,
    ErrorKind::Codec,
    ErrorKind::Corrupt,
    ErrorKind::Unsupported,
    ErrorKind::Internal,
];

pub(crate) const KIND_COUNT: usize = KINDS.len();

/// The index of the cached key for `kind`; `None` for a kind added to core later.
pub(crate) fn kind_index(kind: ErrorKind) -> Option<usize> {
    KINDS.iter().position(|known| *known == kind)
}

impl Outcome {
    /// The number of outcomes whose metric keys are cached.
    pub(crate) const COUNT: usize = 3 + KIND_COUNT;

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFound => "not_found",
            Self::Dropped => "dropped",
            Self::Failed(kind) => kind.as_str(),
        }
    }

    /// The index of the cached key; `None` for an error kind added to core later.
    pub(crate) fn index(self) -> Option<usize> {
        match self {
            Self::Ok => Some(0),
            Self::NotFound => Some(1),
            Self::Dropped => Some(2),
            Self::Failed(kind) => kind_index(kind).map(|index| 3 + index),
        }
    }
}

/// The level of the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    Debug,
    Info,
    Warn,
    Error,
}

impl Severity {
    /// Errors that the caller caused are DEBUG. At a higher level they would hide the errors that
    /// an operator must see.
    pub(crate) const fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidArgument
            | ErrorKind::Conflict
            | ErrorKind::Cancelled
            | ErrorKind::Unsupported => Self::Debug,
            ErrorKind::Unavailable
            | ErrorKind::DeadlineExceeded
            | ErrorKind::ResourceExhausted
            | ErrorKind::RateLimited
            | ErrorKind::PermissionDenied
            | ErrorKind::Codec => Self::Warn,
            // Corrupt, Internal, and kinds added to core later.
            _ => Self::Error,
        }
    }
}

/// The reported details of a successful call.
#[derive(Debug)]
pub(crate) enum Summary {
    Done,
    /// Whether there was a live entry.
    Found(bool),
    Removed(u64),
    /// The errors of the unreadable values in a result that otherwise succeeded; never empty.
    Unreadable(Vec<Error>),
}

impl Summary {
    pub(crate) fn done<T>(_: &T) -> Self {
        Self::Done
    }

    pub(crate) fn option<T>(found: &Option<T>) -> Self {
        Self::Found(found.is_some())
    }

    pub(crate) fn values<'e>(errors: impl Iterator<Item = &'e Error>) -> Self {
        let errors: Vec<Error> = errors.cloned().collect();
        if errors.is_empty() { Self::Done } else { Self::Unreadable(errors) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn outcomes_have_distinct_indexes_and_names() {
        let failed = KINDS.map(Outcome::Failed);
        let all = [Outcome::Ok, Outcome::NotFound, Outcome::Dropped].into_iter().chain(failed);
        let (indexes, names): (HashSet<_>, HashSet<_>) =
            all.map(|outcome| (outcome.index(), outcome.as_str())).unzip();
        assert_eq!(indexes, (0..Outcome::COUNT).map(Some).collect());
        assert_eq!(names.len(), Outcome::COUNT);
    }
}
