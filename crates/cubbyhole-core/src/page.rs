//! Listings, page by page.

use serde::{Deserialize, Serialize};

use crate::limits::{check_after, check_page_limit, check_prefix};
use crate::{Entry, EntryMeta, Result};

/// One page of a listing.
///
/// Successive pages are not one snapshot. An item that exists throughout the listing appears exactly
/// once; one that is written or removed during the listing may appear or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T, C = T> {
    /// The items, in ascending order.
    pub items: Vec<T>,
    /// The cursor of the next page: pass it as `after`. `None` on the last page. A page with fewer
    /// items than the limit, even an empty one, can have a next page.
    pub next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// Applies `f` to each item and keeps the cursor.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U, C> {
        Page { items: self.items.into_iter().map(f).collect(), next: self.next }
    }
}

impl<T: Clone> Page<T> {
    /// Returns the first `limit` items as a page whose cursor is its last item. A store reads up to
    /// `limit + 1` items: one more than the page shows that there is a next page.
    ///
    /// ```
    /// use cubbyhole::Page;
    ///
    /// let page = Page::from_items(vec!["a", "b", "c"], 2);
    /// assert_eq!((page.items, page.next), (vec!["a", "b"], Some("b")));
    /// assert_eq!(Page::from_items(vec!["c"], 2).next, None);
    /// ```
    #[must_use]
    pub fn from_items(mut items: Vec<T>, limit: usize) -> Self {
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).cloned();
        Self { items, next }
    }
}

/// One item of a [`scan`](crate::EntryStore::scan).
#[derive(Debug, Clone)]
pub struct ScanItem<V> {
    /// The key.
    pub key: String,
    /// The metadata of the entry.
    pub meta: EntryMeta,
    /// The length of the encoded value in bytes, if the store knows it.
    pub value_bytes: Option<u64>,
    /// The value, or the error of reading it. `None` if the scan returns keys only.
    pub value: Option<Result<V>>,
}

impl<V> ScanItem<V> {
    /// Returns the entry, or `None` if the scan returns keys only.
    #[must_use]
    pub fn into_entry(self) -> Option<Result<Entry<V>>> {
        let meta = self.meta;
        self.value.map(|value| value.map(|value| Entry { value, meta }))
    }
}

/// Options of a [`scan`](crate::EntryStore::scan). By default it returns the first 100 entries of the
/// namespace with their values.
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
    /// Creates the default options: the first 100 entries with their values.
    #[must_use]
    pub const fn new() -> Self {
        Self { prefix: None, after: None, limit: 100, values: true }
    }

    /// Restricts the scan to keys that start with `prefix`.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Starts after this key. Pass [`Page::next`] of the previous page.
    #[must_use]
    pub fn with_after(mut self, after: impl Into<String>) -> Self {
        self.after = Some(after.into());
        self
    }

    /// Sets the maximum number of items, 1 to [`MAX_PAGE_ITEMS`](crate::limits::MAX_PAGE_ITEMS).
    #[must_use]
    pub const fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Leaves the values out.
    #[must_use]
    pub const fn keys_only(mut self) -> Self {
        self.values = false;
        self
    }

    /// Returns the key prefix.
    #[must_use]
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// Returns the key after which the page starts.
    #[must_use]
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Returns the maximum number of items.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Returns whether the scan returns values.
    #[must_use]
    pub const fn values(&self) -> bool {
        self.values
    }

    /// Checks the prefix, `after` and the limit. Every store calls this before any work.
    ///
    /// # Errors
    /// `InvalidArgument` that names the invalid option.
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
