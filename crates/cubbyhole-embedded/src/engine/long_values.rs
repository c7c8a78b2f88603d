//! Values that are too long for their entries' records, in a table of their own.

use cubbyhole_core::Bytes;
use redb::ReadableTable;

use crate::error::Failure;

/// Reads a value that stands apart from its record.
pub(crate) fn read_separate(
    values: &impl ReadableTable<&'static [u8], &'static [u8]>,
    location: &[u8],
    length: u64,
) -> Result<Bytes, Failure> {
    let damaged = || {
        cubbyhole_core::Error::corrupt(
            "a value of the file is damaged; write it again or delete it",
        )
    };
    let value = values.get(location)?.ok_or_else(damaged)?;
    if value.value().len() as u64 != length {
        return Err(damaged().into());
    }
    Ok(Bytes::copy_from_slice(value.value()))
}
