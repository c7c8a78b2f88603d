//! The form of source files and other text files.

use std::path::Path;

use super::tree::{Finding, Tree};

/// The extensions of files that people write. Recorded data, for example, has no such rules.
const HAND_WRITTEN: [&str; 9] = ["rs", "toml", "md", "sh", "yml", "yaml", "sql", "lua", "json"];

/// Folders at the root of a file system in which developers and build machines keep checkouts.
const MACHINE_FOLDERS: [&str; 6] = ["home", "root", "Users", "work", "workspace", "builds"];

/// A file directly in it is a common example, but a folder in it belongs to one machine.
const SCRATCH_FOLDER: &str = "tmp";

/// Returns the limit of lines: a file that one can read at a sitting. Tests may have twice as many.
fn max_lines(path: &str) -> usize {
    if path.contains("/tests/") { 1000 } else { 500 }
}

/// Counts the lines without doc comments: documentation and its examples may be as long as they need.
fn code_lines(text: &str) -> usize {
    let is_doc = |line: &str| line.starts_with("///") || line.starts_with("//!");
    text.lines().filter(|line| !is_doc(line.trim_start())).count()
}

/// Checks the length of source files.
pub(super) fn check_file_sizes(tree: &Tree) -> Vec<Finding> {
    let lengths = tree.with_extension("rs").map(|(path, text)| (path, code_lines(text)));
    let long = lengths.filter(|(path, lines)| *lines > max_lines(path));
    long.map(|(path, lines)| {
        Finding::in_file(path, format!("{lines} lines are more than {}", max_lines(path)))
    })
    .collect()
}

/// Checks that a source file starts with `//!`.
pub(super) fn check_module_docs(tree: &Tree) -> Vec<Finding> {
    let without = tree.with_extension("rs").filter(|(_, text)| !text.starts_with("//! "));
    without.map(|(path, _)| Finding::at(path, 1, "start the file with a `//!` doc")).collect()
}

fn is_hand_written(path: &str) -> bool {
    match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some(extension) => HAND_WRITTEN.contains(&extension),
        // `.ci/run`, `.gitignore`, the licences.
        None => true,
    }
}

/// Checks for trailing white space, tabs, and a single newline at the end.
pub(super) fn check_white_space(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.iter().filter(|(path, _)| is_hand_written(path)) {
        for (index, line) in text.split('\n').enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                findings.push(Finding::at(
                    path,
                    index + 1,
                    "remove the white space at the end of the line",
                ));
            } else if line.contains('\t') {
                findings.push(Finding::at(path, index + 1, "replace the tab with spaces"));
            }
        }
        if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
            findings.push(Finding::in_file(path, "the file must end with exactly one newline"));
        }
    }
    findings
}

/// Checks for absolute paths that exist on one machine only. Relative paths and the crate `tempfile`
/// work everywhere.
pub(super) fn check_machine_paths(tree: &Tree) -> Vec<Finding> {
    let folders = MACHINE_FOLDERS.iter().chain([&SCRATCH_FOLDER]);
    let needles: Vec<String> = folders.map(|folder| format!("/{folder}/")).collect();
    let mut findings = Vec::new();
    for (path, text) in tree.iter() {
        for (index, line) in text.lines().enumerate() {
            for needle in needles.iter().filter(|needle| has_absolute(line, needle)) {
                let message = format!("`{needle}…` is a path of one machine");
                findings.push(Finding::at(path, index + 1, message));
            }
        }
    }
    findings
}

/// Returns whether `needle` starts a path. In `../home/x` and `https://host/root/x` it does not.
fn has_absolute(line: &str, needle: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || "._-".contains(c);
    line.match_indices(needle).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let begins = !before.is_some_and(|c| is_part(c) || "~/*}>".contains(c));
        let after = line[start + needle.len()..].trim_start_matches(is_part);
        begins && (!needle.contains(SCRATCH_FOLDER) || after.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_file_is_found() {
        let check = |path: &str, lines: usize| {
            let text = "x\n".repeat(lines);
            check_file_sizes(&Tree::of(&[(path, &text)])).len()
        };
        assert_eq!(check("crates/a/src/lib.rs", 500), 0);
        assert_eq!(check("crates/a/src/lib.rs", 501), 1);
        let documented = "    /// x\n".repeat(501) + &"x\n".repeat(500);
        assert_eq!(check_file_sizes(&Tree::of(&[("src/lib.rs", &documented)])).len(), 0);
        assert_eq!(check("crates/a/tests/all.rs", 1000), 0);
        assert_eq!(check("crates/a/tests/all.rs", 1001), 1);
    }

    #[test]
    fn file_without_a_module_doc_is_found() {
        let check = |text: &str| check_module_docs(&Tree::of(&[("a.rs", text)])).len();
        assert_eq!(check("//! What it is.\n"), 0);
        for text in ["", "// x\n//! y\n", "use std::fmt;\n", "/// x\nfn f() {}\n"] {
            assert_eq!(check(text), 1, "{text}");
        }
    }

    #[test]
    fn trailing_white_space_tabs_and_missing_newlines_are_found() {
        let check = |path: &str, text: &str| check_white_space(&Tree::of(&[(path, text)])).len();
        assert_eq!(check("a.md", "one\n\ntwo\n"), 0);
        assert_eq!(check("a.md", ""), 0);
        assert_eq!(check("a.md", "one \n"), 1);
        assert_eq!(check("a.rs", "\tone\n"), 1);
        assert_eq!(check("a.toml", "one\r\n"), 1);
        assert_eq!(check(".ci/run", "one"), 1);
        assert_eq!(check("a.rs", "one\n\n"), 1);
        assert_eq!(check("data.jsonl", "\t \n"), 0);
    }

    #[test]
    fn path_of_one_machine_is_found() {
        let check = |text: &str| check_machine_paths(&Tree::of(&[("a.md", text)])).len();
        let home = MACHINE_FOLDERS[0];
        for good in [
            format!("..{}", format_args!("/{home}/x")),
            format!("https://example.org/{home}/x"),
            format!("$DIR/x/{home}/y"),
            format!("/{home}"),
            format!("redb:/{SCRATCH_FOLDER}/x.redb"),
        ] {
            assert_eq!(check(&good), 0, "{good}");
        }
        for bad in [
            format!("/{home}/me/x"),
            format!("see `/{home}/me`"),
            format!("redb:/{home}/x"),
            format!("/{SCRATCH_FOLDER}/x/y"),
        ] {
            assert_eq!(check(&bad), 1, "{bad}");
        }
    }
}
