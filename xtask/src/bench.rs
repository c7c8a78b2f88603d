//! `cargo xtask bench`: the benchmarks, which are a workspace of their own.

use crate::process::{cargo_apart, run as run_command};

/// Where the benchmarks are.
pub(crate) const MANIFEST: &str = "bench/Cargo.toml";

/// Runs the benchmarks; `arguments` are theirs.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let mut command = cargo_apart("run", MANIFEST);
    run_command(command.args(["--release", "--"]).args(arguments))
}
