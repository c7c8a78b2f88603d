//! Running the tool.

use std::error::Error;
use std::process::{Command, Output, Stdio};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Runs the tool.
pub(crate) fn tool(arguments: &[&str]) -> Outcome<Output> {
    Ok(Command::new(env!("CARGO_BIN_EXE_cubbyhole"))
        .args(arguments)
        .env_remove("CUBBYHOLE_STORE")
        .stdin(Stdio::null())
        .output()?)
}
