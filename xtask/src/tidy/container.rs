//! Whether the `Containerfile` fits the repository. This check does not build the image, because
//! that needs a container engine.

use super::manifests::entries;
use super::tree::{Finding, Tree};

const CONTAINER: &str = "Containerfile";
const IGNORE: &str = ".dockerignore";

/// The crate of the tool, and the name of its executable.
const TOOL: &str = "cubbyhole-cli";
const EXECUTABLE: &str = "cubbyhole";

/// Checks that the files of the build exist, are copied and are not ignored, and that the package,
/// its executable and the oldest compiler are those of the manifests.
pub(super) fn check_containerfile(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.get(CONTAINER) else {
        return vec![Finding::in_file(CONTAINER, "the file is missing")];
    };
    let copied = copied(text);
    let mut wrong = Vec::new();
    for path in &copied {
        if !tree.has(path) {
            wrong.push(format!("`{path}` is copied but does not exist"));
        }
        let included = format!("!{path}");
        if !tree.get(IGNORE).unwrap_or_default().lines().any(|line| line == included) {
            wrong.push(format!("`{path}` is copied, but {IGNORE} has no line `{included}`"));
        }
    }
    let manifest = tree.get("Cargo.toml").unwrap_or_default();
    for needed in members(manifest).into_iter().chain(["Cargo.toml", "Cargo.lock"]) {
        if !copied.contains(&needed) {
            wrong.push(format!("`{needed}` is needed for the build but not copied"));
        }
    }
    if !text.contains(&format!("--locked -p {TOOL} ")) {
        wrong.push(format!("the build of `{TOOL}` needs `--locked`"));
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
            wrong.push(format!("`{named}` is missing"));
        }
    }
    let oldest = value(manifest, "rust-version").unwrap_or_default();
    if !text.contains(&format!("# {oldest} or later")) {
        wrong.push(format!("the comment `# {oldest} or later` about the compiler is missing"));
    }
    if compiler(text).is_none_or(|compiler| is_older(compiler, oldest)) {
        wrong.push(format!("the image of the compiler must have Rust {oldest} or later"));
    }
    wrong.into_iter().map(|message| Finding::in_file(CONTAINER, message)).collect()
}

/// Returns the paths that are copied from the repository rather than from another stage.
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

/// Returns the folders of the workspace members: `crates` for `crates/*`.
fn members(manifest: &str) -> Vec<&str> {
    let line = manifest.lines().find_map(|line| line.strip_prefix("members = [")).unwrap_or("");
    let names = line.split('"').skip(1).step_by(2);
    names.map(|name| name.trim_end_matches("/*")).collect()
}

fn value<'a>(manifest: &'a str, key: &str) -> Option<&'a str> {
    let line = manifest.lines().find(|line| line.starts_with(&format!("{key} = \"")))?;
    line.split('"').nth(1)
}

/// Returns the version in `FROM rust:1.95-slim`.
fn compiler(text: &str) -> Option<&str> {
    let image = text.lines().find_map(|line| line.strip_prefix("FROM rust:"))?;
    image.split(['-', ' ']).next()
}

/// Compares versions. A missing part means the newest, so `1` is not older than `1.90`.
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
        let findings = check_containerfile(&tree);
        findings.into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn containerfile_that_does_not_fit_the_repository_is_found() {
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
        assert_eq!(check_containerfile(&Tree::of(&[])).len(), 1);
    }
}
