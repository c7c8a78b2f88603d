//! What the callers of a store counted.

use std::collections::BTreeMap;
use std::time::Duration;

use cubbyhole::{Error, ErrorKind};

use crate::{Histogram, Wrong};

/// How many unexpected errors and wrong answers are kept word for word; all are counted.
const KEPT: usize = 20;

/// The kinds of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is named as the method, or says what is done")]
#[non_exhaustive]
pub enum Kind {
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

impl Kind {
    /// Each, and how often of a thousand calls.
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

    /// One by chance, as often as its share says.
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

/// What the callers of a store counted.
#[derive(Debug, Default)]
pub struct Tally {
    /// Calls of each kind.
    pub calls: BTreeMap<Kind, u64>,
    /// Calls that found that somebody else had written: they were to.
    pub conflicts: u64,
    /// Calls that ended because their time was too short, or they were cancelled: they were to.
    pub cut_off: u64,
    /// All other errors, by kind.
    pub unexpected: BTreeMap<&'static str, u64>,
    /// Wrong answers.
    pub wrong: u64,
    /// The first of them, and of the unexpected errors, word for word.
    pub kept: Vec<String>,
    interval: Histogram,
}

impl Tally {
    /// Counts a call, and how long it took.
    pub(crate) fn call(&mut self, kind: Kind, took: Duration) {
        *self.calls.entry(kind).or_default() += 1;
        self.interval.record(took);
    }

    /// Counts an error of a call of `kind`, which was unexpected unless such calls are made for it.
    pub(crate) fn error(&mut self, kind: Kind, error: &Error) {
        let meant_to_end = matches!(kind, Kind::TooShort | Kind::Cancelled | Kind::Dropped);
        let has_condition =
            matches!(kind, Kind::PutIfAbsent | Kind::PutIfVersion | Kind::Batch | Kind::WriteOwn);
        match error.kind() {
            ErrorKind::Conflict if has_condition => self.conflicts += 1,
            ErrorKind::DeadlineExceeded | ErrorKind::Cancelled if meant_to_end => self.cut_off += 1,
            other => {
                *self.unexpected.entry(other.as_str()).or_default() += 1;
                self.keep(format!("unexpected error of {kind:?}: {}", with_causes(error)));
            }
        }
    }

    /// Counts an error of something that is no call of the load, such as a sweep.
    pub(crate) fn side_error(&mut self, what: &str, error: &Error) {
        *self.unexpected.entry(error.kind().as_str()).or_default() += 1;
        self.keep(format!("unexpected error of {what}: {}", with_causes(error)));
    }

    /// Counts a wrong answer.
    pub(crate) fn wrong(&mut self, kind: Kind, wrong: &Wrong) {
        self.wrong += 1;
        self.keep(format!("wrong answer to {kind:?}: {wrong}"));
    }

    fn keep(&mut self, text: String) {
        if self.kept.len() < KEPT {
            self.kept.push(text);
        }
    }

    /// All calls.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.calls.values().sum()
    }

    /// All unexpected errors.
    #[must_use]
    pub fn unexpected_total(&self) -> u64 {
        self.unexpected.values().sum()
    }

    /// The latencies since this was last asked for.
    pub(crate) fn take_interval(&mut self) -> Histogram {
        std::mem::take(&mut self.interval)
    }
}

/// The error and what it came from: the server's own words are at the end.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
