//! `cargo xtask soak`: all backends under mixed load for a given time, on private servers.

use crate::process::{cargo, run as run_command};
use crate::services::Services;

/// Starts the servers and runs the soak test in a release build, with `arguments`.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let mut command = cargo(["run", "--release", "--locked", "--package", "cubbyhole-soak", "--"]);
    command.args(arguments);
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        return run_command(&mut command);
    }
    let services = Services::start()?;
    run_command(command.envs(services.environment()))
}
