//! Escapes text for terminals, JSON and shells.

use std::fmt::{self, Write as _};
use std::path::Path;

/// Escapes text for a listing: control characters and characters that change the text direction. A
/// `\` is not escaped, so other names can be copied from a listing.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() && c.is_ascii() => {
                push(&mut out, format_args!("\\x{:02x}", u32::from(c)));
            }
            c if c.is_control() || disguises(c) => {
                push(&mut out, format_args!("\\u{{{:x}}}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}

/// Escapes the same characters in a line of JSON, as JSON escapes.
pub(crate) fn escape_in_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || disguises(c) {
            push(&mut out, format_args!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

fn push(out: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

/// Whether the character is a line separator or changes the text direction. Such characters can
/// make one name look like another.
pub(super) fn disguises(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes a value for a listing. Bytes that are not UTF-8 become `\xNN`.
pub(crate) fn escape_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&escape(chunk.valid()));
        for byte in chunk.invalid() {
            push(&mut out, format_args!("\\x{byte:02x}"));
        }
    }
    out
}

/// Escapes a path for a message. Bytes that are not UTF-8 become `\xNN`.
pub(crate) fn shown_path(path: &Path) -> String {
    escape_bytes(path.as_os_str().as_encoded_bytes())
}

/// Whether a shell needs no quotes for the character.
pub(crate) fn is_plain_in_shell(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c)
}

/// Quotes an argument for a shell, if necessary.
pub(crate) fn shell_quoted(argument: &str) -> String {
    if !argument.is_empty() && argument.chars().all(is_plain_in_shell) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_control_characters_are_escaped() {
        assert_eq!(escape("a\nb\tc\u{1b}[2J\u{9b}\0"), r"a\nb\tc\x1b[2J\u{9b}\x00");
        assert_eq!(escape("\u{202e}abc"), r"\u{202e}abc");
        for text in ["plain", r"a\b", "%*?", "مرحبا", "👩‍👩‍👧", "e\u{301}"] {
            assert_eq!(escape(text), text);
        }
        assert_eq!(escape_bytes(b"ok\xff\n"), r"ok\xff\n");
    }
}
