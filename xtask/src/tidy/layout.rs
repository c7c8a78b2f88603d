//! Crates and their files, and whether the documents agree with them.

use std::collections::BTreeSet;

use super::manifests::entries;
use super::tree::{Finding, Tree};

const BACKENDS: [&str; 3] = ["cubbyhole-embedded", "cubbyhole-postgres", "cubbyhole-redis"];

/// The files that a reader finds in every backend.
const BACKEND_FILES: [&str; 4] = ["lib.rs", "config.rs", "store.rs", "error.rs"];

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const CODE_MAP: &str = "## Code map";

/// The commands that a newcomer runs first.
const README_COMMANDS: [&str; 2] = ["cargo run --release -- demo", "cargo xtask test"];

pub(super) fn check_crate_names(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in tree.crate_folders() {
        let path = format!("crates/{folder}/Cargo.toml");
        let Some(manifest) = tree.get(&path) else {
            findings.push(Finding::in_file(&path, "a folder below crates/ needs a Cargo.toml"));
            continue;
        };
        let named = entries(manifest)
            .any(|entry| entry.section == "package" && entry.is("name", &format!("\"{folder}\"")));
        if !named {
            findings
                .push(Finding::in_file(&path, format!("the crate must have the name `{folder}`")));
        }
    }
    findings
}

pub(super) fn check_backend_files(tree: &Tree) -> Vec<Finding> {
    let folders = tree.crate_folders();
    let backends = BACKENDS.iter().filter(|backend| folders.contains(backend));
    let wanted = backends.flat_map(|backend| {
        BACKEND_FILES.iter().map(move |file| format!("crates/{backend}/src/{file}"))
    });
    let missing = wanted.filter(|path| tree.get(path).is_none());
    missing
        .map(|path| Finding::in_file(&path, "the file is missing; every backend has it"))
        .collect()
}

/// Checks the crates that the rows of the code map name as `crates/NAME`. Text outside the rows may
/// name crates that do not exist.
pub(super) fn check_code_map(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.get(ARCHITECTURE) else {
        return vec![Finding::in_file(ARCHITECTURE, "the file is missing")];
    };
    let map = text.lines().skip_while(|line| *line != CODE_MAP).skip(1);
    let rows = map.take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with('|'));
    let named: BTreeSet<&str> = rows.flat_map(crates_named_in).collect();
    let there: BTreeSet<&str> = tree.crate_folders().into_iter().collect();
    let finding =
        |name: &&str, what: &str| Finding::in_file(ARCHITECTURE, format!("`crates/{name}` {what}"));
    let missing =
        there.difference(&named).map(|name| finding(name, "is missing from the code map"));
    let gone = named.difference(&there).map(|name| finding(name, "does not exist"));
    missing.chain(gone).collect()
}

fn crates_named_in(row: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c == '-' || c == '_' || c.is_ascii_alphanumeric();
    let after = row.match_indices("crates/").map(|(start, found)| &row[start + found.len()..]);
    let names = after.map(move |rest| &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())]);
    names.filter(|name| !name.is_empty())
}

pub(super) fn check_readme_commands(tree: &Tree) -> Vec<Finding> {
    let readme = tree.get("README.md").unwrap_or_default();
    let missing = README_COMMANDS.iter().filter(|command| !readme.contains(**command));
    missing
        .map(|command| Finding::in_file("README.md", format!("the command `{command}` is missing")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crate_with_another_name_and_folder_without_a_crate_are_found() {
        let good = ("crates/a/Cargo.toml", "[package]\nname = \"a\"\n");
        assert_eq!(check_crate_names(&Tree::of(&[good])), []);

        let renamed = ("crates/b/Cargo.toml", "[package]\nname = \"a\"\n[[bin]]\nname = \"b\"\n");
        let loose = ("crates/c/notes.md", "");
        let findings = check_crate_names(&Tree::of(&[good, renamed, loose]));
        let mut paths: Vec<&str> = findings.iter().map(|finding| finding.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["crates/b/Cargo.toml", "crates/c/Cargo.toml"]);
    }

    #[test]
    fn backend_without_a_common_file_is_found() {
        let paths = BACKEND_FILES.map(|file| format!("crates/cubbyhole-redis/src/{file}"));
        let all: Vec<(&str, &str)> = paths.iter().map(|path| (path.as_str(), "")).collect();
        assert_eq!(check_backend_files(&Tree::of(&all)), []);
        let findings = check_backend_files(&Tree::of(&all[..3]));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].path, "crates/cubbyhole-redis/src/error.rs");
        assert_eq!(check_backend_files(&Tree::of(&[("crates/other/x", "")])), []);
    }

    #[test]
    fn code_map_with_a_missing_or_unknown_crate_is_found() {
        let crates = [("crates/a/Cargo.toml", ""), ("crates/a-b/Cargo.toml", "")];
        let check = |map: &str| {
            let text =
                format!("# A\n\n`crates/x`\n\n{CODE_MAP}\n\n{map}\n\n## B\n\n| `crates/y` |\n");
            check_code_map(&Tree::of(&[(ARCHITECTURE, &text), crates[0], crates[1]]))
        };
        let whole = "| `crates/a` | x |\n| `crates/a-b/` | all in `crates/` |";
        assert_eq!(check(whole), []);
        assert_eq!(check(&format!("{whole}\n\nLater: `crates/c`.")), []);
        assert_eq!(check("| `crates/a-b` | x |").len(), 1);
        assert_eq!(check(&format!("{whole}\n| `crates/c` | x |")).len(), 1);
        assert_eq!(check_code_map(&Tree::of(&crates)).len(), 1);
    }

    #[test]
    fn readme_without_a_command_is_found() {
        let whole = README_COMMANDS.join("\n");
        assert_eq!(check_readme_commands(&Tree::of(&[("README.md", &whole)])), []);
        let half = [("README.md", README_COMMANDS[0])];
        assert_eq!(check_readme_commands(&Tree::of(&half)).len(), 1);
        assert_eq!(check_readme_commands(&Tree::of(&[])).len(), 2);
    }
}
