//! What a store's time that is ahead of the machine's clock means to the entries.

use cubbyhole_core::Timestamp;
use redb::ReadableTable;

use super::Snapshot;
use crate::error::Failure;
use crate::format;

/// Entries that the store's time and the machine's clock judge differently.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// Entries that have expired by the store's time alone, and are not swept.
    pub(crate) expired: u64,
    /// The namespaces that hold these.
    pub(crate) namespaces: u64,
    /// Entries that were written at a later instant than the clock shows.
    pub(crate) written_later: u64,
}

impl Snapshot<'_> {
    /// Compares the store's time with `wall`, an earlier instant, entry by entry. Entries that cannot
    /// be read are left out.
    pub(crate) fn ahead_of(&self, wall: Timestamp) -> Result<Ahead, Failure> {
        let mut ahead = Ahead::default();
        let mut last = String::new();
        for item in self.entries.iter()? {
            let (location, record) = item?;
            self.step(0)?;
            let names = format::split_location(location.value());
            let (Ok((ns, _)), Ok(record)) = (names, format::decode(record.value())) else {
                continue;
            };
            ahead.written_later += u64::from(record.meta.updated_at > wall);
            if record.meta.is_live(wall) && !record.meta.is_live(self.now) {
                ahead.expired += 1;
                // Entries of one namespace are next to each other.
                if ns != last {
                    ahead.namespaces += 1;
                    ns.clone_into(&mut last);
                }
            }
        }
        Ok(ahead)
    }
}
