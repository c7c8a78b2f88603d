//! `cargo xtask bench`: the benchmarks, which are a workspace of their own.

use std::env;
use std::process::Command;

use crate::process::{cargo, run as run_command};

/// Where the benchmarks are.
pub(crate) const MANIFEST: &str = "bench/Cargo.toml";

/// Runs the benchmarks; `arguments` are theirs.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let mut command = cargo_in_bench("run");
    run_command(command.args(["--release", "--"]).args(arguments))
}

/// A cargo command on the workspace of the benchmarks. It builds into the folder of the product,
/// so that what both depend on is compiled once.
pub(crate) fn cargo_in_bench(subcommand: &str) -> Command {
    let mut command = cargo([subcommand, "--locked", "--manifest-path", MANIFEST]);
    if env::var_os("CARGO_TARGET_DIR").is_none() {
        command.args(["--target-dir", "target"]);
    }
    command
}
