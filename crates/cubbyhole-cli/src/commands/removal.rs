//! Removes entries in bounded steps, for `erase` and `delete --prefix`: counts the entries, asks,
//! removes them, and counts the remaining ones.

use std::time::Duration;

use clap::Args;
use cubbyhole::{
    Backend, Clock, Erased, ExecutionContext, Namespace, NamespacePrefix, SystemClock, Timestamp,
};
use indicatif::ProgressBar;
use serde::Serialize;

use super::usage::count_one;
use crate::error::Failure;
use crate::output::{Output, count, escape, human_bytes, progress};
use crate::session::{Session, confirm};

/// The entries that one step removes. The context is checked between steps.
const STEP: usize = 1000;

/// How long the current step, and then counting the rest, may take after Ctrl-C or the deadline.
const GRACE: Duration = Duration::from_secs(2);

/// The entries to remove.
#[derive(Debug)]
pub(super) enum Removal {
    /// All entries of the namespaces under a prefix.
    Namespaces(NamespacePrefix),
    /// The entries of one namespace whose keys begin with `prefix`.
    Keys { namespace: Namespace, prefix: String },
}

/// Whether to ask, and whether to remove anything.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct RemovalOptions {
    /// Do not ask for confirmation
    #[arg(long)]
    pub(super) yes: bool,
    /// Only show what would be removed
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// The words of messages.
struct Words {
    verb: &'static str,
    past: &'static str,
    noun: &'static str,
}

/// The live entries before a removal.
struct Counted {
    /// `None` if they are in one namespace.
    namespaces: Option<u64>,
    entries: u64,
    bytes: Option<u64>,
    /// `None` if they were not counted.
    expired: Option<u64>,
}

/// The result of a dry run.
#[derive(Serialize)]
struct PlannedLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a Namespace>,
    prefix: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespaces: Option<u64>,
    entries: u64,
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expired: Option<u64>,
    dry_run: bool,
}

/// The record of a removal.
#[derive(Serialize)]
struct RemovedLine<'a> {
    /// The redacted URL.
    store: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a Namespace>,
    prefix: &'a str,
    removed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespaces: Option<u64>,
    started_at: Timestamp,
    finished_at: Timestamp,
    /// Live entries written during the removal; `None` if they could not be counted.
    left: Option<u64>,
}

impl Removal {
    pub(super) async fn run(
        self,
        options: RemovalOptions,
        session: &mut Session,
    ) -> Result<(), Failure> {
        if session.out.json() {
            session.out.check_data_can_be_written()?;
        }
        let store = match options.dry_run {
            true => session.open_read_only().await?,
            false => session.open().await?,
        };
        let counted = self.count(&*store, &session.ctx).await?;
        if options.dry_run {
            return self.plan(&counted, &mut session.out);
        }
        if !options.yes {
            confirm(session, self.words().verb, &self.describe(&counted), "from").await?;
        }
        let started_at = SystemClock.now();
        let bar = progress::bar(Some(counted.entries), &session.out, true);
        let removed = self.remove_all(&*store, &bar, session).await;
        bar.finish_and_clear();
        let removed = removed?;
        let finished_at = SystemClock.now();
        // A new context, because the removal must be reported even if the command's context has
        // ended.
        let counting = ExecutionContext::new().with_timeout(GRACE);
        let left = self.count(&*store, &counting).await.map(|counted| counted.entries).ok();
        if session.out.json() {
            let store = session.store.shown();
            let line = RemovedLine {
                store: &store,
                namespace: self.namespace(),
                prefix: self.prefix(),
                removed,
                namespaces: counted.namespaces,
                started_at,
                finished_at,
                left,
            };
            let written = session.out.object(&line).and_then(|()| session.out.flush());
            written.map_err(Failure::with_closed_pipe_as_error)?;
        }
        let Words { past, noun, .. } = self.words();
        let written = |left| {
            format!("{} written during the {noun}", count(left, "entry was", "entries were"))
        };
        let found = Counted { entries: removed, bytes: None, ..counted };
        session.out.note(&format!(
            "{past} {}, from {started_at} to {finished_at}; {}",
            self.describe(&found),
            match left {
                Some(0) => "no entry is left there".to_owned(),
                Some(left) => written(left),
                None => "the remaining entries could not be counted".to_owned(),
            },
        ));
        match left {
            Some(0) => Ok(()),
            Some(left) => Err(Failure::Incomplete(format!(
                "{}; stop the writers and repeat the command",
                written(left)
            ))),
            None => Err(Failure::Incomplete(format!(
                "entries may have been written during the {noun}; repeat the command"
            ))),
        }
    }

    fn words(&self) -> Words {
        match self {
            Self::Namespaces(_) => Words { verb: "erase", past: "erased", noun: "erasure" },
            Self::Keys { .. } => Words { verb: "delete", past: "deleted", noun: "deletion" },
        }
    }

    /// The namespace, if there is only one.
    fn namespace(&self) -> Option<&Namespace> {
        match self {
            Self::Namespaces(_) => None,
            Self::Keys { namespace, .. } => Some(namespace),
        }
    }

    /// The prefix of the namespaces, or of the keys.
    fn prefix(&self) -> &str {
        match self {
            Self::Namespaces(prefix) => prefix.as_str(),
            Self::Keys { prefix, .. } => prefix,
        }
    }

    async fn count(
        &self,
        store: &dyn Backend,
        ctx: &ExecutionContext,
    ) -> cubbyhole::Result<Counted> {
        match self {
            Self::Namespaces(prefix) => {
                let usage = store.usage(ctx, prefix).await?;
                Ok(Counted {
                    namespaces: Some(usage.namespaces),
                    entries: usage.entries,
                    bytes: usage.bytes,
                    expired: Some(usage.expired),
                })
            }
            Self::Keys { namespace, prefix } => {
                let counted = count_one(store, ctx, namespace, Some(prefix)).await?;
                let (entries, bytes) = (counted.entries, counted.bytes);
                Ok(Counted { namespaces: None, entries, bytes, expired: None })
            }
        }
    }

    fn plan(&self, counted: &Counted, out: &mut Output) -> Result<(), Failure> {
        if out.json() {
            return out.object(&PlannedLine {
                namespace: self.namespace(),
                prefix: self.prefix(),
                namespaces: counted.namespaces,
                entries: counted.entries,
                bytes: counted.bytes,
                expired: counted.expired,
                dry_run: true,
            });
        }
        out.line(&format!("would {} {}", self.words().verb, self.describe(counted)))
    }

    fn describe(&self, counted: &Counted) -> String {
        let size = counted.bytes.map(|bytes| format!(" ({})", human_bytes(bytes)));
        let entries =
            format!("{}{}", count(counted.entries, "entry", "entries"), size.unwrap_or_default());
        match self {
            Self::Namespaces(prefix) => {
                let namespaces = counted.namespaces.unwrap_or_default();
                let namespaces = count(namespaces, "namespace", "namespaces");
                format!("{entries} in {namespaces} under {}", escape(prefix.as_str()))
            }
            Self::Keys { namespace, prefix } => format!(
                "{entries} whose keys begin with `{}` in {}",
                escape(prefix),
                escape(namespace.as_str())
            ),
        }
    }

    /// Runs one step. After the end of the context, a step has a grace period to finish, so the
    /// number of removed entries is exact.
    async fn step(
        &self,
        store: &dyn Backend,
        whole: &ExecutionContext,
    ) -> cubbyhole::Result<Erased> {
        let ctx = ExecutionContext::new();
        let mut step = match self {
            Self::Namespaces(prefix) => store.erase(&ctx, prefix, STEP),
            Self::Keys { namespace, prefix } => store.delete_prefix(&ctx, namespace, prefix, STEP),
        };
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
    async fn remove_all(
        &self,
        store: &dyn Backend,
        bar: &ProgressBar,
        session: &Session,
    ) -> Result<u64, Failure> {
        let ctx = session.ctx.clone();
        let past = self.words().past;
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
                        true => format!(", and up to {STEP} more may be {past}"),
                        false => String::new(),
                    };
                    let done = format!(
                        "{} {past}{unknown}; repeat the command to continue",
                        count(removed, "entry", "entries")
                    );
                    return Err(Failure::Partway { done, error });
                }
            }
        }
    }
}
