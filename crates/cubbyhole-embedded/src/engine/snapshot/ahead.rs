//! Counts the entries that the store's time and the machine's clock judge differently.

use cubbyhole_core::{ClockAhead, Timestamp};
use redb::ReadableTable;

use super::Snapshot;
use crate::engine::format;
use crate::error::Failure;

impl Snapshot<'_> {
    /// Judges each entry by the store's time and by `wall`, an earlier instant. Skips unreadable
    /// entries.
    pub(crate) fn ahead_of(&self, wall: Timestamp) -> Result<ClockAhead, Failure> {
        let mut ahead = ClockAhead {
            store_time: self.now,
            clock: wall,
            revived: 0,
            revived_namespaces: 0,
            written_later: 0,
        };
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
                ahead.revived += 1;
                // The entries of one namespace are adjacent.
                if ns != last {
                    ahead.revived_namespaces += 1;
                    ns.clone_into(&mut last);
                }
            }
        }
        Ok(ahead)
    }
}
