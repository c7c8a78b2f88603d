//! Whether the container file still fits the repository. Nothing here builds the image: that asks for
//! a container engine.

use super::manifests::entries;
use super::{Finding, Tree};

const CONTAINER: &str = "Containerfile";
const IGNORE: &str = ".dockerignore";

/// Where the tool's crate is, and what its executable is called.
const TOOL: &str = "cubbyhole-cli";
const EXECUTABLE: &str = "cubbyhole";

/// What the build needs is copied, is there and is not ignored; the package, its executable and the
/// oldest compiler are those of the manifests.
pub(super) fn the_container_file_names_what_is_there(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.get(CONTAINER) else {
        return vec![Finding::in_file(CONTAINER, "the file is missing")];
    };
    let copied = copied(text);
    let mut wrong = Vec::new();
    for path in &copied {
        let folder = format!("{path}/");
        if tree.get(path).is_none() && !tree.iter().any(|(there, _)| there.starts_with(&folder)) {
            wrong.push(format!("`{path}` is copied and does not exist"));
        }
        let let_through = format!("!{path}");
        if !tree.get(IGNORE).unwrap_or_default().lines().any(|line| line == let_through) {
            wrong.push(format!("`{path}` is copied, and {IGNORE} lacks `{let_through}`"));
        }
    }
    let manifest = tree.get("Cargo.toml").unwrap_or_default();
    for needed in members(manifest).into_iter().chain(["Cargo.toml", "Cargo.lock"]) {
        if !copied.contains(&needed) {
            wrong.push(format!("`{needed}` is needed for the build and not copied"));
        }
    }
    if !text.contains(&format!("--locked -p {TOOL} ")) {
        wrong.push(format!("does not build `{TOOL}` by the lock file"));
    }
    let tool = tree.get(&format!("crates/{TOOL}/Cargo.toml")).unwrap_or_default();
    let is_executable = entries(tool)
        .any(|entry| entry.section == "bin" && entry.is("name", &format!("\"{EXECUTABLE}\"")));
    if !is_executable {
        wrong.push(format!("`crates/{TOOL}` has no executable `{EXECUTABLE}`"));
    }
    for named in [format!("target/release/{EXECUTABLE} "), format!("ENTRYPOINT [\"{EXECUTABLE}\"]")]
    {
        if !text.contains(&named) {
            wrong.push(format!("lacks `{named}`"));
        }
    }
    let oldest = value(manifest, "rust-version").unwrap_or_default();
    if !text.contains(&format!("# {oldest} or later")) {
        wrong.push(format!("does not say that the compiler is {oldest} or later"));
    }
    if compiler(text).is_none_or(|compiler| is_older(compiler, oldest)) {
        wrong.push(format!("the compiler's image is not one of Rust {oldest} or later"));
    }
    wrong.into_iter().map(|message| Finding::in_file(CONTAINER, message)).collect()
}

/// What is copied from the repository, and not from another stage.
fn copied(text: &str) -> Vec<&str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("COPY "));
    let lines = lines.filter(|line| !line.starts_with("--from="));
    let mut paths = Vec::new();
    for line in lines {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        words.pop();
        paths.append(&mut words);
    }
    paths
}

/// The folders of the members: `crates` for `crates/*`.
fn members(manifest: &str) -> Vec<&str> {
    let line = manifest.lines().find_map(|line| line.strip_prefix("members = [")).unwrap_or("");
    let names = line.split('"').skip(1).step_by(2);
    names.map(|name| name.trim_end_matches("/*")).collect()
}

fn value<'a>(manifest: &'a str, key: &str) -> Option<&'a str> {
    let line = manifest.lines().find(|line| line.starts_with(&format!("{key} = \"")))?;
    line.split('"').nth(1)
}

/// The version in `FROM rust:1.95-slim`.
fn compiler(text: &str) -> Option<&str> {
    let image = text.lines().find_map(|line| line.strip_prefix("FROM rust:"))?;
    image.split(['-', ' ']).next()
}

/// A part that is not named means the newest: `1` is no older than `1.90`.
fn is_older(version: &str, than: &str) -> bool {
    let parts = |text: &str| -> Vec<u32> { text.split('.').flat_map(str::parse).collect() };
    let (version, than) = (parts(version), parts(than));
    version.is_empty() || version < than[..version.len().min(than.len())].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# 1.90 or later\nFROM rust:1-slim AS build\nCOPY Cargo.toml Cargo.lock ./\n\
        COPY crates crates\nCOPY xtask xtask\nRUN cargo build --locked -p cubbyhole-cli \\\n\
        && install target/release/cubbyhole /x\nFROM debian\nCOPY --from=build /x /x\n\
        ENTRYPOINT [\"cubbyhole\"]\n";

    fn findings(container: &str, ignore: &str) -> Vec<String> {
        let tree = Tree::of(&[
            (CONTAINER, container),
            (IGNORE, ignore),
            ("Cargo.lock", ""),
            ("Cargo.toml", "members = [\"crates/*\", \"xtask\"]\nrust-version = \"1.90\"\n"),
            ("crates/cubbyhole-cli/Cargo.toml", "[[bin]]\nname = \"cubbyhole\"\n"),
            ("xtask/Cargo.toml", ""),
        ]);
        let findings = the_container_file_names_what_is_there(&tree);
        findings.into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_container_file_that_lags_behind_is_caught() {
        const IGNORED: &str = "*\n!Cargo.toml\n!Cargo.lock\n!crates\n!xtask\n";
        assert_eq!(findings(GOOD, IGNORED), Vec::<String>::new());
        for (from, to, count) in [
            ("COPY xtask xtask\n", "", 1),
            ("COPY xtask", "COPY tools xtask", 2),
            ("-p cubbyhole-cli", "-p cubbyhole-tool", 1),
            ("release/cubbyhole ", "release/tool ", 1),
            ("[\"cubbyhole\"]", "[\"tool\"]", 1),
            ("# 1.90", "# 1.80", 1),
            ("rust:1-slim", "rust:1.89-slim", 1),
            ("rust:1-slim", "rust:1.95.1-slim", 0),
            ("FROM rust:1-slim AS build\n", "", 1),
        ] {
            let found = findings(&GOOD.replace(from, to), IGNORED);
            assert_eq!(found.len(), count, "{from} -> {to}: {found:?}");
        }
        assert_eq!(findings(GOOD, &IGNORED.replace("!xtask\n", "")).len(), 1);
        assert_eq!(the_container_file_names_what_is_there(&Tree::of(&[])).len(), 1);
    }
}
