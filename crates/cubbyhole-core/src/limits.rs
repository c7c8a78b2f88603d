//! Limits, the same on every backend, and the functions that check them.
//!
//! A call beyond a limit fails with [`InvalidArgument`](crate::ErrorKind::InvalidArgument). The error
//! names the limit, and nothing is written. Lengths are in UTF-8 bytes.

use crate::{Error, Result};

/// Maximum length of the text of a namespace, including escapes: 1,024 bytes.
pub const MAX_NAMESPACE_BYTES: usize = 1024;
/// Maximum length of a key, a key prefix and `after`: 1,024 bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// Default maximum size of an encoded value: 16 MiB. It can be configured for each backend.
pub const DEFAULT_MAX_VALUE_BYTES: usize = 16 * 1024 * 1024;
/// Maximum number of items in a page, and of entries that one step of an erasure removes.
pub const MAX_PAGE_ITEMS: usize = 1000;
/// Maximum number of operations in a batch.
pub const MAX_BATCH_OPERATIONS: usize = 1000;
/// Maximum number of keys in a call of `get_many`.
pub const MAX_GET_MANY_KEYS: usize = 1000;
/// Maximum size of the keys and values of a batch: 64 MiB.
pub const MAX_BATCH_BYTES: usize = 64 * 1024 * 1024;
/// Maximum size of the keys and values of a page: 64 MiB. A larger page ends early, but contains at
/// least one item.
pub const MAX_PAGE_BYTES: usize = 64 * 1024 * 1024;

/// Checks a key: no NUL, at most [`MAX_KEY_BYTES`].
///
/// # Errors
/// `InvalidArgument` that names the limit or the character.
pub fn check_key(key: &str) -> Result<()> {
    check_text(key, "key", "MAX_KEY_BYTES", MAX_KEY_BYTES)
}

/// Checks a key prefix as [`check_key`] checks a key.
///
/// # Errors
/// `InvalidArgument` that names the limit or the character.
pub fn check_prefix(prefix: Option<&str>) -> Result<()> {
    prefix.map_or(Ok(()), |text| check_text(text, "prefix", "MAX_KEY_BYTES", MAX_KEY_BYTES))
}

/// Checks the `after` of a page as [`check_key`] checks a key.
///
/// # Errors
/// `InvalidArgument` that names the limit or the character.
pub fn check_after(after: Option<&str>) -> Result<()> {
    after.map_or(Ok(()), |text| check_text(text, "after", "MAX_KEY_BYTES", MAX_KEY_BYTES))
}

/// Checks the length of an encoded value against the limit of the store.
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

/// Checks the limit of a page or of one step of an erasure: 1 to [`MAX_PAGE_ITEMS`].
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

/// Checks each key of `get_many`, and their number: at most [`MAX_GET_MANY_KEYS`].
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
