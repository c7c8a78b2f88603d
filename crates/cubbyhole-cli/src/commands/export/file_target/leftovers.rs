//! The temporary file of an export, `.NAME.VERSION.part`, and those that killed exports left
//! behind.
//!
//! An export holds a lock on its temporary file until the file is renamed. A temporary file that
//! can be locked belongs to no running export.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use cubbyhole::Version;

use crate::output::shown_path;

const EXTENSION: &str = ".part";

/// The attempts to create a file. Another export may remove a new file before it is locked.
const ATTEMPTS: u32 = 10;

/// The temporary file of this export. Dropping it removes the file, unless it was renamed.
pub(super) struct Part {
    /// `None` once the file is renamed.
    path: Option<PathBuf>,
}

impl Part {
    /// Creates the temporary file of an export to `target`, next to it.
    pub(super) fn create(target: &Path) -> io::Result<(Self, File)> {
        for _ in 0..ATTEMPTS {
            // Not the process ID, which is often the same in every container.
            let mut name = prefix(target);
            name.push(Version::draw().to_string());
            name.push(EXTENSION);
            let path = target.with_file_name(name);
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options.open(&path)?;
            let part = Self { path: Some(path.clone()) };
            match file.lock() {
                Ok(()) if is_at(&file, &path) => return Ok((part, file)),
                Ok(()) => {}
                // The file system has no locks, so other exports cannot lock the file either.
                Err(_) => return Ok((part, file)),
            }
        }
        let text = "other exports to this name repeatedly removed the temporary file";
        Err(io::Error::other(text))
    }

    /// Renames the file to `target`, and replaces an existing file.
    pub(super) fn rename(&mut self, target: &Path) -> io::Result<()> {
        if let Some(path) = &self.path {
            fs::rename(path, target)?;
            self.path = None;
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // The export already reports the failure that led here.
            drop(fs::remove_file(path));
        }
    }
}

/// A temporary file that an earlier export left behind.
pub(in super::super) enum Leftover {
    Removed(PathBuf),
    /// The file could not be removed, or an export may still be writing it.
    Kept(PathBuf, io::Error),
}

impl Leftover {
    /// Returns a message about the file.
    pub(in super::super) fn message(&self) -> String {
        match self {
            Self::Removed(path) => {
                format!("removed {}, which a killed export left behind", shown_path(path))
            }
            Self::Kept(path, error) => format!(
                "{} belongs to an export that was killed or is running: {error}; remove the file if \
                 no export is running",
                shown_path(path)
            ),
        }
    }
}

/// Removes the temporary files of exports to `target` that no export is writing.
pub(super) fn remove(target: &Path) -> Vec<Leftover> {
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    // A folder that cannot be listed may still be writable.
    let Ok(entries) = fs::read_dir(folder.unwrap_or(Path::new("."))) else { return Vec::new() };
    let prefix = prefix(target);
    let mut leftovers = Vec::new();
    for entry in entries.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !is_part(&entry.file_name(), &prefix) {
            continue;
        }
        let path = target.with_file_name(entry.file_name());
        match remove_if_free(&path) {
            Ok(true) => leftovers.push(Leftover::Removed(path)),
            Ok(false) => {}
            Err(error) => leftovers.push(Leftover::Kept(path, error)),
        }
    }
    leftovers
}

/// Removes the file unless an export is writing it. Returns whether it was removed.
fn remove_if_free(path: &Path) -> io::Result<bool> {
    let file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        // Its export has just ended.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the path still leads to the open file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Returns `.NAME.`, the prefix of all temporary files of `target`.
fn prefix(target: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(target.file_name().unwrap_or_default());
    prefix.push(".");
    prefix
}

/// Whether a name is the prefix, a version and the extension. The version matters: exports to `a`
/// must not remove the files of `a.b`.
fn is_part(name: &OsStr, prefix: &OsStr) -> bool {
    let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
    let version = rest.and_then(|rest| rest.strip_suffix(EXTENSION.as_bytes()));
    let version = version.and_then(|version| std::str::from_utf8(version).ok());
    version.is_some_and(|version| version.parse::<Version>().is_ok())
}
