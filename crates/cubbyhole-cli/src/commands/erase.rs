//! `erase`: removes all entries under a prefix, in bounded steps.

use std::time::Duration;

use clap::Args;
use cubbyhole::{
    Backend, Clock, Erased, ExecutionContext, NamespacePrefix, SystemClock, Timestamp, Usage,
};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::args::parse::parse_prefix;
use crate::error::Failure;
use crate::output::{Output, count, escape, human_bytes, progress};
use crate::session::{Session, confirm};

const EXAMPLES: &str = "\
On a terminal the command shows what it would erase and asks; otherwise it needs --yes. Repeat an
interrupted erasure to continue it. The last line reports the removed entries, the time, and how
many entries are left. Concurrent writes can survive, so stop the writers first.

In a file, no byte of an erased entry is left when the command ends, because it rewrites the file.
docs/operations.md says when the bytes are gone on servers. Backups, lagging replicas and exports
are not erased. Neither are values on Redis whose index was evicted, and \"no entry is left there\"
does not count them; `cubbyhole doctor --repair --orphans list` finds them.

Examples:
  cubbyhole erase acme:agent-7 --dry-run
  cubbyhole erase acme --yes";

/// The entries that one step removes. The context is checked between steps.
const STEP: usize = 1000;

/// How long the current step, and then counting the rest, may take after Ctrl-C or the deadline.
const GRACE: Duration = Duration::from_secs(2);

/// Remove all entries under a prefix: a conversation, an agent or a tenant
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Erase {
    /// Prefix: a tenant and segments, as in acme:agent-7
    #[arg(value_parser = parse_prefix)]
    prefix: NamespacePrefix,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Only show what would be erased
    #[arg(long)]
    dry_run: bool,
}

/// The result of a dry run.
#[derive(Serialize)]
struct PlannedLine<'a> {
    prefix: &'a str,
    namespaces: u64,
    entries: u64,
    bytes: Option<u64>,
    expired: u64,
    dry_run: bool,
}

/// The record of an erasure.
#[derive(Serialize)]
struct ErasedLine<'a> {
    /// The redacted URL.
    store: &'a str,
    prefix: &'a str,
    removed: u64,
    namespaces: u64,
    started_at: Timestamp,
    finished_at: Timestamp,
    /// Live entries written during the erasure; `None` if they could not be counted.
    left: Option<u64>,
}

impl Erase {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        if session.out.json() {
            session.out.check_data_can_be_written()?;
        }
        let store = match self.dry_run {
            true => session.open_read_only().await?,
            false => session.open().await?,
        };
        let usage = store.usage(&session.ctx, &self.prefix).await?;
        if self.dry_run {
            return self.plan(&usage, &mut session.out);
        }
        if !self.yes {
            confirm(session, "erase", &self.describe(&usage), "from").await?;
        }
        let started_at = SystemClock.now();
        let bar = progress::bar(Some(usage.entries), &session.out, true);
        let erased = self.erase_all(&*store, &bar, session).await;
        bar.finish_and_clear();
        let removed = erased?;
        let finished_at = SystemClock.now();
        // A new context, because the erasure must be reported even if the command's context has
        // ended.
        let counting = ExecutionContext::new().with_timeout(GRACE);
        let left = store.usage(&counting, &self.prefix).await.map(|usage| usage.entries).ok();
        let (prefix, namespaces) = (self.prefix.as_str(), usage.namespaces);
        if session.out.json() {
            let store = session.store.shown();
            let line = ErasedLine {
                store: &store,
                prefix,
                removed,
                namespaces,
                started_at,
                finished_at,
                left,
            };
            let written = session.out.object(&line).and_then(|()| session.out.flush());
            written.map_err(Failure::with_closed_pipe_as_error)?;
        }
        session.out.note(&format!(
            "erased {} in {} under {}, from {started_at} to {finished_at}; {}",
            count(removed, "entry", "entries"),
            count(namespaces, "namespace", "namespaces"),
            escape(prefix),
            match left {
                Some(0) => "no entry is left there".to_owned(),
                Some(left) => {
                    format!(
                        "{} written during the erasure",
                        count(left, "entry was", "entries were")
                    )
                }
                None => "the remaining entries could not be counted".to_owned(),
            },
        ));
        match left {
            Some(0) => Ok(()),
            Some(left) => Err(Failure::Incomplete(format!(
                "{} written during the erasure; stop the writers and repeat the command",
                count(left, "entry was", "entries were")
            ))),
            None => Err(Failure::Incomplete(
                "entries may have been written during the erasure; repeat the command".to_owned(),
            )),
        }
    }

    fn plan(&self, usage: &Usage, out: &mut Output) -> Result<(), Failure> {
        let Usage { namespaces, entries, bytes, expired } = *usage;
        if out.json() {
            let prefix = self.prefix.as_str();
            let dry_run = true;
            return out.object(&PlannedLine {
                prefix,
                namespaces,
                entries,
                bytes,
                expired,
                dry_run,
            });
        }
        out.line(&format!("would erase {}", self.describe(usage)))
    }

    fn describe(&self, usage: &Usage) -> String {
        let size = usage.bytes.map(|bytes| format!(" ({})", human_bytes(bytes)));
        format!(
            "{}{} in {} under {}",
            count(usage.entries, "entry", "entries"),
            size.unwrap_or_default(),
            count(usage.namespaces, "namespace", "namespaces"),
            escape(self.prefix.as_str()),
        )
    }

    /// Runs one step. After the end of the context, a step has a grace period to finish, so the
    /// number of erased entries is exact.
    async fn step(
        &self,
        store: &dyn Backend,
        whole: &ExecutionContext,
    ) -> cubbyhole::Result<Erased> {
        let ctx = ExecutionContext::new();
        let mut step = std::pin::pin!(store.erase(&ctx, &self.prefix, STEP));
        if let Ok(outcome) = whole.race(&mut step).await {
            return outcome;
        }
        let grace = ExecutionContext::new().with_timeout(GRACE);
        if let Ok(outcome) = grace.race(&mut step).await {
            return outcome;
        }
        ctx.cancel();
        step.await
    }

    // Unlike `erase_all` of the library, this reports its progress on Ctrl-C.
    async fn erase_all(
        &self,
        store: &dyn Backend,
        bar: &ProgressBar,
        session: &Session,
    ) -> Result<u64, Failure> {
        let ctx = session.ctx.clone();
        let mut removed = 0;
        loop {
            let step = match ctx.check() {
                Ok(()) => self.step(store, &ctx).await,
                Err(error) => Err(error),
            };
            match step {
                Ok(step) => {
                    removed += step.removed;
                    progress::advance(bar, removed);
                    if step.done {
                        return Ok(removed);
                    }
                }
                Err(error) => {
                    let unknown = match error.may_have_been_applied() {
                        true => format!(", and up to {STEP} more may be erased"),
                        false => String::new(),
                    };
                    let done = format!(
                        "{} erased{unknown}; repeat the command to continue",
                        count(removed, "entry", "entries")
                    );
                    return Err(Failure::Partway { done, error });
                }
            }
        }
    }
}
