//! Bounds of `ZRANGE BYLEX`. Texts are UTF-8, in which the byte 0xFF does not occur, and hold no
//! NUL.

/// From `text` on.
pub(crate) fn from(text: &str) -> Vec<u8> {
    [b"[", text.as_bytes()].concat()
}

/// Past `text`.
pub(crate) fn past(text: &str) -> Vec<u8> {
    [b"(", text.as_bytes()].concat()
}

/// Whether a member lies where a range from this bound begins, or further on.
pub(crate) fn admits(from: &[u8], member: &[u8]) -> bool {
    match from.split_first() {
        Some((b'[', first)) => member >= first,
        Some((b'(', last)) => member > last,
        _ => true,
    }
}

/// Up to the last that begins with `text`.
pub(crate) fn to_end_of(text: &str) -> Vec<u8> {
    [b"(", text.as_bytes(), b"\xff"].concat()
}
