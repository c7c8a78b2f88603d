//! The tool, isolated from the developer's settings.

use std::path::Path;
use std::process::Command;

/// Returns a command that runs the tool with default signal handling. A shell ignores some signals
/// for background processes, and the tool would keep ignoring them.
pub(crate) fn tool() -> Command {
    let tool = env!("CARGO_BIN_EXE_cubbyhole");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0");
    // SIGHUP, SIGINT and SIGTERM.
    let handled = 1 | 1 << 1 | 1 << 14;
    if u64::from_str_radix(ignored.trim(), 16).unwrap_or(0) & handled == 0 {
        return Command::new(tool);
    }
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,TERM", tool]);
    command
}

/// Removes the developer's store, configuration and PostgreSQL server from the environment of a
/// command. Its configuration is in `config_folder`.
pub(crate) fn isolate<'a>(command: &'a mut Command, config_folder: &Path) -> &'a mut Command {
    for (name, _) in std::env::vars_os() {
        if ["PG", "CUBBYHOLE_"]
            .iter()
            .any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
        {
            command.env_remove(name);
        }
    }
    command
        .env_remove("RUST_BACKTRACE")
        .env("XDG_CONFIG_HOME", config_folder)
        .env("APPDATA", config_folder)
}
