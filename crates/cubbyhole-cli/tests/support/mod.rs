//! Running the tool.

use std::error::Error;
use std::process::{Command, Output, Stdio};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Runs the tool.
pub(crate) fn tool(arguments: &[&str]) -> Outcome<Output> {
    tool_with(arguments, &[])
}

/// Runs the tool with more variables in its environment.
pub(crate) fn tool_with(arguments: &[&str], variables: &[(&str, &str)]) -> Outcome<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cubbyhole"));
    // libpq's variables name servers of the developer's.
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG"))
    {
        command.env_remove(name);
    }
    Ok(command
        .args(arguments)
        .envs(variables.iter().copied())
        .env_remove("CUBBYHOLE_STORE")
        .env_remove("CUBBYHOLE_PROFILE")
        .env_remove("CUBBYHOLE_CONFIG")
        // Where a developer's own configuration is not.
        .env("XDG_CONFIG_HOME", env!("CARGO_TARGET_TMPDIR"))
        .env("APPDATA", env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null())
        .output()?)
}
