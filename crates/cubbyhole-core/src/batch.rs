//! Several writes in one namespace, all or nothing.

use std::collections::HashSet;

use crate::limits::{self, MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS};
use crate::{Condition, Error, PutOptions, Result, Timestamp};

/// Puts and deletes in one namespace that are applied all or not at all, by
/// [`EntryStore::write`](crate::EntryStore::write).
///
/// At most [`MAX_BATCH_OPERATIONS`] operations and [`MAX_BATCH_BYTES`] of keys and values; a key
/// may be named once. Conditions are judged against the state before the batch.
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
    /// Insert or replace a value.
    Put {
        /// Where.
        key: String,
        /// What.
        value: V,
        /// Expiry and version.
        options: PutOptions,
        /// What must hold.
        condition: Condition,
    },
    /// Remove an entry; one that is absent is no failure unless the condition says so.
    Delete {
        /// Where.
        key: String,
        /// What must hold.
        condition: Condition,
    },
}

impl<V> Operation<V> {
    /// The key that is written.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// What must hold for the batch to be applied.
    pub fn condition(&self) -> Condition {
        match self {
            Self::Put { condition, .. } | Self::Delete { condition, .. } => *condition,
        }
    }
}

impl<V> Batch<V> {
    /// An empty batch; writing it succeeds and does nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { operations: Vec::new() }
    }

    /// Adds a put without options or condition.
    #[must_use]
    pub fn put(self, key: impl Into<String>, value: V) -> Self {
        self.put_with(key, value, PutOptions::default(), Condition::Always)
    }

    /// Adds a put.
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

    /// Adds a delete without condition.
    #[must_use]
    pub fn delete(self, key: impl Into<String>) -> Self {
        self.delete_if(key, Condition::Always)
    }

    /// Adds a delete.
    #[must_use]
    pub fn delete_if(mut self, key: impl Into<String>, condition: Condition) -> Self {
        self.push(Operation::Delete { key: key.into(), condition });
        self
    }

    /// Adds an operation, for building a batch in a loop.
    pub fn push(&mut self, operation: Operation<V>) {
        self.operations.push(operation);
    }

    /// How many operations it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether it holds no operation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The operations in order.
    pub fn operations(&self) -> &[Operation<V>] {
        &self.operations
    }

    /// The operations in order.
    #[must_use]
    pub fn into_operations(self) -> Vec<Operation<V>> {
        self.operations
    }

    /// Checks keys, expiries and the limits of a batch; every store calls it before any work.
    /// `value_bytes` gives the encoded length of a value, where the store knows it.
    ///
    /// # Errors
    /// `InvalidArgument` that names the limit, or the key named twice.
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
    /// When the entry of each operation expires if the batch is written at `now`; `None` for a
    /// delete and for an entry that never expires.
    ///
    /// # Errors
    /// `InvalidArgument` for a TTL of zero, or one that ends past the year 9999. A store reports
    /// it before it judges any condition.
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
