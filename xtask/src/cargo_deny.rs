//! cargo-deny, which checks the licences, sources and bans of dependencies. The developer's own is used if
//! its version is compatible. Otherwise one is installed into the target folder and kept there.

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::process::{cargo, output, root, target_folder};

/// The version to install.
const VERSION: &str = "0.20.2";

/// The prefix of compatible versions. Others may read `deny.toml` differently.
const COMPATIBLE: &str = "cargo-deny 0.20.";

/// An installed cargo-deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CargoDeny {
    /// The one that cargo finds, on `PATH` or in its own folder of programs.
    Developers,
    /// The one in the target folder.
    Installed,
}

impl CargoDeny {
    /// Finds cargo-deny or installs it. The installation takes a minute or more and prints nothing.
    pub(crate) fn find_or_install() -> Result<Self, String> {
        let found = [Self::Developers, Self::Installed].into_iter().find(|it| it.is_compatible());
        found.map_or_else(install, Ok)
    }

    /// Returns a command that runs cargo-deny at the root of the repository.
    pub(crate) fn command<'a>(self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = match self {
            Self::Developers => cargo(["deny"]),
            Self::Installed => Command::new(installed()),
        };
        command.args(arguments).current_dir(root());
        command
    }

    fn is_compatible(self) -> bool {
        let version = output(&mut self.command(["--version"]));
        version.is_ok_and(|version| version.starts_with(COMPATIBLE))
    }
}

fn folder() -> PathBuf {
    target_folder().join("tools")
}

fn installed() -> PathBuf {
    folder().join("bin").join(format!("cargo-deny{EXE_SUFFIX}"))
}

fn install() -> Result<CargoDeny, String> {
    let build = folder().join("build");
    let mut command = cargo(["install", "cargo-deny", "--version", VERSION, "--locked", "--force"]);
    // An optimised build takes several times as long, and saves at most seconds in a check.
    command.arg("--debug").env("CARGO_PROFILE_DEV_DEBUG", "0");
    command.arg("--root").arg(folder()).arg("--target-dir").arg(&build);
    output(&mut command).map_err(|error| {
        format!(
            "cargo-deny cannot be installed: {error}\n\
             install it yourself: cargo install cargo-deny --locked --version {VERSION}"
        )
    })?;
    // Hundreds of megabytes that are not needed after the installation.
    let _ = fs::remove_dir_all(build);
    Ok(CargoDeny::Installed)
}
