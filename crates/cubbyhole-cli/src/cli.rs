//! The top-level command line: parses it and runs the command.

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
A NAMESPACE or PREFIX is a tenant and its segments, separated by `:`, as in acme:agent-7:chat.
Write a `:` inside a name as `\\:` and a `\\` as `\\\\`.

Exit codes: 0 success · 1 not found · 2 wrong usage · 3 conflict · 4 deadline exceeded
            5 store unavailable or missing · 6 any other error
            129 SIGHUP · 130 Ctrl-C · 143 SIGTERM

Example: cubbyhole demo";

/// Cubbyhole: a namespaced key/value store for many tenants
#[derive(Debug, Parser)]
#[command(name = "cubbyhole", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
    /// The name of the command.
    #[arg(skip)]
    pub(crate) name: String,
}

impl Cli {
    /// Parses the command line. A value of `put` may begin with `-`. A value that looks like an
    /// option is probably a mistyped option, and is only accepted after `--`.
    pub(crate) fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(arguments)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.name = matches.subcommand_name().unwrap_or_default().to_owned();
        // clap does not detect a conflict between an option before the command and one after it.
        if cli.globals.count_store_options() > 1 {
            let message =
                "--store, --store-file and --profile each name a store: use only one of them";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
        }
        if matches!(&cli.command, Command::Put(put) if put.value_resembles_option()) {
            let strict = Self::command().mut_subcommand("put", |put| {
                put.mut_arg("value", |value| value.allow_hyphen_values(false))
            });
            let refused = |mut error: clap::Error| {
                let tip = "to store it as a value, write it after `--`, as in `-- --text`";
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
    Key(commands::key::Key),
    Reencrypt(commands::reencrypt::Reencrypt),
    Doctor(commands::doctor::Doctor),
    Compact(commands::compact::Compact),
    Demo(commands::demo::Demo),
    Completions(commands::completions::Completions),
    Man(commands::man::Man),
    Config(commands::config::Config),
    CompleteWords(commands::complete_words::CompleteWords),
}

impl Command {
    /// Whether `--timeout` applies to each step of the command and not to the whole command. True
    /// for commands that wait for a person or run until they are stopped.
    pub(crate) fn applies_timeout_to_each_step(&self) -> bool {
        match self {
            Self::Edit(_) => true,
            Self::Evict(evict) => evict.applies_timeout_to_each_step(),
            _ => false,
        }
    }

    /// Whether the command uses a store. If not, no password is read.
    pub(crate) fn needs_store(&self) -> bool {
        match self {
            Self::Key(key) => key.needs_store(),
            other => !matches!(
                other,
                Self::Completions(_) | Self::CompleteWords(_) | Self::Man(_) | Self::Config(_)
            ),
        }
    }

    /// Whether the command writes to the store. If it is abandoned, its outcome is then unknown.
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
            | Self::Reencrypt(_)
            | Self::Demo(_) => true,
            Self::Key(key) => key.needs_store(),
            Self::Get(get) => get.writes(),
            Self::List(_)
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

/// Runs one command and closes the stores that it opened.
pub(crate) async fn run(command: Command, session: &mut Session) -> Result<(), Failure> {
    // Each command's future is boxed. Unboxed, their sum overflows the stack of a thread in an
    // unoptimised build, because `demo` runs other commands.
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
        Command::Key(key) => Box::pin(key.run(session)),
        Command::Reencrypt(reencrypt) => Box::pin(reencrypt.run(session)),
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
    // An error of the command takes precedence over an error of closing.
    outcome.and(closed)
}

/// Parses and runs one command line, for a command that runs others.
fn run_line<'a>(
    arguments: &'a [&'a str],
    session: &'a mut Session,
) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>> {
    Box::pin(async move {
        let line = std::iter::once("cubbyhole").chain(arguments.iter().copied());
        let cli = Cli::try_parse_from(line).map_err(|error| {
            Error::internal("a command line of the demo is wrong").with_source(error)
        })?;
        run(cli.command, session).await
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_of_every_command_has_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{}", command.get_name());
            assert!(help.contains(&format!("cubbyhole {}", command.get_name())), "{help}");
        }
    }
}
