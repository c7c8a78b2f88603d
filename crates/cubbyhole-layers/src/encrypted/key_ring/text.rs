//! The text form of a key ring.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cubbyhole_core::{Error, Result};
use zeroize::Zeroizing;

use super::{KeyRing, check_id};
use crate::encrypted::SecretKey;

/// The length of 32 bytes in base64.
const KEY_TEXT_BYTES: usize = 44;

pub(super) fn from_env(name: &str) -> Result<KeyRing> {
    // The error of `var` would quote a value that is not UTF-8.
    let Some(text) = std::env::var_os(name) else {
        return Err(Error::invalid_argument(format!(
            "the environment variable {name} is not set; set it to the text of a key ring"
        )));
    };
    let text = text.into_string().map(Zeroizing::new).map_err(|_| {
        Error::invalid_argument(format!("the environment variable {name} is not UTF-8"))
    })?;
    parse_variable(name, &text)
}

fn parse_variable(name: &str, text: &str) -> Result<KeyRing> {
    let lines = Zeroizing::new(text.replace(';', "\n"));
    parse(&lines).map_err(|error| {
        Error::new(error.kind(), format!("environment variable {name}: {}", error.message()))
    })
}

pub(super) fn parse(text: &str) -> Result<KeyRing> {
    let mut current: Option<(usize, &str)> = None;
    let mut keys: Vec<(usize, &str, SecretKey)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next(), words.next()) {
            (None, ..) => {}
            (Some(first), ..) if first.starts_with('#') => {}
            (Some("current"), Some(id), None, None) => {
                check_id(id).map_err(|error| at_line(number, error.message()))?;
                if current.replace((number, id)).is_some() {
                    return Err(at_line(number, "there is a second `current`; remove one"));
                }
            }
            (Some("key"), Some(id), Some(key), None) => {
                check_id(id).map_err(|error| at_line(number, error.message()))?;
                if keys.iter().any(|(_, known, _)| *known == id) {
                    return Err(at_line(number, "a second key has the same id; remove one"));
                }
                let key = decode(key).map_err(|message| at_line(number, message))?;
                keys.push((number, id, key));
            }
            _ => {
                return Err(at_line(number, "expected `current ID`, `key ID BASE64` or `# text`"));
            }
        }
    }
    let Some((number, id)) = current else {
        return Err(Error::invalid_argument(
            "the key ring has no current key; add a line `current ID`",
        ));
    };
    let Some(at) = keys.iter().position(|(_, known, _)| *known == id) else {
        return Err(at_line(number, "the current key is missing; add it as `key ID BASE64`"));
    };
    let (_, id, key) = keys.swap_remove(at);
    keys.sort_by_key(|(number, ..)| *number);
    let ring = KeyRing::new(id, key)?;
    keys.into_iter().try_fold(ring, |ring, (_, id, key)| ring.with_key(id, key))
}

pub(super) fn render(ring: &KeyRing) -> Zeroizing<String> {
    let line = "key  \n".len() + super::MAX_ID_BYTES + KEY_TEXT_BYTES;
    // Reserves all of it, because growing would leave copies of keys in memory.
    let mut text = Zeroizing::new(String::with_capacity((ring.keys.len() + 2) * line));
    text.push_str("current ");
    text.push_str(ring.current_id());
    text.push('\n');
    for (id, key) in &ring.keys {
        let mut encoded = Zeroizing::new([0; KEY_TEXT_BYTES]);
        // The buffer has the exact length, so this cannot fail.
        let _ = STANDARD.encode_slice(key.expose(), encoded.as_mut_slice());
        for part in ["key ", id, " ", std::str::from_utf8(encoded.as_slice()).unwrap_or(""), "\n"] {
            text.push_str(part);
        }
    }
    text
}

fn decode(text: &str) -> Result<SecretKey, &'static str> {
    const WRONG: &str = "the key must be 32 bytes in base64 (44 characters)";
    if text.len() != KEY_TEXT_BYTES {
        return Err(WRONG);
    }
    let mut bytes = Zeroizing::new([0; KEY_TEXT_BYTES]);
    // The error of the decoder quotes a character of the key.
    let length = STANDARD.decode_slice(text, bytes.as_mut_slice()).map_err(|_| WRONG)?;
    SecretKey::from_slice(&bytes[..length]).map_err(|_| WRONG)
}

fn at_line(number: usize, message: &str) -> Error {
    Error::invalid_argument(format!("line {number}: {message}"))
}

#[cfg(test)]
mod tests {
    use cubbyhole_core::ErrorKind;

    use super::*;

    const A: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const B: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    #[test]
    fn text_of_a_ring_is_read_in_any_order() {
        let text = format!("# keys\n\nkey old {A}\n  key new.2 {B}\r\ncurrent new.2\n");
        let ring = parse(&text).unwrap();
        assert_eq!(ring.key_ids().collect::<Vec<_>>(), ["new.2", "old"]);
        assert_eq!(ring.find("old").unwrap().expose(), &[0; 32]);
        assert_eq!(ring.find("new.2").unwrap().expose(), &[1; 32]);
        let rendered = render(&ring);
        assert_eq!(rendered.as_str(), format!("current new.2\nkey new.2 {B}\nkey old {A}\n"));
        assert!(rendered.len() <= rendered.capacity());
    }

    #[test]
    fn variable_may_have_semicolons_for_line_breaks() {
        let ring = parse_variable("KEYS", &format!("current a;key a {A};\nkey b {B}")).unwrap();
        assert_eq!(ring.key_ids().collect::<Vec<_>>(), ["a", "b"]);
        let error = parse_variable("KEYS", &format!("current a;key a {A}x")).unwrap_err();
        assert!(error.message().starts_with("environment variable KEYS: line 2: "), "{error}");
    }

    #[test]
    fn invalid_text_is_refused_with_its_line_and_without_its_key() {
        let long = "x".repeat(65);
        let short = &A[4..];
        for (text, line, says) in [
            (String::new(), "", "no current key"),
            (format!("key a {A}"), "", "no current key"),
            (format!("current b\nkey a {A}"), "line 1: ", "current key is missing"),
            (format!("current a\ncurrent a\nkey a {A}"), "line 2: ", "second `current`"),
            (format!("current a\nkey a {A}\nkey a {B}"), "line 3: ", "same id"),
            (format!("current a\nkey a {short}"), "line 2: ", "32 bytes"),
            (format!("current a\nkey a {A}{A}"), "line 2: ", "32 bytes"),
            (format!("current a\nkey a {}", A.replace('=', "A")), "line 2: ", "32 bytes"),
            (format!("current a\nkey a {}", A.replace("A=", "*=")), "line 2: ", "32 bytes"),
            (format!("current a\nkey {A}"), "line 2: ", "expected"),
            (format!("current a\nkey {A} a"), "line 2: ", "a key id has"),
            (format!("current a\nkey a {A} {B}"), "line 2: ", "expected"),
            (format!("current {A}"), "line 1: ", "a key id has"),
            (format!("current a\nkey a {A}\n{B}"), "line 3: ", "expected"),
            (format!("current {long}"), "line 1: ", "a key id has"),
        ] {
            let error = parse(&text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.message().starts_with(line), "{error}");
            assert!(error.message().contains(says), "{error} ({says})");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains(&A[..40]) && !shown.contains(&B[..40]), "{shown}");
        }
    }
}
