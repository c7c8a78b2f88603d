//! Bounds of `ZRANGE BYLEX`. Texts are UTF-8, so they contain no byte 0xFF, and they contain no
//! NUL.

/// The lower bound that includes `text`.
pub(crate) fn from(text: &str) -> Vec<u8> {
    [b"[", text.as_bytes()].concat()
}

/// The lower bound that excludes `text`.
pub(crate) fn past(text: &str) -> Vec<u8> {
    [b"(", text.as_bytes()].concat()
}

/// Returns whether a member is at or after this lower bound.
pub(crate) fn admits(from: &[u8], member: &[u8]) -> bool {
    match from.split_first() {
        Some((b'[', first)) => member >= first,
        Some((b'(', last)) => member > last,
        _ => true,
    }
}

/// The upper bound after all texts that start with `text`.
pub(crate) fn to_end_of(text: &str) -> Vec<u8> {
    [b"(", text.as_bytes(), b"\xff"].concat()
}
