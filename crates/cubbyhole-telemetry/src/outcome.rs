//! How a call ended, and who should hear of it.

use cubbyhole_core::{Error, ErrorKind};

/// How a call ended: one word in spans, events and labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    NotFound,
    Dropped,
    Failed(ErrorKind),
}

/// The kinds that have a place among the prepared keys.
const KINDS: [ErrorKind; 11] = [
    ErrorKind::InvalidArgument,
    ErrorKind::Conflict,
    ErrorKind::Cancelled,
    ErrorKind::DeadlineExceeded,
    ErrorKind::Unavailable,
    ErrorKind::PermissionDenied,
    ErrorKind::ResourceExhausted,
    ErrorKind::Codec,
    ErrorKind::Corrupt,
    ErrorKind::Unsupported,
    ErrorKind::Internal,
];

pub(crate) const KIND_COUNT: usize = KINDS.len();

/// Where the key of a kind is kept; `None` for a kind that came after this was written.
pub(crate) fn kind_index(kind: ErrorKind) -> Option<usize> {
    KINDS.iter().position(|known| *known == kind)
}

impl Outcome {
    /// How many have a place among the prepared keys.
    pub(crate) const COUNT: usize = 3 + KIND_COUNT;

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFound => "not_found",
            Self::Dropped => "dropped",
            Self::Failed(kind) => kind.as_str(),
        }
    }

    /// Where its key is kept.
    pub(crate) fn index(self) -> Option<usize> {
        match self {
            Self::Ok => Some(0),
            Self::NotFound => Some(1),
            Self::Dropped => Some(2),
            Self::Failed(kind) => kind_index(kind).map(|index| 3 + index),
        }
    }
}

/// Who should hear of an ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    Debug,
    Info,
    Warn,
    Error,
}

impl Severity {
    /// A caller's own matter is no operator's: it would bury what is.
    pub(crate) const fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidArgument
            | ErrorKind::Conflict
            | ErrorKind::Cancelled
            | ErrorKind::Unsupported => Self::Debug,
            ErrorKind::Unavailable
            | ErrorKind::DeadlineExceeded
            | ErrorKind::ResourceExhausted
            | ErrorKind::PermissionDenied
            | ErrorKind::Codec => Self::Warn,
            // Corrupt, Internal, and a kind that came after this was written: too loud rather
            // than too quiet.
            _ => Self::Error,
        }
    }
}

/// What there is to tell of a call that succeeded.
#[derive(Debug)]
pub(crate) enum Answer {
    Done,
    /// Whether there was a live entry.
    Found(bool),
    Removed(u64),
    /// The values that could not be read, in an answer that is sound otherwise; never empty.
    Unreadable(Vec<Error>),
}

impl Answer {
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
    fn every_outcome_has_a_place_and_a_word_of_its_own() {
        let failed = KINDS.map(Outcome::Failed);
        let all = [Outcome::Ok, Outcome::NotFound, Outcome::Dropped].into_iter().chain(failed);
        let (places, words): (HashSet<_>, HashSet<_>) =
            all.map(|outcome| (outcome.index(), outcome.as_str())).unzip();
        assert_eq!(places, (0..Outcome::COUNT).map(Some).collect());
        assert_eq!(words.len(), Outcome::COUNT);
    }
}
