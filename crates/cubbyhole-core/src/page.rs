//! Listings, page by page.

use serde::{Deserialize, Serialize};

use crate::limits::{check_after, check_page_limit, check_prefix};
use crate::{Entry, EntryMeta, Result};

/// One page of a listing.
///
/// Pages are not a snapshot: what exists throughout the listing appears exactly once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T, C = T> {
    /// What the page holds, in order.
    pub items: Vec<T>,
    /// Where the next page starts: pass it as `after`. `None` at the end. A page may be short, or
    /// even empty, and have a next one.
    pub next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// The same page with other items.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U, C> {
        Page { items: self.items.into_iter().map(f).collect(), next: self.next }
    }
}

/// One entry of a [`scan`](crate::EntryStore::scan).
#[derive(Debug, Clone)]
pub struct ScanItem<V> {
    /// The key.
    pub key: String,
    /// Version and instants.
    pub meta: EntryMeta,
    /// Length of the encoded value, where the store knows it.
    pub value_bytes: Option<u64>,
    /// The value, or why it cannot be read; `None` if the scan was for keys only.
    pub value: Option<Result<V>>,
}

impl<V> ScanItem<V> {
    /// The whole entry; `None` if the scan was for keys only.
    #[must_use]
    pub fn into_entry(self) -> Option<Result<Entry<V>>> {
        let meta = self.meta;
        self.value.map(|value| value.map(|value| Entry { value, meta }))
    }
}

/// Which entries a [`scan`](crate::EntryStore::scan) returns: by default the first 100 of the
/// namespace, with their values.
///
/// ```
/// use cubbyhole::ScanOptions;
///
/// let options = ScanOptions::new().with_prefix("turn-").with_limit(20).keys_only();
/// assert_eq!(options.limit(), 20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanOptions {
    prefix: Option<String>,
    after: Option<String>,
    limit: usize,
    values: bool,
}

impl ScanOptions {
    /// The first 100 entries, with their values.
    #[must_use]
    pub const fn new() -> Self {
        Self { prefix: None, after: None, limit: 100, values: true }
    }

    /// Only keys that start with this text.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Only keys past this one: [`Page::next`] of the page before.
    #[must_use]
    pub fn with_after(mut self, after: impl Into<String>) -> Self {
        self.after = Some(after.into());
        self
    }

    /// At most that many items, 1 to [`MAX_PAGE_ITEMS`](crate::limits::MAX_PAGE_ITEMS).
    #[must_use]
    pub const fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Without the values.
    #[must_use]
    pub const fn keys_only(mut self) -> Self {
        self.values = false;
        self
    }

    /// The text that keys must start with.
    #[must_use]
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// The key past which the page starts.
    #[must_use]
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The most items of the page.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Whether values are read.
    #[must_use]
    pub const fn values(&self) -> bool {
        self.values
    }

    /// Checks prefix, `after` and limit; every store calls it before any work.
    ///
    /// # Errors
    /// `InvalidArgument` that names what is wrong.
    pub fn check(&self) -> Result<()> {
        check_prefix(self.prefix())?;
        check_after(self.after())?;
        check_page_limit(self.limit)
    }
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self::new()
    }
}
