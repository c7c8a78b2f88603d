//! The password file, with lines of the form `HOST:PORT:DATABASE:USER:PASSWORD`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The fields that a line must match.
pub(crate) struct PassfileQuery<'a> {
    /// `localhost` for the default socket folder.
    pub(crate) host: &'a str,
    pub(crate) port: &'a str,
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
}

/// Reads a password file. `None` if the file does not exist; an error is a warning that the file is
/// ignored, for example because other users can read it.
pub(crate) fn read(file: &Path) -> Option<Result<Vec<u8>, String>> {
    let metadata = fs::metadata(file).ok()?;
    let file_name = file.display();
    if !metadata.is_file() {
        return Some(Err(format!(
            "the password file {file_name} is ignored: it is not a regular file"
        )));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Some(Err(format!(
            "the password file {file_name} is ignored: its group or others have access; run \
             `chmod 0600 {file_name}`"
        )));
    }
    Some(fs::read(file).map_err(|error| {
        format!("the password file {file_name} is ignored: it cannot be read ({error})")
    }))
}

/// Returns the password of the first line that matches. As in libpq, an empty password is `None`.
pub(crate) fn find(text: &[u8], query: &PassfileQuery<'_>) -> Option<Vec<u8>> {
    let PassfileQuery { host, port, database, user } = query;
    let found = text.split(|byte| *byte == b'\n').find_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b"#") {
            return None;
        }
        let rest = [host, port, database, user]
            .into_iter()
            .try_fold(line, |rest, expected| after_match(rest, expected.as_bytes()))?;
        Some(unescape(rest))
    });
    found.filter(|password| !password.is_empty())
}

/// Returns the rest of `line` after its first field, if that is `*` or equals `expected`. The field
/// may contain the escapes `\:` and `\\`.
fn after_match<'a>(line: &'a [u8], expected: &[u8]) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let mut expected = expected.iter();
    let mut line = line;
    loop {
        match line {
            [b':', rest @ ..] => return expected.next().is_none().then_some(rest),
            [b'\\', byte, rest @ ..] | [byte, rest @ ..] => {
                if expected.next() != Some(byte) {
                    return None;
                }
                line = rest;
            }
            [] => return None,
        }
    }
}

/// Unescapes the password, which ends at the next unescaped `:`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut password = Vec::new();
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b':' => break,
            b'\\' => password.push(*bytes.next().unwrap_or(byte)),
            _ => password.push(*byte),
        }
    }
    password
}
