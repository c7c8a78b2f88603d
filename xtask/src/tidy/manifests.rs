//! `Cargo.toml` files, read line by line: they are simple enough to need no TOML parser.

use std::path::Path;

use super::tree::{Finding, Tree};

/// The manifests of workspaces with several crates, which inherit their dependencies.
const WORKSPACE_MANIFESTS: [&str; 2] = ["Cargo.toml", "integrations/Cargo.toml"];

/// Separate workspaces of one crate.
const OTHER_MANIFESTS: [&str; 2] = ["bench/Cargo.toml", "fuzz/Cargo.toml"];

/// `key = value` in a TOML file.
pub(super) struct Entry<'a> {
    pub(super) section: &'a str,
    key: &'a str,
    /// Includes the lines of an array.
    value: String,
    line: usize,
    /// The line before the entry.
    above: &'a str,
}

impl Entry<'_> {
    pub(super) fn is(&self, key: &str, value: &str) -> bool {
        self.key == key && self.value == value
    }

    fn is_dependency(&self) -> bool {
        self.section == "workspace.dependencies" || self.is_dependency_of_a_crate()
    }

    fn is_dependency_of_a_crate(&self) -> bool {
        let kind = match self.section.strip_prefix("target.") {
            Some(target) => target.rsplit_once('.').map_or(target, |(_, kind)| kind),
            None => self.section,
        };
        matches!(kind, "dependencies" | "dev-dependencies" | "build-dependencies")
    }

    /// Returns whether this is a development dependency with a path and no version. Publishing drops
    /// it, so it may point to a crate that depends on this one.
    fn is_dropped_when_published(&self) -> bool {
        self.section == "dev-dependencies"
            && self.value.contains("path =")
            && !self.value.contains("version =")
    }

    fn is_inherited(&self) -> bool {
        self.key.ends_with(".workspace") && self.value == "true"
            || self.value.contains("workspace = true")
    }
}

pub(super) fn entries(manifest: &str) -> impl Iterator<Item = Entry<'_>> {
    let mut section = "";
    let mut above = "";
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut is_open = false;
    for (index, line) in manifest.lines().map(str::trim).enumerate() {
        if is_open {
            if let Some(entry) = entries.last_mut() {
                entry.value += line;
                is_open = is_unfinished(&entry.value);
            }
        } else if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').trim_start_matches('[');
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            let value = value.trim().to_owned();
            is_open = is_unfinished(&value);
            entries.push(Entry { section, key: key.trim(), value, line: index + 1, above });
        }
        above = line;
    }
    entries.into_iter()
}

/// Returns whether an array or a table continues on the next line.
fn is_unfinished(value: &str) -> bool {
    let open = value.matches(['[', '{']).count();
    open > value.matches([']', '}']).count()
}

fn manifests(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.iter().filter(|(path, _)| Path::new(path).file_name().is_some_and(|n| n == "Cargo.toml"))
}

/// Checks that a comment above each dependency of the workspace gives its reason. Crates of this
/// repository need none.
pub(super) fn check_dependency_reasons(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in WORKSPACE_MANIFESTS.into_iter().chain(OTHER_MANIFESTS) {
        let entries = entries(tree.get(path).unwrap_or_default());
        for entry in entries.filter(Entry::is_dependency) {
            if !entry.above.starts_with('#') && !entry.value.contains("path =") {
                let message = format!("`{}` needs a comment above it with its reason", entry.key);
                findings.push(Finding::at(path, entry.line, message));
            }
        }
    }
    findings
}

/// Checks that every crate inherits its dependencies from the workspace.
pub(super) fn check_version_places(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, manifest) in manifests(tree).filter(|(path, _)| !OTHER_MANIFESTS.contains(path)) {
        let own = entries(manifest).filter(Entry::is_dependency_of_a_crate);
        let allowed = |entry: &Entry<'_>| entry.is_inherited() || entry.is_dropped_when_published();
        for entry in own.filter(|entry| !allowed(entry)) {
            let message = format!("`{}` must have `workspace = true`", entry.key);
            findings.push(Finding::at(path, entry.line, message));
        }
        // The check above does not see `[dependencies.name]`.
        let tables = manifest.lines().enumerate().filter(|(_, line)| {
            line.starts_with('[') && line.contains("dependencies.") && !line.contains("target.")
        });
        findings.extend(tables.map(|(index, _)| {
            Finding::at(path, index + 1, "write the dependency as one line of its section")
        }));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependency_without_a_reason_is_found() {
        let manifest = "[workspace.dependencies]\n\
             ours = { path = \"crates/ours\" }\n\
             # Because.\n\
             a = \"1\"\n\
             b = { version = \"1\", features = [\n  \"x\",\n] }\n\
             [profile.release]\n\
             lto = \"thin\"\n";
        for path in WORKSPACE_MANIFESTS {
            let findings = check_dependency_reasons(&Tree::of(&[(path, manifest)]));
            assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [Some(5)]);
        }

        for path in OTHER_MANIFESTS {
            let good = "[dependencies]\n\n# For speed.\na = \"1\"\n";
            assert_eq!(check_dependency_reasons(&Tree::of(&[(path, good)])), []);
            let bad = "[dependencies]\n\na = \"1\"\n";
            assert_eq!(check_dependency_reasons(&Tree::of(&[(path, bad)])).len(), 1);
        }
    }

    #[test]
    fn version_outside_the_workspace_is_found() {
        let check = |manifest: &str| {
            let tree = Tree::of(&[("crates/a/Cargo.toml", manifest)]);
            check_version_places(&tree).len()
        };
        assert_eq!(
            check(
                "[package]\nversion = \"1\"\n[dependencies]\na.workspace = true\n\
                 b = { workspace = true, features = [\n\"c\",\n] }\n[features]\nc = []\n"
            ),
            0
        );
        assert_eq!(check("[dev-dependencies]\na = \"1\"\n"), 1);
        assert_eq!(check("[dev-dependencies]\na = { path = \"../a\" }\n"), 0);
        assert_eq!(check("[dev-dependencies]\na = { path = \"../a\", version = \"1\" }\n"), 1);
        assert_eq!(check("[dependencies]\na = { path = \"../a\" }\n"), 1);
        assert_eq!(check("[target.'cfg(unix)'.dependencies]\na = \"1\"\n"), 1);
        assert_eq!(check("[dependencies.a]\nversion = \"1\"\n"), 1);
        for path in OTHER_MANIFESTS {
            let own = Tree::of(&[(path, "[dependencies]\na = \"1\"\n")]);
            assert_eq!(check_version_places(&own), []);
        }
    }
}
