//! The commands, one file each.

pub(crate) mod compact;
pub(crate) mod complete_words;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod copy;
pub(crate) mod delete;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod edit;
pub(crate) mod erase;
pub(crate) mod evict;
pub(crate) mod export;
pub(crate) mod get;
pub(crate) mod import;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod migrate;
pub(crate) mod namespaces;
pub(crate) mod put;
pub(crate) mod take;
pub(crate) mod tenants;
pub(crate) mod touch;
pub(crate) mod usage;

use std::future::{Future, ready};
use std::pin::Pin;

use cubbyhole::Namespace;

use crate::cli::Command;
use crate::error::Failure;
use crate::output::escape;
use crate::session::Session;

/// Items of a page where values are not read.
const PAGE_NAMES: usize = 1000;

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
        Command::Demo(demo) => Box::pin(demo.run(session)),
        Command::Completions(completions) => Box::pin(ready(completions.run(session))),
        Command::CompleteWords(words) => Box::pin(words.run(session)),
        Command::Man(man) => Box::pin(ready(man.run(session))),
        Command::Config(config) => Box::pin(ready(config.run(session))),
    };
    let outcome = command.await;
    let closed = session.close().await;
    // What ended the command comes before what its closing met.
    outcome.and(closed)
}

/// [`run`] for a command that runs others, whose own type would hold itself.
pub(crate) fn run_boxed<'a>(
    command: Command,
    session: &'a mut Session,
) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>> {
    Box::pin(run(command, session))
}

fn not_found(namespace: &Namespace, key: &str) -> Failure {
    let name = escape(namespace.as_str());
    Failure::NotFound(format!(
        "there is no entry `{}` in {name}; `cubbyhole list {}` shows what is there",
        escape(key),
        quoted(&name),
    ))
}

/// An argument as a shell takes it.
pub(crate) fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}
