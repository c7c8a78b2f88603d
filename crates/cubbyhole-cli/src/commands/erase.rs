//! `erase`: removes everything under a prefix, in bounded steps.

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
On a terminal it shows what there is and asks; elsewhere it needs --yes. An erasure that was
interrupted goes on where it ended when it is repeated. Its last line says what was removed, how much
of it, when, and whether anything is left: writes that arrive behind it survive, so stop the writers
first. In a file no byte of an erased entry is left when the command ends, which rewrites the file;
docs/operations.md says when the bytes are gone on servers. Backups, replicas that are behind and
exports are not in its reach, nor are values on Redis whose index was evicted: \"no entry is left
there\" does not count them. `cubbyhole doctor --repair --orphans list` finds them.

Examples:
  cubbyhole erase acme:agent-7 --dry-run
  cubbyhole erase acme --yes";

/// The entries that one step removes; between steps the context is looked at.
const STEP: usize = 1000;

/// How long a step under way, and then the count of what is left, may take after Ctrl-C or the
/// deadline.
const GRACE: Duration = Duration::from_secs(2);

/// Remove everything under a prefix: a conversation, an agent, a tenant
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Erase {
    /// Which: a tenant and segments, as in acme:agent-7
    #[arg(value_parser = parse_prefix)]
    prefix: NamespacePrefix,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
}

/// What there is to remove.
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
    /// Without a password.
    store: &'a str,
    prefix: &'a str,
    removed: u64,
    namespaces: u64,
    started_at: Timestamp,
    finished_at: Timestamp,
    /// Live entries that were written behind it; `None` if they could not be counted.
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
        // On a context of its own: what was done must be told, whatever became of the command's.
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
            let told = session.out.object(&line).and_then(|()| session.out.flush());
            told.map_err(Failure::where_output_is_wanted)?;
        }
        session.out.note(&format!(
            "erased {} in {} under {}, from {started_at} to {finished_at}; {}",
            count(removed, "entry", "entries"),
            count(namespaces, "namespace", "namespaces"),
            escape(prefix),
            match left {
                Some(0) => "no entry is left there".to_owned(),
                Some(left) => {
                    format!("{} written meanwhile", count(left, "entry was", "entries were"))
                }
                None => "what is left was not counted".to_owned(),
            },
        ));
        match left {
            Some(0) => Ok(()),
            Some(left) => Err(Failure::Incomplete(format!(
                "{} written meanwhile; stop who writes, and repeat it",
                count(left, "entry", "entries")
            ))),
            None => Err(Failure::Incomplete(
                "whether anything was written meanwhile is unknown; repeat it".to_owned(),
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

    /// A step that has begun is finished if that is a matter of a moment, so that what was erased can
    /// be told exactly.
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
        let moment = ExecutionContext::new().with_timeout(GRACE);
        if let Ok(outcome) = moment.race(&mut step).await {
            return outcome;
        }
        ctx.cancel();
        step.await
    }

    // Not `erase_all` of the library: on Ctrl-C this one can say how far it came.
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
                        true => format!(", up to {STEP} more that may be"),
                        false => String::new(),
                    };
                    let done = format!(
                        "{} erased{unknown}; the same command goes on from there",
                        count(removed, "entry", "entries")
                    );
                    return Err(Failure::Partway { done, error });
                }
            }
        }
    }
}
