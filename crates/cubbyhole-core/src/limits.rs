//! The limits, the same on every backend, and the checks that hold them.
//!
//! Past a limit a call answers [`InvalidArgument`](crate::ErrorKind::InvalidArgument), names the
//! limit and writes nothing. Lengths are of UTF-8 bytes.

use crate::{Error, Result};

/// The longest rendered namespace: 1024 bytes, escapes included.
pub const MAX_NAMESPACE_BYTES: usize = 1024;
/// The longest key, key prefix and `after`: 1024 bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// The largest value unless a backend is configured otherwise: 16 MiB.
pub const DEFAULT_MAX_VALUE_BYTES: usize = 16 * 1024 * 1024;
/// The most items that a page can hold, and the most entries that one step of an erasure removes.
pub const MAX_PAGE_ITEMS: usize = 1000;
/// The most operations that a batch can hold.
pub const MAX_BATCH_OPERATIONS: usize = 1000;
/// The most keys that `get_many` takes.
pub const MAX_GET_MANY_KEYS: usize = 1000;
/// The most bytes of keys and values that a batch can hold: 64 MiB.
pub const MAX_BATCH_BYTES: usize = 64 * 1024 * 1024;
/// A page ends early rather than hold more bytes of keys and values than this: 64 MiB. It always
/// holds at least one item.
pub const MAX_PAGE_BYTES: usize = 64 * 1024 * 1024;

/// Checks a key: no NUL, at most [`MAX_KEY_BYTES`].
///
/// # Errors
/// `InvalidArgument` that names what is wrong.
pub fn check_key(key: &str) -> Result<()> {
    check_text(key, "key", "MAX_KEY_BYTES", MAX_KEY_BYTES)
}

/// Checks a key prefix as [`check_key`] checks a key.
///
/// # Errors
/// `InvalidArgument` that names what is wrong.
pub fn check_prefix(prefix: Option<&str>) -> Result<()> {
    prefix.map_or(Ok(()), |text| check_text(text, "prefix", "MAX_KEY_BYTES", MAX_KEY_BYTES))
}

/// Checks where a page starts as [`check_key`] checks a key.
///
/// # Errors
/// `InvalidArgument` that names what is wrong.
pub fn check_after(after: Option<&str>) -> Result<()> {
    after.map_or(Ok(()), |text| check_text(text, "after", "MAX_KEY_BYTES", MAX_KEY_BYTES))
}

/// Checks the length of an encoded value against the store's own limit.
///
/// # Errors
/// `InvalidArgument` that names the limit.
pub fn check_value_bytes(length: usize, limit: usize) -> Result<()> {
    if length > limit {
        return Err(Error::invalid_argument(format!(
            "the value has {length} bytes, more than the limit of {limit} for this store \
             (max_value_bytes)"
        )));
    }
    Ok(())
}

/// Checks the limit of a page or of a step of an erasure: 1 to [`MAX_PAGE_ITEMS`].
///
/// # Errors
/// `InvalidArgument` that names the limit.
pub fn check_page_limit(limit: usize) -> Result<()> {
    if (1..=MAX_PAGE_ITEMS).contains(&limit) {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "a limit of {limit} items is outside 1 to {MAX_PAGE_ITEMS} (MAX_PAGE_ITEMS)"
    )))
}

/// Checks the keys of `get_many`: each one, and at most [`MAX_GET_MANY_KEYS`].
///
/// # Errors
/// `InvalidArgument` that names the limit.
pub fn check_keys(keys: &[&str]) -> Result<()> {
    if keys.len() > MAX_GET_MANY_KEYS {
        return Err(Error::invalid_argument(format!(
            "{} keys are more than the limit of {MAX_GET_MANY_KEYS} (MAX_GET_MANY_KEYS)",
            keys.len()
        )));
    }
    keys.iter().try_for_each(|key| check_key(key))
}

pub(crate) fn check_text(
    text: &str,
    what: &'static str,
    limit_name: &'static str,
    limit: usize,
) -> Result<()> {
    if text.len() > limit {
        return Err(Error::invalid_argument(format!(
            "the {what} has {} bytes, more than the limit of {limit} ({limit_name})",
            text.len()
        )));
    }
    if text.contains('\0') {
        return Err(Error::invalid_argument(format!("the {what} holds NUL (U+0000)")));
    }
    Ok(())
}
