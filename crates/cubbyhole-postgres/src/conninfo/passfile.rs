//! The password file: lines of `HOST:PORT:DATABASE:USER:PASSWORD`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The four fields that a line must match.
pub(crate) struct Wanted<'a> {
    /// `localhost` for the default folder of sockets.
    pub(crate) host: &'a str,
    pub(crate) port: &'a str,
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
}

/// The text of a password file, or why it is ignored: others may read it. `None` if there is none.
pub(crate) fn read(file: &Path) -> Option<Result<Vec<u8>, String>> {
    let metadata = fs::metadata(file).ok()?;
    let file_name = file.display();
    if !metadata.is_file() {
        return Some(Err(format!("the password file {file_name} is ignored: it is no plain file")));
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

/// The password of the first line that matches; `None` if it is empty, as for libpq.
pub(crate) fn find(text: &[u8], wanted: &Wanted<'_>) -> Option<Vec<u8>> {
    let Wanted { host, port, database, user } = wanted;
    let found = text.split(|byte| *byte == b'\n').find_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b"#") {
            return None;
        }
        let rest = [host, port, database, user]
            .into_iter()
            .try_fold(line, |rest, wanted| after_match(rest, wanted.as_bytes()))?;
        Some(unescaped(rest))
    });
    found.filter(|password| !password.is_empty())
}

/// What follows the first field of `line`, if that is `*` or `wanted` with `\:` and `\\`.
fn after_match<'a>(line: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let mut wanted = wanted.iter();
    let mut line = line;
    loop {
        match line {
            [b':', rest @ ..] => return wanted.next().is_none().then_some(rest),
            [b'\\', byte, rest @ ..] | [byte, rest @ ..] => {
                if wanted.next() != Some(byte) {
                    return None;
                }
                line = rest;
            }
            [] => return None,
        }
    }
}

/// The password: up to the next `:` that is not escaped.
fn unescaped(field: &[u8]) -> Vec<u8> {
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
