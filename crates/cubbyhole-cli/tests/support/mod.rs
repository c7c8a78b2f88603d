//! Running the tool.

use std::error::Error;
use std::process::{Command, Output, Stdio};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Runs the tool.
pub(crate) fn tool(arguments: &[&str]) -> Outcome<Output> {
    Ok(Command::new(env!("CARGO_BIN_EXE_cubbyhole"))
        .args(arguments)
        .env_remove("CUBBYHOLE_STORE")
        .env_remove("CUBBYHOLE_PROFILE")
        .env_remove("CUBBYHOLE_CONFIG")
        // Where a developer's own configuration is not.
        .env("XDG_CONFIG_HOME", env!("CARGO_TARGET_TMPDIR"))
        .env("APPDATA", env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null())
        .output()?)
}
