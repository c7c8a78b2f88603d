//! `completions`: writes a completion script for a shell.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::error::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
In bash, zsh and fish, the script calls `cubbyhole`, which must be on the PATH, to complete the
names of namespaces and keys from the store. The store is the one of the command line, or the
default one. No names are completed if the store takes longer than a second or another process has
the file open.

Examples:
  cubbyhole completions bash > ~/.local/share/bash-completion/completions/cubbyhole
  cubbyhole completions zsh > ~/.zfunc/_cubbyhole     # with `fpath+=~/.zfunc` before compinit
  cubbyhole completions fish > ~/.config/fish/completions/cubbyhole.fish";

/// Write a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// Shell
    shell: Shell,
}

impl Completions {
    /// `tool` is the definition of the whole command line.
    pub(crate) fn run(self, tool: &Command, session: &mut Session) -> Result<(), Failure> {
        let script = match self.shell {
            Shell::Bash => include_str!("completions/cubbyhole.bash"),
            Shell::Zsh => include_str!("completions/cubbyhole.zsh"),
            Shell::Fish => include_str!("completions/cubbyhole.fish"),
            // Completes commands and options only.
            other => return generated(other, tool, session),
        };
        session.out.raw(script.as_bytes())
    }
}

fn generated(shell: Shell, tool: &Command, session: &mut Session) -> Result<(), Failure> {
    // Into memory, because clap_complete panics on a closed pipe.
    let mut script = Vec::new();
    // clap_complete would include hidden commands.
    let shown = tool.get_subcommands().filter(|command| !command.is_hide_set());
    let mut shown = Command::new("cubbyhole").args(tool.get_arguments()).subcommands(shown);
    clap_complete::generate(shell, &mut shown, "cubbyhole", &mut script);
    session.out.raw(&script)
}
