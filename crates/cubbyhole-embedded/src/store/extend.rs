//! Reads that extend the expiry of the entries that they return.
//!
//! The read decides from its snapshot which entries are due, so a read that extends nothing does not
//! wait for the writer. The writer then decides again about the due ones (`Tables::extend`).

use cubbyhole_core::Result;
use cubbyhole_core::{Bytes, Entry, EntryMeta, ExecutionContext, Expiry, GetOptions, Namespace};

use super::EmbeddedStore;
use crate::engine::ReadEntry;
use crate::engine::format::location;

/// The entries of a read whose extension is due.
pub(super) struct DueEntries {
    /// Their positions in the read, in ascending order.
    positions: Vec<usize>,
    entries: Vec<ReadEntry>,
    options: GetOptions,
}

impl EmbeddedStore {
    /// Checks the options before the read. A read that may extend needs a writable store, even if
    /// nothing is due.
    pub(super) fn check_extension(&self, options: GetOptions) -> Result<()> {
        if !options.may_write() {
            return Ok(());
        }
        self.writer.check_writable()?;
        // An invalid TTL is refused even if there is no entry.
        let ttl = options.extended_ttl();
        ttl.map_or(Ok(()), |ttl| Expiry::After(ttl).resolve(self.reader.now()).map(drop))
    }

    /// Selects the entries of a read that are due. `read` is the key and the metadata of each
    /// result, without metadata if there is no entry.
    pub(super) fn due<'r>(
        &self,
        ns: &Namespace,
        read: impl Iterator<Item = (&'r str, Option<EntryMeta>)>,
        options: GetOptions,
    ) -> Result<DueEntries> {
        let mut due = DueEntries { positions: Vec::new(), entries: Vec::new(), options };
        if !options.may_write() {
            return Ok(due);
        }
        let now = self.reader.now();
        for (position, (key, meta)) in read.enumerate() {
            let Some(meta) = meta else { continue };
            if options.extend(now, &meta)?.is_some() {
                due.positions.push(position);
                due.entries.push(ReadEntry { location: location(ns, key), meta });
            }
        }
        Ok(due)
    }

    /// Extends the entries. Returns their positions in the read in ascending order, with the
    /// metadata that the read returns, or `None` if the entry has expired since it was read.
    pub(super) async fn extend(
        &self,
        ctx: &ExecutionContext,
        due: DueEntries,
    ) -> Result<Vec<(usize, Option<EntryMeta>)>> {
        let DueEntries { positions, entries, options } = due;
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let extended =
            self.writer.submit(ctx, 0, move |tables| tables.extend(entries, options)).await?;
        Ok(positions.into_iter().zip(extended).collect())
    }
}

/// Replaces the metadata of an entry. Returns `None` if either is missing.
pub(super) fn with_meta(
    entry: Option<Entry<Bytes>>,
    meta: Option<EntryMeta>,
) -> Option<Entry<Bytes>> {
    Some(Entry { value: entry?.value, meta: meta? })
}
