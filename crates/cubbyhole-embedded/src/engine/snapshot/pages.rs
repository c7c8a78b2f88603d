//! Pages of entries: of one namespace, and of all namespaces under a prefix.

use cubbyhole_core::limits::MAX_PAGE_BYTES;
use cubbyhole_core::{
    Bytes, EntryMeta, ErrorKind, Namespace, NamespacePrefix, Page, Position, RecursiveScanOptions,
    Result, ScanItem, ScanOptions, Timestamp, Version,
};

use super::Snapshot;
use crate::engine::format::{self, key_range, location, prefix_ranges};
use crate::error::Failure;

impl Snapshot<'_> {
    pub(crate) fn scan(
        &self,
        ns: &Namespace,
        options: &ScanOptions,
    ) -> Result<Page<ScanItem<Bytes>, String>, Failure> {
        let (mut start, mut end) = key_range(ns, options.prefix().unwrap_or(""));
        match options.after() {
            Some(after) if options.is_reversed() => end = end.min(location(ns, after)),
            Some(after) => start = start.max(past_location(ns, after)),
            None => {}
        }
        let mut page = PageInProgress::new(options.limit(), options.values());
        // The range is empty if `after` is beyond it.
        let mut entries = self.entries.range(start.as_slice()..end.as_slice())?;
        let mut next = || if options.is_reversed() { entries.next_back() } else { entries.next() };
        while let Some(item) = next() {
            let (location, record) = item?;
            if !self.add(&mut page, location.value(), record.value(), |_, item| Ok(item))? {
                break;
            }
        }
        Ok(page.finish(|item| item.key.clone()))
    }

    /// Reads the two ranges of locations under `prefix`, which are in the order of the scan.
    pub(crate) fn scan_recursive(
        &self,
        prefix: &NamespacePrefix,
        options: &RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<Bytes>), Position>, Failure> {
        let after = options.after().map(|after| past_location(&after.namespace, &after.key));
        let mut page = PageInProgress::new(options.limit(), options.values());
        let mut last: Option<Namespace> = None;
        'ranges: for (mut start, end) in prefix_ranges(prefix) {
            if let Some(after) = &after {
                start = start.max(after.clone());
            }
            for item in self.entries.range(start.as_slice()..end.as_slice())? {
                let (location, record) = item?;
                let more = self.add(&mut page, location.value(), record.value(), |ns, item| {
                    // The entries of one namespace are adjacent.
                    let ns = match last.take() {
                        Some(last) if last.as_str() == ns => last,
                        _ => format::namespace(ns)?,
                    };
                    last = Some(ns.clone());
                    Ok((ns, item))
                })?;
                if !more {
                    break 'ranges;
                }
            }
        }
        Ok(page.finish(|(ns, item)| Position { namespace: ns.clone(), key: item.key.clone() }))
    }

    /// Adds a live entry to the page; `item` makes the page's item from the rendered namespace and
    /// the entry. Returns `false` if the page is full without it.
    fn add<T>(
        &self,
        page: &mut PageInProgress<T>,
        location: &[u8],
        record: &[u8],
        item: impl FnOnce(&str, ScanItem<Bytes>) -> Result<T>,
    ) -> Result<bool, Failure> {
        self.step(0)?;
        let decoded = format::decode(record);
        // Damaged entries are listed: they exist until they are deleted.
        if decoded.as_ref().is_ok_and(|record| !self.is_live(&record.meta)) {
            return Ok(true);
        }
        let (ns, key) = format::split_location(location)?;
        let value_bytes = decoded.as_ref().ok().map(|record| record.value.len());
        if !page.has_room(key.len() as u64 + value_bytes.filter(|_| page.values).unwrap_or(0)) {
            return Ok(false);
        }
        let meta = decoded.as_ref().map_or(UNREADABLE, |record| record.meta);
        let value = match page.values.then_some(decoded) {
            None => None,
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(record)) => match self.value(location, &record) {
                Ok(value) => Some(Ok(value)),
                // A damaged value fails its item, not the page.
                Err(Failure::Refused(error)) if error.kind() == ErrorKind::Corrupt => {
                    Some(Err(error))
                }
                Err(failure) => return Err(failure),
            },
        };
        page.items.push(item(ns, ScanItem { key: key.to_owned(), meta, value_bytes, value })?);
        Ok(true)
    }
}

/// The smallest location after the one of this key, because no name contains NUL.
fn past_location(ns: &Namespace, key: &str) -> Vec<u8> {
    let mut past = location(ns, key);
    past.push(0);
    past
}

/// A page while its items are collected.
struct PageInProgress<T> {
    items: Vec<T>,
    bytes: u64,
    limit: usize,
    /// Whether the items have values.
    values: bool,
    has_more: bool,
}

impl<T> PageInProgress<T> {
    fn new(limit: usize, values: bool) -> Self {
        Self { items: Vec::new(), bytes: 0, limit, values, has_more: false }
    }

    /// Reserves `bytes` bytes for one more item. Returns `false` if the page is full.
    fn has_room(&mut self, bytes: u64) -> bool {
        self.has_more = self.items.len() == self.limit
            || (!self.items.is_empty() && self.bytes + bytes > MAX_PAGE_BYTES as u64);
        self.bytes += bytes;
        !self.has_more
    }

    fn finish<C>(self, cursor: impl FnOnce(&T) -> C) -> Page<T, C> {
        let next = self.items.last().filter(|_| self.has_more).map(cursor);
        Page { items: self.items, next }
    }
}

/// The metadata that a scan returns for an unreadable entry.
const UNREADABLE: EntryMeta = EntryMeta {
    version: Version::from_bytes([0; 16]),
    created_at: Timestamp::EPOCH,
    updated_at: Timestamp::EPOCH,
    expires_at: None,
    idle_ttl: None,
};
