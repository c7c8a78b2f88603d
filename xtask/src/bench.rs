//! `cargo xtask bench`: the benchmarks, a separate workspace.

use crate::process::{cargo_apart, run as run_command};

/// The manifest of the benchmarks.
pub(crate) const MANIFEST: &str = "bench/Cargo.toml";

/// Runs the benchmarks with `arguments`.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let mut command = cargo_apart("run", MANIFEST);
    run_command(command.args(["--release", "--"]).args(arguments))
}
