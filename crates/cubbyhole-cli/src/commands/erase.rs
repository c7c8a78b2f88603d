//! `erase`: removes everything under a prefix, in bounded steps.

use clap::Args;
use cubbyhole::{Backend, NamespacePrefix};
use serde::Serialize;

use crate::arguments::parse_prefix;
use crate::error::Failure;
use crate::output::{count, escape};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  cubbyhole erase acme:agent-7 --dry-run
  cubbyhole erase acme --yes";

/// The entries that one step removes; between steps the context is looked at.
const STEP: usize = 1000;

/// Remove everything under a prefix: a conversation, an agent, a tenant
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Erase {
    /// Which: a tenant and segments, as in acme:agent-7
    #[arg(value_parser = parse_prefix)]
    prefix: NamespacePrefix,
    /// Really do it
    #[arg(long)]
    yes: bool,
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct ErasedLine<'a> {
    prefix: &'a str,
    removed: u64,
}

impl Erase {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let store = session.open().await?;
        if self.dry_run {
            let usage = store.usage(&session.ctx, &self.prefix).await?;
            return super::usage::show(&self.prefix, &usage, &mut session.out);
        }
        let shown = escape(self.prefix.as_str());
        if !self.yes {
            let usage = store.usage(&session.ctx, &self.prefix).await?;
            return Err(Failure::Usage(format!(
                "this would erase {} in {} under {shown}; repeat it with --yes to do so",
                count(usage.entries, "entry", "entries"),
                count(usage.namespaces, "namespace", "namespaces"),
            )));
        }
        let removed = self.erase_all(&*store, session).await?;
        if session.out.json() {
            session.out.object(&ErasedLine { prefix: self.prefix.as_str(), removed })?;
        }
        session.out.note(&format!("erased {} under {shown}", count(removed, "entry", "entries")));
        Ok(())
    }

    // Not `erase_all` of the library: on Ctrl-C this one can say how far it came.
    async fn erase_all(&self, store: &dyn Backend, session: &Session) -> Result<u64, Failure> {
        let ctx = session.ctx.clone();
        let mut removed = 0;
        loop {
            match store.erase(&ctx, &self.prefix, STEP).await {
                Ok(step) => {
                    removed += step.removed;
                    if step.done {
                        return Ok(removed);
                    }
                }
                Err(error) => {
                    let done = format!(
                        "{} erased; the same command goes on from there",
                        count(removed, "entry", "entries")
                    );
                    return Err(Failure::Partway { done, error });
                }
            }
        }
    }
}
