//! The files of the repository, and what breaks a rule in one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The files of the repository by path, with `/` between the parts.
pub(super) struct Tree {
    texts: BTreeMap<String, String>,
    /// Files that are not UTF-8, such as images.
    others: BTreeSet<String>,
}

impl Tree {
    /// Reads the files that git tracks, and new files that it does not ignore. A new file is checked
    /// before it is committed.
    pub(super) fn read(root: &Path) -> Result<Self, String> {
        let listing = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .map_err(|error| format!("git ls-files: {error}"))?;
        if !listing.status.success() {
            let message = String::from_utf8_lossy(&listing.stderr).trim().to_owned();
            return Err(format!("git ls-files: {message}"));
        }
        let names = String::from_utf8_lossy(&listing.stdout).into_owned();
        let mut tree = Self { texts: BTreeMap::new(), others: BTreeSet::new() };
        for name in names.split_terminator('\0') {
            let path = root.join(name);
            // The index still lists files that were deleted.
            if !path.is_file() {
                continue;
            }
            let bytes = fs::read(&path).map_err(|error| format!("{name}: {error}"))?;
            match String::from_utf8(bytes) {
                Ok(text) => drop(tree.texts.insert(name.to_owned(), text)),
                Err(_) => drop(tree.others.insert(name.to_owned())),
            }
        }
        Ok(tree)
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        Self { texts: files.iter().map(owned).collect(), others: BTreeSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    pub(super) fn get(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// Returns whether there is a file or a folder of that path.
    pub(super) fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        let mut paths = self.texts.keys().chain(&self.others);
        path.is_empty() || paths.any(|found| found == path || found.starts_with(&folder))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    pub(super) fn with_extension(&self, extension: &str) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter(move |(path, _)| {
            Path::new(path).extension().is_some_and(|found| found == extension)
        })
    }

    /// Returns the folders directly below `crates/`.
    pub(super) fn crate_folders(&self) -> Vec<&str> {
        let inside = self.texts.keys().filter_map(|path| path.strip_prefix("crates/"));
        let mut folders: Vec<&str> =
            inside.filter_map(|path| path.split_once('/')).map(|(folder, _)| folder).collect();
        folders.dedup();
        folders
    }
}

/// What breaks a rule, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) path: String,
    /// Counted from one.
    pub(super) line: Option<usize>,
    pub(super) message: String,
}

impl Finding {
    pub(super) fn in_file(path: &str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: None, message: message.into() }
    }

    pub(super) fn at(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: Some(line), message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// Asserts that a rule finds nothing in each good text and one thing in each bad text.
#[cfg(test)]
pub(super) fn assert_rule(findings: impl Fn(&str) -> Vec<String>, good: &[&str], bad: &[&str]) {
    for text in good {
        assert_eq!(findings(text), [""; 0], "{text}");
    }
    for text in bad {
        assert_eq!(findings(text).len(), 1, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_folder_is_listed_once() {
        let tree = Tree::of(&[
            ("crates/a/Cargo.toml", ""),
            ("crates/a/src/lib.rs", ""),
            ("crates/a-b/Cargo.toml", ""),
            ("xtask/Cargo.toml", ""),
        ]);
        let mut folders = tree.crate_folders();
        folders.sort_unstable();
        assert_eq!(folders, ["a", "a-b"]);
    }

    #[test]
    fn files_and_folders_exist_but_not_parts_of_their_names() {
        let tree = Tree::of(&[("a/b.md", "")]);
        assert!(["", "a", "a/b.md"].into_iter().all(|path| tree.has(path)));
        assert!(!tree.has("a/b") && !tree.has("b.md"));
    }

    #[test]
    fn a_finding_prints_path_and_line() {
        assert_eq!(Finding::at("a/b.rs", 7, "too long").to_string(), "a/b.rs:7: too long");
    }
}
