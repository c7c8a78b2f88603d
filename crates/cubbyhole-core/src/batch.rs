//! [`Batch`]: several writes to one namespace, applied atomically.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::limits::{self, MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS};
use crate::{Condition, Error, PutOptions, Result, Timestamp, Version};

/// Puts and deletes in one namespace that [`EntryStore::write`](crate::EntryStore::write) applies
/// atomically.
///
/// A batch has at most [`MAX_BATCH_OPERATIONS`] operations and [`MAX_BATCH_BYTES`] of keys and values.
/// Each key may occur once. Conditions are evaluated against the state before the batch.
///
/// ```
/// use cubbyhole::{Batch, Condition, PutOptions};
///
/// let batch = Batch::new()
///     .put("turn-1", "hello")
///     .put_with("turn-2", "hi there", PutOptions::new(), Condition::IfAbsent)
///     .delete("draft");
/// assert_eq!(batch.len(), 3);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<V> {
    operations: Vec<Operation<V>>,
}

/// One write of a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation<V> {
    /// Inserts or replaces a value.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: V,
        /// Expiry and version.
        options: PutOptions,
        /// The condition of the put.
        condition: Condition,
    },
    /// Removes an entry. An absent entry is an error only if the condition requires one.
    Delete {
        /// The key.
        key: String,
        /// The condition of the delete.
        condition: Condition,
    },
}

/// The result of one operation of a [`Batch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Written {
    /// The entry was put, and has this version.
    Put(Version),
    /// The entry is absent. True if there was a live entry before the batch.
    Deleted(bool),
}

impl Written {
    /// Returns the version of a put.
    #[must_use]
    pub const fn version(self) -> Option<Version> {
        match self {
            Self::Put(version) => Some(version),
            Self::Deleted(_) => None,
        }
    }
}

impl<V> Operation<V> {
    /// Returns the key.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// Returns the condition.
    pub fn condition(&self) -> Condition {
        match self {
            Self::Put { condition, .. } | Self::Delete { condition, .. } => *condition,
        }
    }
}

impl<V> Batch<V> {
    /// Creates an empty batch. Writing an empty batch succeeds and does nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { operations: Vec::new() }
    }

    /// Adds an unconditional put with default options.
    #[must_use]
    pub fn put(self, key: impl Into<String>, value: V) -> Self {
        self.put_with(key, value, PutOptions::default(), Condition::Always)
    }

    /// Adds a put with options and a condition.
    #[must_use]
    pub fn put_with(
        mut self,
        key: impl Into<String>,
        value: V,
        options: PutOptions,
        condition: Condition,
    ) -> Self {
        self.push(Operation::Put { key: key.into(), value, options, condition });
        self
    }

    /// Adds an unconditional delete.
    #[must_use]
    pub fn delete(self, key: impl Into<String>) -> Self {
        self.delete_if(key, Condition::Always)
    }

    /// Adds a delete with a condition.
    #[must_use]
    pub fn delete_if(mut self, key: impl Into<String>, condition: Condition) -> Self {
        self.push(Operation::Delete { key: key.into(), condition });
        self
    }

    /// Adds an operation in place, for a batch that is built in a loop.
    pub fn push(&mut self, operation: Operation<V>) {
        self.operations.push(operation);
    }

    /// Returns the number of operations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Returns true if the batch has no operations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Returns the operations in order.
    pub fn operations(&self) -> &[Operation<V>] {
        &self.operations
    }

    /// Returns the operations in order, by value.
    #[must_use]
    pub fn into_operations(self) -> Vec<Operation<V>> {
        self.operations
    }

    /// Checks keys, expiries and limits. Every store calls this before any work.
    ///
    /// `value_bytes` returns the encoded length of a value, if the store knows it.
    ///
    /// # Errors
    /// `InvalidArgument` that names the exceeded limit or the operation that repeats a key.
    pub fn check(
        &self,
        max_value_bytes: usize,
        value_bytes: impl Fn(&V) -> Option<usize>,
    ) -> Result<()> {
        if self.len() > MAX_BATCH_OPERATIONS {
            return Err(Error::invalid_argument(format!(
                "a batch of {} operations is past the limit of {MAX_BATCH_OPERATIONS} \
                 (MAX_BATCH_OPERATIONS)",
                self.len()
            )));
        }
        let mut bytes = 0_usize;
        let mut keys = HashSet::with_capacity(self.len());
        for (index, operation) in self.operations.iter().enumerate() {
            limits::check_key(operation.key())?;
            if !keys.insert(operation.key()) {
                return Err(Error::invalid_argument(format!(
                    "operation {index} of the batch names a key for the second time"
                )));
            }
            bytes = bytes.saturating_add(operation.key().len());
            if let Operation::Put { value, options, .. } = operation {
                options.expiry().check()?;
                if let Some(length) = value_bytes(value) {
                    limits::check_value_bytes(length, max_value_bytes)?;
                    bytes = bytes.saturating_add(length);
                }
            }
        }
        if bytes > MAX_BATCH_BYTES {
            return Err(Error::invalid_argument(format!(
                "a batch of {bytes} bytes is past the limit of {MAX_BATCH_BYTES} (MAX_BATCH_BYTES)"
            )));
        }
        Ok(())
    }
}

impl<V> Batch<V> {
    /// Returns the instant of expiry of each operation if the batch is written at `now`. It is `None`
    /// for a delete and for an entry that does not expire.
    ///
    /// # Errors
    /// `InvalidArgument` for a TTL of zero, or one that ends after the year 9999. A store reports
    /// this error before it evaluates any condition.
    pub fn expiries(&self, now: Timestamp) -> Result<Vec<Option<Timestamp>>> {
        let expiry = |operation: &Operation<V>| match operation {
            Operation::Put { options, .. } => options.expiry().resolve(now),
            Operation::Delete { .. } => Ok(None),
        };
        self.operations.iter().map(expiry).collect()
    }
}

impl<V> Default for Batch<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> FromIterator<Operation<V>> for Batch<V> {
    fn from_iter<I: IntoIterator<Item = Operation<V>>>(operations: I) -> Self {
        Self { operations: operations.into_iter().collect() }
    }
}
