//! Runs other programs at the root of the repository.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Returns the root of the repository, the parent folder of this crate.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Returns the folder in which cargo builds and these tasks keep files between runs.
pub(crate) fn target_folder() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Returns a command of the cargo that runs this program, so a `+toolchain` applies to it too.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    // Cargo sets these for this program's own package. Build scripts that read them would run again,
    // with all their dependents, whenever someone runs cargo directly in between.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Returns a cargo command for a separate workspace. It builds into the folder of the main workspace,
/// so shared dependencies are compiled once.
pub(crate) fn cargo_apart(subcommand: &str, manifest: &str) -> Command {
    let mut command = cargo([subcommand, "--locked", "--manifest-path", manifest]);
    if env::var_os("CARGO_TARGET_DIR").is_none() {
        command.args(["--target-dir", "target"]);
    }
    command
}

/// Runs `command` with the stdin, stdout and stderr of this program.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("{}: {error}", line(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{status}: {}", line(command))) }
}

/// Runs `command` and returns its stdout. An error includes its stderr.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{}: {error}", line(command)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}\n{}", output.status, line(command), stderr.trim_end()))
}

/// Formats a command as one would type it. URLs are omitted, because they may contain a password.
pub(crate) fn line(command: &Command) -> String {
    let set = command.get_envs().filter_map(|(name, value)| {
        let (name, value) = (name.to_string_lossy(), value?.to_string_lossy());
        Some(if value.contains("://") {
            format!("{name}=…")
        } else {
            format!("{name}={value:?}")
        })
    });
    let program = Path::new(command.get_program()).file_stem().unwrap_or(command.get_program());
    let program = program.to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    set.chain([program]).chain(arguments).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_is_formatted_without_urls() {
        let mut command = cargo(["doc", "--no-deps"]);
        command.env("RUSTDOCFLAGS", "-D warnings");
        assert!(line(&command).ends_with(" doc --no-deps"), "{}", line(&command));
        assert!(line(&command).starts_with("RUSTDOCFLAGS=\"-D warnings\" "), "{}", line(&command));
        command.env("SERVER", "postgres://user:password@host/state");
        assert!(!line(&command).contains("password"), "{}", line(&command));
    }

    #[test]
    fn failing_and_missing_programs_are_errors() {
        assert!(output(&mut cargo(["--version"])).unwrap().starts_with("cargo "));
        let error = output(&mut cargo(["no-such-subcommand"])).unwrap_err();
        assert!(error.contains("cargo no-such-subcommand\n"), "{error}");
        assert!(error.contains("no such command"), "{error}");
        let error = run(&mut Command::new("no-such-program")).unwrap_err();
        assert!(error.starts_with("no-such-program: "), "{error}");
    }
}
