//! Listings, page by page.

use serde::{Deserialize, Serialize};

use crate::limits::{check_after, check_key, check_page_limit, check_prefix};
use crate::{Entry, EntryMeta, Error, Namespace, NamespacePrefix, Result};

/// The number of items in a page unless a caller sets another one.
const DEFAULT_LIMIT: usize = 100;

/// One page of a listing.
///
/// Successive pages are not one snapshot. An item that exists throughout the listing appears exactly
/// once; one that is written or removed during the listing may appear or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T, C = T> {
    /// The items, in the order of the listing.
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
    reversed: bool,
    refresh: bool,
}

impl ScanOptions {
    /// Creates the default options: the first 100 entries with their values.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            prefix: None,
            after: None,
            limit: DEFAULT_LIMIT,
            values: true,
            reversed: false,
            refresh: false,
        }
    }

    /// Restricts the scan to keys that start with `prefix`.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Starts after this key in the direction of the scan. Pass [`Page::next`] of the previous page.
    #[must_use]
    pub fn with_after(mut self, after: impl Into<String>) -> Self {
        self.after = Some(after.into());
        self
    }

    /// Scans in descending byte order of the keys. `after` then excludes that key and all greater
    /// ones.
    ///
    /// ```
    /// use cubbyhole::{EntryStore, ExecutionContext, InMemoryStore, Namespace, ScanOptions, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:counters")?);
    /// let store = InMemoryStore::<u32>::new();
    /// for key in ["a", "b", "c"] {
    ///     store.put(&ctx, &ns, key, 0).await?;
    /// }
    /// let page = store.scan(&ctx, &ns, ScanOptions::new().reversed().with_limit(2)).await?;
    /// let keys: Vec<&str> = page.items.iter().map(|item| item.key.as_str()).collect();
    /// assert_eq!((keys, page.next.as_deref()), (vec!["c", "b"], Some("b")));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn reversed(mut self) -> Self {
        self.reversed = true;
        self
    }

    /// Restarts the idle TTL of each returned entry, as
    /// [`GetOptions::refreshing`](crate::GetOptions::refreshing) does.
    #[must_use]
    pub const fn refreshing(mut self) -> Self {
        self.refresh = true;
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

    /// Returns whether the scan is in descending order.
    #[must_use]
    pub const fn is_reversed(&self) -> bool {
        self.reversed
    }

    /// Returns whether the scan restarts idle TTLs.
    #[must_use]
    pub const fn is_refreshing(&self) -> bool {
        self.refresh
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

/// The place of an entry in a [`scan_recursive`](crate::EntryStore::scan_recursive), which is ordered
/// by the text of the namespace, then by the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The namespace.
    pub namespace: Namespace,
    /// The key.
    pub key: String,
}

/// Options of a [`scan_recursive`](crate::EntryStore::scan_recursive). By default it returns the first
/// 100 entries under the prefix with their values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecursiveScanOptions {
    after: Option<Position>,
    limit: usize,
    values: bool,
}

impl RecursiveScanOptions {
    /// Creates the default options: the first 100 entries with their values.
    #[must_use]
    pub const fn new() -> Self {
        Self { after: None, limit: DEFAULT_LIMIT, values: true }
    }

    /// Starts after this position. Pass [`Page::next`] of the previous page.
    #[must_use]
    pub fn with_after(mut self, after: Position) -> Self {
        self.after = Some(after);
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

    /// Returns the position after which the page starts.
    #[must_use]
    pub const fn after(&self) -> Option<&Position> {
        self.after.as_ref()
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

    /// Checks the position and the limit. Every store calls this before any work.
    ///
    /// # Errors
    /// `InvalidArgument` if the position is not under `prefix`, its key is invalid, or the limit is
    /// out of range.
    pub fn check(&self, prefix: &NamespacePrefix) -> Result<()> {
        if let Some(after) = &self.after {
            check_key(&after.key)?;
            if !prefix.matches(&after.namespace) {
                return Err(Error::invalid_argument(format!(
                    "the position's namespace `{}` is not under the prefix `{prefix}`",
                    after.namespace
                )));
            }
        }
        check_page_limit(self.limit)
    }
}

impl Default for RecursiveScanOptions {
    fn default() -> Self {
        Self::new()
    }
}
