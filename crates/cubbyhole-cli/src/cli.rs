//! The command line: the options of every command, and the list of commands.

use std::ffi::OsString;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::arguments::parse_duration;
use crate::commands;
use crate::error::Failure;
use crate::session::{Origin, StoreChoice, VARIABLE};

const DEFAULT_STORE: &str = "redb:cubbyhole.redb";

const EXIT_CODES: &str = "\
A NAMESPACE or PREFIX is written acme:agent-7:chat: a tenant, then its segments. A `:` inside a
name is written `\\:`, a `\\` is written `\\\\`.

Exit codes: 0 done · 1 not found · 2 wrong usage · 3 conflict · 4 past the deadline
            5 unavailable or no such store · 6 anything else · 130 Ctrl-C · 143 SIGTERM

Example: cubbyhole demo";

/// Cubbyhole: a namespaced key/value store for many tenants.
#[derive(Debug, Parser)]
#[command(name = "cubbyhole", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads the command line. A value of `put` may begin with `-`, but what looks like an option
    /// is more likely a mistyped one: that is stored only if it stands after `--`.
    pub(crate) fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let cli = Self::try_parse_from(arguments)?;
        if matches!(&cli.command, Command::Put(put) if put.value_looks_like_an_option()) {
            let strict = Self::command().mut_subcommand("put", |put| {
                put.mut_arg("value", |value| value.allow_hyphen_values(false))
            });
            let refused = |mut error: clap::Error| {
                let tip = "to store it as the value, write it after `--`, as in `-- --text`";
                let tips = ContextValue::StyledStrs(vec![tip.into()]);
                error.insert(ContextKind::Suggested, tips);
                error
            };
            let matches = strict.try_get_matches_from(arguments).map_err(refused)?;
            return Self::from_arg_matches(&matches);
        }
        Ok(cli)
    }
}

/// What every command takes, before or after its name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// The store: redb:PATH, postgres://…, redis://…, redis+cluster://… or memory: [default: $CUBBYHOLE_STORE, else redb:cubbyhole.redb]
    // Not clap's `env`: its help and its errors would show a password in the variable.
    #[arg(long, global = true, value_name = "URL")]
    store: Option<String>,
    /// Give up after this long: 500ms, 30s, 5m
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// One exact JSON object a line on stdout, and errors as JSON on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Globals {
    /// The store that was chosen: by option, by environment, or by default.
    pub(crate) fn store(&self) -> Result<StoreChoice, Failure> {
        if let Some(url) = &self.store {
            return Ok(StoreChoice { url: url.clone(), origin: Origin::Option });
        }
        match std::env::var_os(VARIABLE) {
            Some(value) if !value.is_empty() => match value.into_string() {
                Ok(url) => Ok(StoreChoice { url, origin: Origin::Environment }),
                Err(_) => Err(Failure::Usage(format!("{VARIABLE} is not UTF-8"))),
            },
            _ => Ok(StoreChoice { url: DEFAULT_STORE.to_owned(), origin: Origin::Default }),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Put(commands::put::Put),
    Get(commands::get::Get),
    Edit(commands::edit::Edit),
    Take(commands::take::Take),
    Delete(commands::delete::Delete),
    Touch(commands::touch::Touch),
    List(commands::list::List),
    Tenants(commands::tenants::Tenants),
    Namespaces(commands::namespaces::Namespaces),
    Usage(commands::usage::Usage),
    Erase(commands::erase::Erase),
    Evict(commands::evict::Evict),
    Export(commands::export::Export),
    Import(commands::import::Import),
    Migrate(commands::migrate::Migrate),
    Doctor(commands::doctor::Doctor),
    Compact(commands::compact::Compact),
    Demo(commands::demo::Demo),
    Completions(commands::completions::Completions),
    Man(commands::man::Man),
    CompleteWords(commands::complete_words::CompleteWords),
}

impl Command {
    /// Whether it waits for a person in between: it then gives each of its steps the timeout.
    pub(crate) fn counts_its_own_time(&self) -> bool {
        matches!(self, Self::Edit(_))
    }

    /// Whether it changes the store: one that was given up may then have been done.
    pub(crate) fn writes(&self) -> bool {
        match self {
            Self::Put(_)
            | Self::Edit(_)
            | Self::Take(_)
            | Self::Delete(_)
            | Self::Touch(_)
            | Self::Erase(_)
            | Self::Evict(_)
            | Self::Import(_)
            | Self::Migrate(_)
            | Self::Compact(_)
            | Self::Demo(_) => true,
            Self::Get(_)
            | Self::List(_)
            | Self::Tenants(_)
            | Self::Namespaces(_)
            | Self::Usage(_)
            | Self::Export(_)
            | Self::Doctor(_)
            | Self::Completions(_)
            | Self::CompleteWords(_)
            | Self::Man(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_command_shows_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{}", command.get_name());
            assert!(help.contains(&format!("cubbyhole {}", command.get_name())), "{help}");
        }
    }
}
