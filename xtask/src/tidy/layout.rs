//! Which files there are, and whether the documents agree with them.

use std::collections::BTreeSet;

use super::manifests::entries;
use super::{Finding, Tree};

/// The crates that are backends, also those that are still to come: a crate of this name is held
/// to the rule from its first day.
const BACKENDS: [&str; 3] = ["cubbyhole-embedded", "cubbyhole-postgres", "cubbyhole-redis"];

/// Same question, same file.
const BACKEND_FILES: [&str; 4] = ["lib.rs", "config.rs", "store.rs", "error.rs"];

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const CODE_MAP: &str = "## Code map";

/// What a newcomer types first and second.
const README_COMMANDS: [&str; 2] = ["cargo run --release -- demo", "cargo xtask test"];

pub(super) fn crates_are_named_as_their_folders(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in tree.crate_folders() {
        let path = format!("crates/{folder}/Cargo.toml");
        let Some(manifest) = tree.get(&path) else {
            findings.push(Finding::in_file(&path, "a folder under crates/ is a crate"));
            continue;
        };
        let named = entries(manifest)
            .any(|entry| entry.section == "package" && entry.is("name", &format!("\"{folder}\"")));
        if !named {
            findings.push(Finding::in_file(&path, format!("the crate is not named `{folder}`")));
        }
    }
    findings
}

pub(super) fn backends_have_the_common_files(tree: &Tree) -> Vec<Finding> {
    let folders = tree.crate_folders();
    let backends = BACKENDS.iter().filter(|backend| folders.contains(backend));
    let wanted = backends.flat_map(|backend| {
        BACKEND_FILES.iter().map(move |file| format!("crates/{backend}/src/{file}"))
    });
    let missing = wanted.filter(|path| tree.get(path).is_none());
    missing.map(|path| Finding::in_file(&path, "every backend has this file")).collect()
}

/// The rows of the code map name crates as `crates/NAME`, so that no other word is taken for one.
/// What is outside the rows may speak of crates to come.
pub(super) fn the_code_map_names_every_crate(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.get(ARCHITECTURE) else {
        return vec![Finding::in_file(ARCHITECTURE, "the file is missing")];
    };
    let map = text.lines().skip_while(|line| *line != CODE_MAP).skip(1);
    let rows = map.take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with('|'));
    let named: BTreeSet<&str> = rows.flat_map(crates_named_in).collect();
    let there: BTreeSet<&str> = tree.crate_folders().into_iter().collect();
    let finding =
        |name: &&str, what: &str| Finding::in_file(ARCHITECTURE, format!("`crates/{name}` {what}"));
    let missing = there.difference(&named).map(|name| finding(name, "is not in the code map"));
    let gone = named.difference(&there).map(|name| finding(name, "is named and does not exist"));
    missing.chain(gone).collect()
}

fn crates_named_in(row: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c == '-' || c == '_' || c.is_ascii_alphanumeric();
    let after = row.match_indices("crates/").map(|(start, found)| &row[start + found.len()..]);
    let names = after.map(move |rest| &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())]);
    names.filter(|name| !name.is_empty())
}

pub(super) fn the_readme_shows_both_commands(tree: &Tree) -> Vec<Finding> {
    let readme = tree.get("README.md").unwrap_or_default();
    let missing = README_COMMANDS.iter().filter(|command| !readme.contains(**command));
    missing.map(|command| Finding::in_file("README.md", format!("lacks `{command}`"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_named_otherwise_and_a_folder_without_one_are_caught() {
        let good = ("crates/a/Cargo.toml", "[package]\nname = \"a\"\n");
        assert_eq!(crates_are_named_as_their_folders(&Tree::of(&[good])), []);

        let renamed = ("crates/b/Cargo.toml", "[package]\nname = \"a\"\n[[bin]]\nname = \"b\"\n");
        let loose = ("crates/c/notes.md", "");
        let findings = crates_are_named_as_their_folders(&Tree::of(&[good, renamed, loose]));
        let mut paths: Vec<&str> = findings.iter().map(|finding| finding.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["crates/b/Cargo.toml", "crates/c/Cargo.toml"]);
    }

    #[test]
    fn a_backend_without_a_common_file_is_caught() {
        let paths = BACKEND_FILES.map(|file| format!("crates/cubbyhole-redis/src/{file}"));
        let all: Vec<(&str, &str)> = paths.iter().map(|path| (path.as_str(), "")).collect();
        assert_eq!(backends_have_the_common_files(&Tree::of(&all)), []);
        let findings = backends_have_the_common_files(&Tree::of(&all[..3]));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].path, "crates/cubbyhole-redis/src/error.rs");
        assert_eq!(backends_have_the_common_files(&Tree::of(&[("crates/other/x", "")])), []);
    }

    #[test]
    fn a_code_map_that_lacks_a_crate_or_names_a_ghost_is_caught() {
        let crates = [("crates/a/Cargo.toml", ""), ("crates/a-b/Cargo.toml", "")];
        let check = |map: &str| {
            let text =
                format!("# A\n\n`crates/x`\n\n{CODE_MAP}\n\n{map}\n\n## B\n\n| `crates/y` |\n");
            the_code_map_names_every_crate(&Tree::of(&[
                (ARCHITECTURE, &text),
                crates[0],
                crates[1],
            ]))
        };
        let whole = "| `crates/a` | x |\n| `crates/a-b/` | all in `crates/` |";
        assert_eq!(check(whole), []);
        assert_eq!(check(&format!("{whole}\n\nLater: `crates/c`.")), []);
        assert_eq!(check("| `crates/a-b` | x |").len(), 1);
        assert_eq!(check(&format!("{whole}\n| `crates/c` | x |")).len(), 1);
        assert_eq!(the_code_map_names_every_crate(&Tree::of(&crates)).len(), 1);
    }

    #[test]
    fn a_readme_without_a_command_is_caught() {
        let whole = README_COMMANDS.join("\n");
        assert_eq!(the_readme_shows_both_commands(&Tree::of(&[("README.md", &whole)])), []);
        let half = [("README.md", README_COMMANDS[0])];
        assert_eq!(the_readme_shows_both_commands(&Tree::of(&half)).len(), 1);
        assert_eq!(the_readme_shows_both_commands(&Tree::of(&[])).len(), 2);
    }
}
