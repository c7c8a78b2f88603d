//! Long values, which are stored outside the records of their entries.

use cubbyhole_core::Bytes;
use redb::ReadableTable;

use crate::error::Failure;

/// Reads a value from the `values` table and checks its length.
pub(crate) fn read_separate(
    values: &impl ReadableTable<&'static [u8], &'static [u8]>,
    location: &[u8],
    length: u64,
) -> Result<Bytes, Failure> {
    let damaged = || {
        cubbyhole_core::Error::corrupt(
            "a value in the file is damaged; write it again or delete it",
        )
    };
    let value = values.get(location)?.ok_or_else(damaged)?;
    if value.value().len() as u64 != length {
        return Err(damaged().into());
    }
    Ok(Bytes::copy_from_slice(value.value()))
}
