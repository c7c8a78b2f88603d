//! `completions`: a script that teaches a shell the command line.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::error::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
In bash, zsh and fish the script asks the tool, which completes namespaces and keys from the store:
that of --store in the line, else $CUBBYHOLE_STORE, else redb:cubbyhole.redb. It gives up after a
second, or at once if another process has the file. The tool must be on your PATH.

Examples:
  cubbyhole completions bash > ~/.local/share/bash-completion/completions/cubbyhole
  cubbyhole completions zsh > ~/.zfunc/_cubbyhole     # with `fpath+=~/.zfunc` before compinit
  cubbyhole completions fish > ~/.config/fish/completions/cubbyhole.fish";

/// Write a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    /// `tool` is the definition of the whole command line.
    pub(crate) fn run(self, tool: &Command, session: &mut Session) -> Result<(), Failure> {
        let script = match self.shell {
            Shell::Bash => include_str!("completions/cubbyhole.bash"),
            Shell::Zsh => include_str!("completions/cubbyhole.zsh"),
            Shell::Fish => include_str!("completions/cubbyhole.fish"),
            // Commands and options alone.
            other => return generated(other, tool, session),
        };
        session.out.raw(script.as_bytes())
    }
}

fn generated(shell: Shell, tool: &Command, session: &mut Session) -> Result<(), Failure> {
    // Through memory: clap_complete panics on a closed pipe.
    let mut script = Vec::new();
    // It would offer hidden commands too.
    let shown = tool.get_subcommands().filter(|command| !command.is_hide_set());
    let mut shown = Command::new("cubbyhole").args(tool.get_arguments()).subcommands(shown);
    clap_complete::generate(shell, &mut shown, "cubbyhole", &mut script);
    session.out.raw(&script)
}
