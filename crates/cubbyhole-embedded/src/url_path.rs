//! Paths in `redb:` URLs, which are percent-encoded, and paths in messages.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cubbyhole_core::{Error, Result};

/// Decodes the path of a URL: `%` and two hexadecimal digits are one byte.
pub(crate) fn decoded(text: &str) -> Result<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        let mut byte = *first;
        if let (b'%', [high, low, after @ ..]) = (byte, after)
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            byte = high << 4 | low;
            rest = after;
        }
        bytes.push(byte);
    }
    if bytes.contains(&0) {
        return Err(Error::invalid_argument(
            "the path in the URL contains NUL, which no path may contain",
        ));
    }
    path(bytes)
}

fn digit(character: u8) -> Option<u8> {
    char::from(character).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(unix)]
fn path(bytes: Vec<u8>) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    Ok(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn path(bytes: Vec<u8>) -> Result<PathBuf> {
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::invalid_argument("the path in the URL is not UTF-8 once decoded"))?;
    Ok(text.into())
}

/// Encodes a path for a URL: `%`, `?`, control characters and bytes that are not UTF-8.
pub(crate) fn encoded(path: &Path) -> Result<String> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let is_encodable = cfg!(unix) || path.to_str().is_some();
    if bytes.is_empty() || bytes.contains(&0) || !is_encodable {
        let message = format!("no URL can name the path `{}`", shown(path));
        return Err(Error::invalid_argument(message));
    }
    let mut text = String::with_capacity(bytes.len());
    // Two leading slashes would introduce a host.
    let starts_like_host = bytes.starts_with(b"//") && !bytes.starts_with(b"///");
    let bytes = if starts_like_host { &bytes[1..] } else { bytes };
    if starts_like_host {
        text.push_str("%2F");
    }
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || matches!(character, '%' | '?') {
                let mut buffer = [0; 4];
                push_encoded(&mut text, character.encode_utf8(&mut buffer).as_bytes());
            } else {
                text.push(character);
            }
        }
        push_encoded(&mut text, chunk.invalid());
    }
    Ok(text)
}

fn push_encoded(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "%{byte:02X}");
    }
}

/// Formats a path for a message: control characters and bytes that are not UTF-8 are escaped.
pub(crate) fn shown(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shown_path_escapes_control_characters() {
        assert_eq!(shown(Path::new("/srv/ü b\n\u{1b}[2J.redb")), r"/srv/ü b\n\u{1b}[2J.redb");
        #[cfg(unix)]
        {
            let path = path(b"/srv/\xff\xfe.redb".to_vec()).unwrap();
            assert_eq!(shown(&path), r"/srv/\xff\xfe.redb");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[cfg(unix)]
        #[test]
        fn any_path_round_trips_through_its_url(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..12),
                "[/%?#a0-9F\\r ]{0,12}".prop_map(String::into_bytes),
            ],
        ) {
            let path = path(bytes.clone()).unwrap();
            let Ok(url) = crate::Config::new(&path).to_url() else {
                prop_assert!(bytes.is_empty() || bytes.contains(&0));
                return Ok(());
            };
            prop_assert!(!url.contains(char::is_control), "{}", url);
            let read = crate::Config::from_url_path(url.strip_prefix("redb:").unwrap());
            let read = read.unwrap();
            prop_assert_eq!(read.path().as_os_str(), path.as_os_str());
        }

        #[test]
        fn text_without_escapes_decodes_to_itself(text in "[^%\\x00]{1,12}") {
            let decoded = decoded(&text).unwrap();
            prop_assert_eq!(decoded.to_str(), Some(text.as_str()));
        }
    }
}
