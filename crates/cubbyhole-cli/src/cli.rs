//! The command line: the options of every command, and the list of commands.

use std::ffi::OsString;
use std::future::{Future, ready};
use std::pin::Pin;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use cubbyhole::Error;

use crate::args::globals::Globals;
use crate::commands;
use crate::error::Failure;
use crate::session::Session;

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

/// Runs one command and closes what it opened.
pub(crate) async fn run(command: Command, session: &mut Session) -> Result<(), Failure> {
    // Each in a box of its own: together they would take room for the largest of them, twice where
    // a command runs others, and overflow the stack of a thread.
    let command: Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + '_>> = match command {
        Command::Put(put) => Box::pin(put.run(session)),
        Command::Get(get) => Box::pin(get.run(session)),
        Command::Edit(edit) => Box::pin(edit.run(session)),
        Command::Take(take) => Box::pin(take.run(session)),
        Command::Delete(delete) => Box::pin(delete.run(session)),
        Command::Touch(touch) => Box::pin(touch.run(session)),
        Command::List(list) => Box::pin(list.run(session)),
        Command::Tenants(tenants) => Box::pin(tenants.run(session)),
        Command::Namespaces(namespaces) => Box::pin(namespaces.run(session)),
        Command::Usage(usage) => Box::pin(usage.run(session)),
        Command::Erase(erase) => Box::pin(erase.run(session)),
        Command::Evict(evict) => Box::pin(evict.run(session)),
        Command::Export(export) => Box::pin(export.run(session)),
        Command::Import(import) => Box::pin(import.run(session)),
        Command::Copy(copy) => Box::pin(copy.run(session)),
        Command::Migrate(migrate) => Box::pin(migrate.run(session)),
        Command::Doctor(doctor) => Box::pin(doctor.run(session)),
        Command::Compact(compact) => Box::pin(compact.run(session)),
        Command::Demo(demo) => Box::pin(demo.run(session, run_line)),
        Command::Completions(completions) => {
            Box::pin(ready(completions.run(&Cli::command(), session)))
        }
        Command::CompleteWords(words) => Box::pin(words.run(Cli::command(), session)),
        Command::Man(man) => Box::pin(ready(man.run(Cli::command(), session))),
        Command::Config(config) => Box::pin(ready(config.run(session))),
    };
    let outcome = command.await;
    let closed = session.close().await;
    // What ended the command comes before what its closing met.
    outcome.and(closed)
}

/// Parses and runs one command line, for a command that runs others.
fn run_line<'a>(
    arguments: &'a [&'a str],
    session: &'a mut Session,
) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>> {
    Box::pin(async move {
        let line = std::iter::once("cubbyhole").chain(arguments.iter().copied());
        let cli = Cli::try_parse_from(line)
            .map_err(|error| Error::internal("the demo is wrong").with_source(error))?;
        run(cli.command, session).await
    })
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
