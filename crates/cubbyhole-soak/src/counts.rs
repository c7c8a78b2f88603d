//! Counts of calls, errors and wrong replies.

use std::collections::BTreeMap;
use std::time::Duration;

use cubbyhole::{Error, ErrorKind};

use crate::{Histogram, WrongReply};

/// The number of error messages that are stored. All errors are counted.
const MAX_MESSAGES: usize = 20;

/// The kind of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the variants are named after methods or actions")]
#[non_exhaustive]
pub enum CallKind {
    Put,
    PutWithTtl,
    PutIfAbsent,
    PutIfVersion,
    WriteOwn,
    ReadOwn,
    DeleteOwn,
    Batch,
    Get,
    GetEntry,
    GetMany,
    List,
    Scan,
    ListNamespaces,
    Touch,
    Take,
    Delete,
    Update,
    Erase,
    Usage,
    TooShort,
    Cancelled,
    Dropped,
}

impl CallKind {
    /// All kinds, with their share in 1,000 calls.
    pub const SHARES: [(Self, u32); 23] = [
        (Self::Put, 130),
        (Self::PutWithTtl, 140),
        (Self::PutIfAbsent, 40),
        (Self::PutIfVersion, 30),
        (Self::WriteOwn, 60),
        (Self::ReadOwn, 60),
        (Self::DeleteOwn, 10),
        (Self::Batch, 30),
        (Self::Get, 250),
        (Self::GetEntry, 40),
        (Self::GetMany, 25),
        (Self::List, 10),
        (Self::Scan, 20),
        (Self::ListNamespaces, 10),
        (Self::Touch, 25),
        (Self::Take, 30),
        (Self::Delete, 30),
        (Self::Update, 20),
        (Self::Erase, 2),
        (Self::Usage, 3),
        (Self::TooShort, 15),
        (Self::Cancelled, 10),
        (Self::Dropped, 10),
    ];

    /// Draws a random kind according to the shares.
    pub(crate) fn draw(random: &mut fastrand::Rng) -> Self {
        let total: u32 = Self::SHARES.iter().map(|(_, share)| share).sum();
        let mut drawn = random.u32(..total);
        for (kind, share) in Self::SHARES {
            match drawn.checked_sub(share) {
                Some(rest) => drawn = rest,
                None => return kind,
            }
        }
        Self::Get
    }
}

/// The counts of all callers of a store.
#[derive(Debug, Default)]
pub struct Counts {
    /// The number of calls of each kind.
    pub calls: BTreeMap<CallKind, u64>,
    /// Expected conflicts: another caller had written the entry.
    pub conflicts: u64,
    /// Calls that were interrupted on purpose, by a short deadline or a cancellation.
    pub cut_off: u64,
    /// The number of all other errors, by kind.
    pub unexpected: BTreeMap<&'static str, u64>,
    /// The number of wrong replies.
    pub wrong: u64,
    /// The messages of the first wrong replies and unexpected errors.
    pub messages: Vec<String>,
    interval: Histogram,
}

impl Counts {
    /// Counts a call with its duration.
    pub(crate) fn call(&mut self, kind: CallKind, duration: Duration) {
        *self.calls.entry(kind).or_default() += 1;
        self.interval.record(duration);
    }

    /// Counts an error as expected if calls of this kind can cause it, and as unexpected otherwise.
    pub(crate) fn error(&mut self, kind: CallKind, error: &Error) {
        let is_interrupted =
            matches!(kind, CallKind::TooShort | CallKind::Cancelled | CallKind::Dropped);
        let has_condition = matches!(
            kind,
            CallKind::PutIfAbsent | CallKind::PutIfVersion | CallKind::Batch | CallKind::WriteOwn
        );
        match error.kind() {
            ErrorKind::Conflict if has_condition => self.conflicts += 1,
            ErrorKind::DeadlineExceeded | ErrorKind::Cancelled if is_interrupted => {
                self.cut_off += 1;
            }
            other => {
                *self.unexpected.entry(other.as_str()).or_default() += 1;
                self.add_message(format!("unexpected error of {kind:?}: {}", with_causes(error)));
            }
        }
    }

    /// Counts an error outside of the load, such as that of a sweep.
    pub(crate) fn background_error(&mut self, what: &str, error: &Error) {
        *self.unexpected.entry(error.kind().as_str()).or_default() += 1;
        self.add_message(format!("unexpected error of {what}: {}", with_causes(error)));
    }

    /// Counts a wrong reply.
    pub(crate) fn wrong(&mut self, kind: CallKind, wrong: &WrongReply) {
        self.wrong += 1;
        self.add_message(format!("wrong reply to {kind:?}: {wrong}"));
    }

    fn add_message(&mut self, text: String) {
        if self.messages.len() < MAX_MESSAGES {
            self.messages.push(text);
        }
    }

    /// The number of all calls.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.calls.values().sum()
    }

    /// The number of all unexpected errors.
    #[must_use]
    pub fn unexpected_total(&self) -> u64 {
        self.unexpected.values().sum()
    }

    /// Returns the durations since the last call of this method.
    pub(crate) fn take_interval(&mut self) -> Histogram {
        std::mem::take(&mut self.interval)
    }
}

/// The message of an error with those of its sources.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
