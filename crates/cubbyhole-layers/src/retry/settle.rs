//! How the outcome of a write is settled: which entries to read, and what their versions prove.

use cubbyhole_core::{Batch, Condition, Error, Operation, PutOptions, Version, Written};

/// The evidence of the current versions about a write of unknown outcome.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding<T> {
    /// The write was applied, and this is its answer.
    Applied(T),
    /// The write has not been applied. Its condition prevents that it is applied twice, so it can be
    /// repeated.
    NotApplied,
    /// The versions prove nothing.
    Unclear,
}

/// A write that can be recognised by the versions of its entries.
pub(super) trait Recognise<T> {
    /// Returns the keys whose versions prove something.
    fn keys(&self) -> Vec<&str>;

    /// Evaluates the current versions of the [keys](Self::keys), in the same order.
    fn find(&self, current: &[Option<Version>]) -> Finding<T>;

    /// Evaluates the conflict of a repeated write. Returns `None` if the entries must be read.
    fn find_in_conflict(&self, conflict: &Error) -> Option<Finding<T>>;
}

/// A put. `T` is the answer of the method that was called.
pub(super) struct Put<'a, T> {
    pub(super) key: &'a str,
    pub(super) version: Version,
    pub(super) condition: Condition,
    pub(super) answer: T,
}

impl<T: Copy> Recognise<T> for Put<'_, T> {
    fn keys(&self) -> Vec<&str> {
        match is_recognisable(self.version, self.condition) {
            true => vec![self.key],
            false => Vec::new(),
        }
    }

    fn find(&self, current: &[Option<Version>]) -> Finding<T> {
        match current {
            [Some(version)] if *version == self.version => Finding::Applied(self.answer),
            [Some(version)] if self.condition == Condition::IfVersion(*version) => {
                Finding::NotApplied
            }
            _ => Finding::Unclear,
        }
    }

    fn find_in_conflict(&self, conflict: &Error) -> Option<Finding<T>> {
        Some(self.find(&[conflict.current_version()]))
    }
}

/// A delete of one entry.
pub(super) struct Delete<'a> {
    pub(super) key: &'a str,
    pub(super) condition: Condition,
}

impl Recognise<bool> for Delete<'_> {
    fn keys(&self) -> Vec<&str> {
        match self.condition {
            Condition::IfVersion(_) => vec![self.key],
            _ => Vec::new(),
        }
    }

    fn find(&self, current: &[Option<Version>]) -> Finding<bool> {
        match current {
            [Some(version)] if self.condition == Condition::IfVersion(*version) => {
                Finding::NotApplied
            }
            _ => Finding::Unclear,
        }
    }

    fn find_in_conflict(&self, _: &Error) -> Option<Finding<bool>> {
        // An earlier attempt, or another caller, may have deleted the entry.
        Some(Finding::Unclear)
    }
}

/// A batch, without its values.
pub(super) struct Writes(Vec<Write>);

struct Write {
    key: String,
    /// The drawn version of a put. `None` for a delete.
    version: Option<Version>,
    condition: Condition,
}

impl Writes {
    /// Draws the versions of a batch. Returns the batch with them, and the writes
    /// that recognise it.
    pub(super) fn draw<V>(batch: Batch<V>) -> (Batch<V>, Self) {
        let mut writes = Vec::with_capacity(batch.len());
        let draw = |operation| match operation {
            Operation::Put { key, value, options, condition } => {
                let (options, version) = with_drawn_version(options);
                writes.push(Write { key: key.clone(), version: Some(version), condition });
                Operation::Put { key, value, options, condition }
            }
            Operation::Delete { key, condition } => {
                writes.push(Write { key: key.clone(), version: None, condition });
                Operation::Delete { key, condition }
            }
        };
        let batch = batch.into_operations().into_iter().map(draw).collect();
        (batch, Self(writes))
    }

    fn recognisable(&self) -> impl Iterator<Item = &Write> {
        self.0.iter().filter(|write| write.is_recognisable())
    }

    /// Returns the answers of an applied batch, or `None` if one of them cannot be known.
    fn answers(&self) -> Option<Vec<Written>> {
        self.0.iter().map(Write::answer).collect()
    }
}

impl Recognise<Vec<Written>> for Writes {
    fn keys(&self) -> Vec<&str> {
        self.recognisable().map(|write| write.key.as_str()).collect()
    }

    fn find(&self, current: &[Option<Version>]) -> Finding<Vec<Written>> {
        let found = || self.recognisable().zip(current);
        if found().any(|(write, current)| current.is_some() && *current == write.version) {
            return self.answers().map_or(Finding::Unclear, Finding::Applied);
        }
        let is_unchanged = |(write, current): (&Write, &Option<Version>)| {
            current.is_some_and(|version| write.condition == Condition::IfVersion(version))
        };
        if found().any(is_unchanged) { Finding::NotApplied } else { Finding::Unclear }
    }

    fn find_in_conflict(&self, conflict: &Error) -> Option<Finding<Vec<Written>>> {
        let write = self.0.get(conflict.batch_index()?)?;
        let is_applied = write.version.is_some() && conflict.current_version() == write.version;
        is_applied.then(|| self.answers().map_or(Finding::Unclear, Finding::Applied))
    }
}

impl Write {
    fn is_recognisable(&self) -> bool {
        match self.version {
            Some(version) => is_recognisable(version, self.condition),
            None => matches!(self.condition, Condition::IfVersion(_)),
        }
    }

    /// Returns the answer of the operation if it was applied and the answer is certain.
    fn answer(&self) -> Option<Written> {
        match (self.version, self.condition) {
            (Some(version), _) => Some(Written::Put(version)),
            (None, Condition::IfVersion(_) | Condition::IfPresent) => Some(Written::Deleted(true)),
            (None, Condition::IfAbsent) => Some(Written::Deleted(false)),
            (None, Condition::Always) => None,
        }
    }
}

/// Returns the options with a version that the layer knows, and that version.
pub(super) fn with_drawn_version(options: PutOptions) -> (PutOptions, Version) {
    let version = options.version_or_draw();
    (options.with_version(version), version)
}

/// A put that keeps the version of the entry leaves no trace in it, as a rotation of keys does.
fn is_recognisable(version: Version, condition: Condition) -> bool {
    condition != Condition::IfVersion(version)
}
