//! The commands, one file each.

pub(crate) mod compact;
pub(crate) mod complete_words;
pub(crate) mod completions;
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

use std::future::Future;
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
    let outcome = match command {
        Command::Put(put) => put.run(session).await,
        Command::Get(get) => get.run(session).await,
        Command::Edit(edit) => edit.run(session).await,
        Command::Take(take) => take.run(session).await,
        Command::Delete(delete) => delete.run(session).await,
        Command::Touch(touch) => touch.run(session).await,
        Command::List(list) => list.run(session).await,
        Command::Tenants(tenants) => tenants.run(session).await,
        Command::Namespaces(namespaces) => namespaces.run(session).await,
        Command::Usage(usage) => usage.run(session).await,
        Command::Erase(erase) => erase.run(session).await,
        Command::Evict(evict) => evict.run(session).await,
        Command::Export(export) => export.run(session).await,
        Command::Import(import) => import.run(session).await,
        Command::Migrate(migrate) => migrate.run(session).await,
        Command::Doctor(doctor) => doctor.run(session).await,
        Command::Compact(compact) => compact.run(session).await,
        Command::Demo(demo) => demo.run(session).await,
        Command::Completions(completions) => completions.run(session),
        Command::CompleteWords(words) => words.run(session).await,
        Command::Man(man) => man.run(session),
    };
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
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}
