//! What any text file looks like.

use std::path::Path;

use super::{Finding, Tree};

/// What people write by hand here. Others, such as recorded data, are kept as they came.
const HAND_WRITTEN: [&str; 9] = ["rs", "toml", "md", "sh", "yml", "yaml", "sql", "lua", "json"];

/// Folders at the root of a file system where developers and build machines keep checkouts.
const MACHINE_FOLDERS: [&str; 6] = ["home", "root", "Users", "work", "workspace", "builds"];

/// A file right in it is a common example; a folder in it is of one machine.
const SCRATCH_FOLDER: &str = "tmp";

fn is_hand_written(path: &str) -> bool {
    match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some(extension) => HAND_WRITTEN.contains(&extension),
        // `.ci/run`, `.gitignore`, the licences.
        None => true,
    }
}

pub(super) fn lines_are_clean(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.iter().filter(|(path, _)| is_hand_written(path)) {
        for (index, line) in text.split('\n').enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                findings.push(Finding::at(path, index + 1, "white space at the end of the line"));
            } else if line.contains('\t') {
                findings.push(Finding::at(path, index + 1, "a tab; indent with spaces"));
            }
        }
        if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
            findings.push(Finding::in_file(path, "ends with other than one newline"));
        }
    }
    findings
}

/// What works only on the machine where it was written: relative paths and the `tempfile` crate
/// work everywhere.
pub(super) fn no_path_of_a_machine(tree: &Tree) -> Vec<Finding> {
    let folders = MACHINE_FOLDERS.iter().chain([&SCRATCH_FOLDER]);
    let needles: Vec<String> = folders.map(|folder| format!("/{folder}/")).collect();
    let mut findings = Vec::new();
    for (path, text) in tree.iter() {
        for (index, line) in text.lines().enumerate() {
            for needle in needles.iter().filter(|needle| has_absolute(line, needle)) {
                let message = format!("a path of one machine: `{needle}…`");
                findings.push(Finding::at(path, index + 1, message));
            }
        }
    }
    findings
}

/// Whether `needle` begins a path: in `../home/x` and `https://host/root/x` it does not.
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
    fn unclean_lines_are_caught() {
        let check = |path: &str, text: &str| lines_are_clean(&Tree::of(&[(path, text)])).len();
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
    fn a_path_of_a_machine_is_caught() {
        let check = |text: &str| no_path_of_a_machine(&Tree::of(&[("a.md", text)])).len();
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
