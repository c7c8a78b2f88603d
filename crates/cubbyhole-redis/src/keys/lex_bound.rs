//! Bounds of `ZRANGE BYLEX`. Texts are UTF-8, so they contain no byte 0xFF, and they contain no
//! NUL.

use std::cmp::Ordering;

/// The lower bound that includes `text`.
pub(crate) fn from(text: &str) -> Vec<u8> {
    [b"[", text.as_bytes()].concat()
}

/// The lower or upper bound that excludes `text`.
pub(crate) fn past(text: &str) -> Vec<u8> {
    [b"(", text.as_bytes()].concat()
}

/// Returns whether a member is after this bound, or at it if the bound includes it. `onward` is the
/// order of a member that comes later: `Greater`, or `Less` for a descending range.
pub(crate) fn admits(from: &[u8], member: &[u8], onward: Ordering) -> bool {
    match from.split_first() {
        Some((b'[', first)) => member == first || member.cmp(first) == onward,
        Some((b'(', last)) => member.cmp(last) == onward,
        _ => true,
    }
}

/// The upper bound after all texts that start with `text`.
pub(crate) fn to_end_of(text: &str) -> Vec<u8> {
    [b"(", text.as_bytes(), b"\xff"].concat()
}
