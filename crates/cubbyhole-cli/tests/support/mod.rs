//! Runs the tool.

pub(crate) mod program;

use std::error::Error;
use std::path::Path;
use std::process::{Output, Stdio};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Runs the tool.
pub(crate) fn tool(arguments: &[&str]) -> Outcome<Output> {
    tool_with(arguments, &[])
}

/// Runs the tool with more variables in its environment.
pub(crate) fn tool_with(arguments: &[&str], variables: &[(&str, &str)]) -> Outcome<Output> {
    let mut command = program::tool();
    program::isolate(&mut command, Path::new(env!("CARGO_TARGET_TMPDIR")));
    Ok(command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).output()?)
}
