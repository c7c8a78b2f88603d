//! The integrations with other libraries, a separate workspace.

use std::process::Command;

use crate::process::{cargo, cargo_apart};

/// The manifest of the workspace.
pub(crate) const MANIFEST: &str = "integrations/Cargo.toml";

/// Checks the format of every crate of the workspace.
pub(crate) fn format() -> Command {
    // Includes the crates of the main workspace on which these depend.
    cargo(["fmt", "--all", "--manifest-path", MANIFEST, "--check"])
}

/// The lints of every crate, its tests and its examples.
pub(crate) fn clippy() -> Command {
    let mut command = cargo_apart("clippy", MANIFEST);
    command.args(["--workspace", "--all-targets", "--", "-D", "warnings"]);
    command
}

/// The tests, doc tests included. They need the servers of the other tests.
pub(crate) fn tests() -> Command {
    let mut command = cargo_apart("test", MANIFEST);
    command.args(["--workspace", "--no-fail-fast"]);
    command
}

/// The documentation, of which a warning is an error.
pub(crate) fn docs() -> Command {
    let mut command = cargo_apart("doc", MANIFEST);
    command.args(["--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    command
}
