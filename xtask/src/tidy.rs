//! `cargo xtask tidy`: the layout rules that no lint checks, over every file in the repository.
//!
//! - `tree`: the files of the repository, and a finding in one of them
//! - `layout`: crates, backends, the code map, the README's commands
//! - `text`: file sizes, module docs, white space, machine paths
//! - `manifests`, `container`: `Cargo.toml` files and the `Containerfile`
//! - `links`: links between Markdown pages
//! - `reliability`: the tests that docs/reliability.md and `cargo xtask prove` name

mod container;
mod layout;
mod links;
mod manifests;
mod reliability;
mod text;
mod tree;

use crate::process::root;
use tree::{Finding, Tree};

type Rule = fn(&Tree) -> Vec<Finding>;

/// Each rule, by the name that findings print.
const RULES: [(&str, Rule); 14] = [
    ("a crate has the name of its folder", layout::check_crate_names),
    ("every backend has the common files", layout::check_backend_files),
    ("the code map lists every crate", layout::check_code_map),
    ("the README shows both commands", layout::check_readme_commands),
    ("a comment gives the reason of a dependency", manifests::check_dependency_reasons),
    ("dependency versions are in one place", manifests::check_version_places),
    ("the Containerfile fits the repository", container::check_containerfile),
    ("source files are short", text::check_file_sizes),
    ("a source file starts with a module doc", text::check_module_docs),
    ("lines are clean", text::check_white_space),
    ("no path of one machine", text::check_machine_paths),
    ("links lead to a file and a heading", links::check_links),
    ("the tests that reliability.md names exist", reliability::check_test_names),
    ("the filters of `cargo xtask prove` match tests", reliability::check_prove_filters),
];

/// Checks every rule and prints the findings.
pub(crate) fn run() -> Result<(), String> {
    let tree = Tree::read(root())?;
    let mut count = 0;
    for (name, rule) in RULES {
        for finding in rule(&tree) {
            println!("{finding} [{name}]");
            count += 1;
        }
    }
    if count > 0 {
        return Err(format!("tidy: {count} findings, listed above"));
    }
    println!("tidy: {} rules hold over {} files", RULES.len(), tree.len());
    Ok(())
}
