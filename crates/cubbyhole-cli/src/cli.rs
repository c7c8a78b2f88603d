//! The command line: the options of every command, and the list of commands.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PathBufValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::arguments::parse_duration;
use crate::commands;
use crate::logging::LogFormat;
use crate::settings::{Options, Settings};

const EXIT_CODES: &str = "\
A NAMESPACE or PREFIX is written acme:agent-7:chat: a tenant, then its segments. A `:` inside a
name is written `\\:`, a `\\` is written `\\\\`.

Exit codes: 0 done · 1 not found · 2 wrong usage · 3 conflict · 4 past the deadline
            5 unavailable or no such store · 6 anything else
            129 SIGHUP · 130 Ctrl-C · 143 SIGTERM

Example: cubbyhole demo";

/// Cubbyhole: a namespaced key/value store for many tenants.
#[derive(Debug, Parser)]
#[command(name = "cubbyhole", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
    /// The command's name, as it was written.
    #[arg(skip)]
    pub(crate) name: String,
}

impl Cli {
    /// Reads the command line. A value of `put` may begin with `-`, but what looks like an option
    /// is more likely a mistyped one: that is stored only if it stands after `--`.
    pub(crate) fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(arguments)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.name = matches.subcommand_name().unwrap_or_default().to_owned();
        // Not clap's own: it sees no conflict of one before the command with one after it.
        if cli.globals.names_of_the_store() > 1 {
            let message =
                "--store, --store-file and --profile each name the store: keep one of them";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
        }
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
            let name = cli.name;
            return Self::from_arg_matches(&matches).map(|cli| Self { name, ..cli });
        }
        Ok(cli)
    }
}

/// What every command takes, before or after its name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// The store: redb:PATH, postgres://…, redis://…, redis+cluster://… or memory: [default: the profile of --profile, else $CUBBYHOLE_STORE, else the profile of $CUBBYHOLE_PROFILE or default_profile, else redb:cubbyhole.redb]
    // Not clap's `env`: its help and its errors would show a password in the variable.
    #[arg(long, global = true, value_name = "URL")]
    store: Option<String>,
    /// The store in this file, for a path that would need percent-encoding in a URL
    #[arg(long, global = true, value_name = "PATH", value_parser = PathBufValueParser::new())]
    store_file: Option<PathBuf>,
    /// The store of this profile in the configuration file; wins over $CUBBYHOLE_STORE
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    /// The configuration file [default: $CUBBYHOLE_CONFIG, else cubbyhole/config.toml in the platform's usual place; `cubbyhole config show` tells it]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Give up after this long: 500ms, 30s, 5m [default: the profile's, else never]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// One exact JSON object a line on stdout, and errors as JSON on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Tell on stderr what is done; -vv tells more, -vvv everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// How -v tells it [default: text, and json with --json]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

impl Globals {
    /// What the options say, to be asked together with the environment and the file.
    pub(crate) fn settings(&self) -> Settings {
        Settings::new(Options {
            store: self.store.clone(),
            store_file: self.store_file.clone(),
            profile: self.profile.clone(),
            config: self.config.clone(),
            timeout: self.timeout,
        })
    }

    /// How many options name the store.
    fn names_of_the_store(&self) -> usize {
        let named = [self.store.is_some(), self.store_file.is_some(), self.profile.is_some()];
        named.into_iter().filter(|named| *named).count()
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
    Copy(commands::copy::Copy),
    Migrate(commands::migrate::Migrate),
    Doctor(commands::doctor::Doctor),
    Compact(commands::compact::Compact),
    Demo(commands::demo::Demo),
    Completions(commands::completions::Completions),
    Man(commands::man::Man),
    Config(commands::config::Config),
    CompleteWords(commands::complete_words::CompleteWords),
}

impl Command {
    /// Whether it waits for a person in between, or goes on for ever: it then gives each of its steps
    /// the timeout.
    pub(crate) fn counts_its_own_time(&self) -> bool {
        match self {
            Self::Edit(_) => true,
            Self::Evict(evict) => evict.counts_its_own_time(),
            _ => false,
        }
    }

    /// Whether it works on a store: one that does not asks for no password.
    pub(crate) fn needs_store(&self) -> bool {
        !matches!(
            self,
            Self::Completions(_) | Self::CompleteWords(_) | Self::Man(_) | Self::Config(_)
        )
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
            | Self::Copy(_)
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
            | Self::Man(_)
            | Self::Config(_) => false,
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
