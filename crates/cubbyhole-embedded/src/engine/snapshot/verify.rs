//! Checks that the tables are consistent with each other.

use cubbyhole_core::{Error, Result};
use redb::{ReadOnlyTable, ReadableTable};

use super::Snapshot;
use crate::engine::format::{self, EXPIRY, StoredValue, VALUES};
use crate::error::Failure;

/// The number of inconsistencies of each kind.
#[derive(Debug, Default)]
pub(crate) struct TableMismatches {
    /// Unreadable entries.
    unreadable: u64,
    /// Entries with an expiry that are not in the expiry index, so no sweep finds them.
    unindexed: u64,
    /// Entries whose long values are missing or differ in length.
    without_value: u64,
    /// Keys of the expiry index whose entries do not exist or expire at another instant.
    stale_index: u64,
    /// Long values without an entry, which are never removed.
    stray_values: u64,
}

impl TableMismatches {
    /// Returns `Corrupt` with all counts, unless all are zero.
    pub(crate) fn verdict(&self) -> Result<()> {
        let found = [
            (self.unreadable, "entries are unreadable"),
            (self.unindexed, "entries with an expiry are not in the expiry index"),
            (self.without_value, "entries have lost their values"),
            (self.stale_index, "keys of the expiry index have no matching entry"),
            (self.stray_values, "long values have no entry"),
        ];
        let found: Vec<String> = found
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, problem)| format!("{count} {problem}"))
            .collect();
        if found.is_empty() {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "the tables in the file are inconsistent: {}; export the readable entries into a new \
             store",
            found.join(", ")
        )))
    }
}

impl Snapshot<'_> {
    /// Compares the tables row by row.
    pub(crate) fn verify(&self) -> Result<TableMismatches, Failure> {
        let expiry = self.transaction.open_table(EXPIRY)?;
        let values = self.transaction.open_table(VALUES)?;
        let mut found = TableMismatches::default();
        for item in self.entries.iter()? {
            let (location, record) = item?;
            self.step(0)?;
            let location = location.value();
            let names = format::split_location(location);
            let readable = names.and_then(|(ns, _)| format::namespace(ns));
            let (Ok(_), Ok(record)) = (readable, format::decode(record.value())) else {
                found.unreadable += 1;
                continue;
            };
            if let Some(instant) = record.meta.expires_at {
                let key = format::expiry_key(instant, location);
                found.unindexed += u64::from(expiry.get(key.as_slice())?.is_none());
            }
            if let StoredValue::Separate(length) = record.value {
                self.step(length)?;
                let value = values.get(location)?;
                let fits = value.is_some_and(|value| value.value().len() as u64 == length);
                found.without_value += u64::from(!fits);
            }
        }
        self.verify_expiry(&expiry, &mut found)?;
        for item in values.iter()? {
            let (location, _) = item?;
            self.step(0)?;
            let entry = self.entries.get(location.value())?;
            let is_long = entry.is_some_and(|record| {
                // An unreadable entry may have a long value.
                format::decode(record.value())
                    .map_or(true, |record| matches!(record.value, StoredValue::Separate(_)))
            });
            found.stray_values += u64::from(!is_long);
        }
        Ok(found)
    }

    fn verify_expiry(
        &self,
        expiry: &ReadOnlyTable<&'static [u8], ()>,
        found: &mut TableMismatches,
    ) -> Result<(), Failure> {
        for item in expiry.iter()? {
            let (key, _) = item?;
            self.step(0)?;
            let Ok((instant, location)) = format::split_expiry_key(key.value()) else {
                found.stale_index += 1;
                continue;
            };
            let entry = self.entries.get(location)?;
            let ends_then = entry.is_some_and(|record| {
                format::decode(record.value())
                    .is_ok_and(|record| record.meta.expires_at == Some(instant))
            });
            found.stale_index += u64::from(!ends_then);
        }
        Ok(())
    }
}
