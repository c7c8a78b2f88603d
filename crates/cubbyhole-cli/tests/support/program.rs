//! The tool, apart from the developer's own settings.

use std::path::Path;
use std::process::Command;

/// The tool, as a command to which arguments can be added. Where the tests were started in the
/// background of a script, the shell has some signals ignored, and the tool leaves those alone; here
/// they have their usual effect.
pub(crate) fn tool() -> Command {
    let tool = env!("CARGO_BIN_EXE_cubbyhole");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0");
    // SIGHUP, SIGINT and SIGTERM.
    let ours = 1 | 1 << 1 | 1 << 14;
    if u64::from_str_radix(ignored.trim(), 16).unwrap_or(0) & ours == 0 {
        return Command::new(tool);
    }
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,TERM", tool]);
    command
}

/// Keeps the developer's store, configuration and PostgreSQL server from the command. Its own
/// configuration is in `config_folder`.
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
