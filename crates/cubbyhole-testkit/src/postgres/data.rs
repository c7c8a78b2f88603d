//! The data folder of a server, and its settings.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::VARIABLES;
use crate::process::folder::Folder;
use crate::process::server::{LIMIT, log_file};
use crate::process::table::last_lines;
use crate::process::wait;
use crate::process::watcher::Watcher;

const SETTINGS: [(&str, &str); 7] = [
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "200"),
    ("shared_buffers", "128MB"),
    // Test data need not survive a power loss, and the writes of a killed server are in the kernel.
    ("fsync", "off"),
    // The default leaves files in shared memory when the server is killed.
    ("dynamic_shared_memory_type", "mmap"),
    ("log_checkpoints", "off"),
    ("log_min_messages", "warning"),
];

/// The default collation of the databases: the first that PostgreSQL and the system support. It should
/// not order by bytes, so a query without an explicit collation fails its test. The last one is the
/// fallback.
const LOCALES: [&[&str]; 4] = [
    &["--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8"],
    &["--locale-provider=icu", "--icu-locale=en-US", "--locale=en_US.UTF-8"],
    &["--locale=en_US.UTF-8"],
    &["--locale=C.UTF-8"],
];

/// Creates the data folder with `initdb`. Returns the watcher of the server's whole folder.
pub(super) fn initialise(
    programs: &Path,
    folder: &Folder,
    password_file: &Path,
) -> Result<Watcher, String> {
    let log = log_file(folder);
    let mut previous: Option<Watcher> = None;
    for locale in LOCALES {
        let mut arguments: Vec<OsString> = vec!["-D".into(), data_folder(folder).into()];
        arguments.extend(["--pwfile".into(), password_file.into()]);
        let fixed = ["-U", "postgres", "--auth=scram-sha-256", "--encoding=UTF8"];
        // Errors show its messages, and its folder is temporary.
        let others = ["--lc-messages=C", "--no-sync", "--no-instructions"];
        arguments.extend(fixed.iter().chain(&others).chain(locale).map(OsString::from));
        let program = programs.join("initdb");
        let mut watcher = Watcher::start(folder, &log, &program, &arguments, VARIABLES)?;
        if let Some(previous) = previous.take() {
            previous.release()?;
        }
        if !wait::until(LIMIT, || Ok(watcher.program()?.is_none()))? {
            break;
        }
        if watcher.end()? == 0 {
            return Ok(watcher);
        }
        previous = Some(watcher);
    }
    Err(format!("`initdb` in {} failed:\n{}", programs.display(), last_lines(&read_log(folder))))
}

fn read_log(folder: &Folder) -> String {
    let bytes = fs::read(log_file(folder)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn data_folder(folder: &Folder) -> PathBuf {
    folder.path().join("data")
}

/// Appends the settings for tests and then `settings` to the configuration.
pub(super) fn configure(data: &Path, settings: &[(&str, &str)]) -> Result<(), String> {
    let path = data.join("postgresql.conf");
    // The last line for a setting counts.
    let lines: String =
        SETTINGS.iter().chain(settings).map(|(name, value)| line(name, value)).collect();
    let file = OpenOptions::new().append(true).open(&path);
    file.and_then(|mut file| file.write_all(lines.as_bytes()))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Returns a line of `postgresql.conf`.
fn line(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_values_are_quoted() {
        assert_eq!(line("a.b", r"it's \n"), "a.b = 'it''s \\\\n'\n");
    }
}
