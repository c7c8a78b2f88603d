//! `cargo xtask tidy`: the layout rules that a script can hold, over every file that is committed
//! or would be.

mod code;
mod container;
mod layout;
mod manifests;
mod sources;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::root;

type Rule = fn(&Tree) -> Vec<Finding>;

/// Each rule, by the name under which it reports.
const RULES: [(&str, Rule); 14] = [
    ("a crate is named as its folder", layout::crates_are_named_as_their_folders),
    ("a backend has the common files", layout::backends_have_the_common_files),
    ("the code map names every crate", layout::the_code_map_names_every_crate),
    ("the README shows both commands", layout::the_readme_shows_both_commands),
    ("a dependency has its reason", manifests::dependencies_have_reasons),
    ("the container file names what is there", container::the_container_file_names_what_is_there),
    ("versions stand in one place", manifests::versions_stand_in_one_place),
    ("files are short", sources::files_are_short),
    ("functions are short", sources::functions_are_short),
    ("a file begins with its module doc", sources::files_begin_with_a_module_doc),
    ("exceptions to lints are expected", sources::lint_exceptions_are_expected_with_reason),
    ("nothing is left open", sources::nothing_is_left_open),
    ("lines are clean", text::lines_are_clean),
    ("no path of a machine", text::no_path_of_a_machine),
];

/// Checks every rule and prints what breaks one.
pub(crate) fn run() -> Result<(), String> {
    let tree = Tree::read(root())?;
    let mut broken = 0;
    for (name, rule) in RULES {
        for finding in rule(&tree) {
            println!("{finding} [{name}]");
            broken += 1;
        }
    }
    if broken > 0 {
        return Err(format!("tidy: {broken} findings, listed above"));
    }
    println!("tidy: {} rules hold over {} files", RULES.len(), tree.files.len());
    Ok(())
}

/// The text files of the repository by path, with `/` between the parts.
struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// What git tracks and what it would if one added everything: a new file is checked before it
    /// is committed. Files that are not UTF-8, such as images, are no matter of these rules.
    fn read(root: &Path) -> Result<Self, String> {
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
        let mut files = BTreeMap::new();
        for name in names.split_terminator('\0') {
            let path = root.join(name);
            // Deleted but still in the index.
            if !path.is_file() {
                continue;
            }
            let bytes = fs::read(&path).map_err(|error| format!("{name}: {error}"))?;
            if let Ok(text) = String::from_utf8(bytes) {
                files.insert(name.to_owned(), text);
            }
        }
        Ok(Self { files })
    }

    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Self {
        let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        Self { files: files.iter().map(owned).collect() }
    }

    fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    fn with_extension(&self, extension: &str) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter(move |(path, _)| {
            Path::new(path).extension().is_some_and(|found| found == extension)
        })
    }

    /// The folders right under `crates/`.
    fn crate_folders(&self) -> Vec<&str> {
        let inside = self.files.keys().filter_map(|path| path.strip_prefix("crates/"));
        let mut folders: Vec<&str> =
            inside.filter_map(|path| path.split_once('/')).map(|(folder, _)| folder).collect();
        folders.dedup();
        folders
    }
}

/// What breaks a rule, and where.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: Option<usize>,
    message: String,
}

impl Finding {
    fn in_file(path: &str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: None, message: message.into() }
    }

    /// `line` counts from one.
    fn at(path: &str, line: usize, message: impl Into<String>) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crate_folders_are_listed_once() {
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
    fn a_finding_can_be_clicked() {
        assert_eq!(Finding::at("a/b.rs", 7, "too long").to_string(), "a/b.rs:7: too long");
    }
}
