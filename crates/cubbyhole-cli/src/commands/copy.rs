//! `copy`: moves what is under a prefix, or all of it, to another store.

mod engine;
mod pages;
mod verify;

use clap::Args;
use cubbyhole::{Error, Namespace};
use indicatif::ProgressBar;
use serde::Serialize;

use self::engine::{CopyCounts, Plan};
use self::verify::{Difference, Verified};
use crate::args::scope::{Scope, ScopeArguments};
use crate::entries::walk::{self, Namespaces};
use crate::error::Failure;
use crate::output::{Output, count, escape, human_bytes, progress};
use crate::session::Session;

const EXAMPLES: &str = "\
Copies values and the instants at which entries expire; what has expired by the target's time is left
out and counted. Versions, created_at and updated_at are the
target's own: the entries are new there. What the target has already, with equal value and expiry, is
passed over; so a copy that was interrupted goes on where it ended when it is repeated, and a later
one brings over what changed meanwhile. Nothing is deleted in either store.

Writers may be at work meanwhile. What they write behind the copy is not in it, so move a service in
three steps: copy; stop the writers; copy once more, with --verify, which then takes only as long as
reading. --verify reads both sides, compares each entry, and shows for each the SHA-256 of its lines:
those that `cubbyhole export` writes after its header.

Examples:
  cubbyhole copy --all --to postgres://my_service@db.internal/state --dry-run
  cubbyhole copy --all --to postgres://my_service@db.internal/state --verify
  cubbyhole copy acme --to redis+cluster://10.0.0.1:7000 --keep-existing";

/// Differences that are shown; the others are counted.
const SHOWN: u64 = 10;

/// Copy entries to another store, of whatever kind
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Copy {
    #[command(flatten)]
    scope: ScopeArguments,
    /// The store that takes them: a URL, as for --store, or the name of a profile; a file is created
    #[arg(long, value_name = "URL|PROFILE")]
    to: String,
    /// Leave entries that the target has otherwise as they are there [default: the source's win]
    #[arg(long)]
    keep_existing: bool,
    /// Only count what would be copied
    #[arg(long)]
    dry_run: bool,
    /// Compare both sides afterwards; the exit code is 6 if they differ
    #[arg(long, conflicts_with = "dry_run")]
    verify: bool,
}

#[derive(Serialize)]
struct CopySummary<'a> {
    copied: u64,
    bytes: u64,
    skipped: u64,
    kept: u64,
    expired: u64,
    unreadable: u64,
    namespaces: u64,
    dry_run: bool,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<&'a Verified>,
}

impl Copy {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let scope = self.scope.into_scope();
        let source = session.open_read_only().await?;
        // A mistyped prefix creates no file.
        let first = Namespaces::new(source.clone(), session.ctx.clone(), &scope).next().await?;
        let nothing = || Failure::NotFound(format!("there is no entry {scope}"));
        if first.is_none() && !self.verify {
            return Err(nothing());
        }
        let only_look = self.dry_run || first.is_none();
        let target = session.open_target(&self.to, only_look).await?;
        if first.is_none() && target.is_none() {
            return Err(nothing());
        }
        let total = match session.out.messages_on_terminal() {
            // For the bar alone: counting takes time.
            true => Some(walk::usage(&scope, &source, &session.ctx).await?.entries),
            false => None,
        };
        let ctx = session.ctx.clone();
        let plan = Plan {
            source: source.clone(),
            target: target.clone(),
            keep_existing: self.keep_existing,
            dry_run: self.dry_run,
            reading: ctx.child(),
            writing: cubbyhole::ExecutionContext::new(),
        };
        let started = tokio::time::Instant::now();
        let bar = progress::bar(total, &session.out, true);
        let namespaces = Namespaces::new(source.clone(), ctx.clone(), &scope);
        let mut observer = ProgressReporter { bar: &bar, out: &mut session.out, shown: 0 };
        let (counts, outcome) = engine::run(&plan, namespaces, &mut observer).await;
        bar.finish_and_clear();
        if let Err(error) = outcome {
            // The context says why better than the reading that it ended.
            let error = ctx.check().err().unwrap_or(error);
            return Err(partway(&counts, self.dry_run, error));
        }
        let verified = match (&target, self.verify) {
            (Some(target), true) => {
                let bar = progress::bar(Some(counts.entries()), &session.out, true);
                let mut observer = ProgressReporter { bar: &bar, out: &mut session.out, shown: 0 };
                let verified = verify::run(&ctx, &source, target, &scope, &mut observer).await;
                bar.finish_and_clear();
                let stopped = |error| Failure::Partway {
                    done: format!("{}, not verified", done(&counts)),
                    error,
                };
                Some(verified.map_err(stopped)?)
            }
            _ => None,
        };
        let seconds = started.elapsed().as_secs_f64();
        report(&counts, self.dry_run, seconds, verified.as_ref(), &mut session.out)?;
        judge(&counts, verified.as_ref(), &scope)
    }
}

fn done(counts: &CopyCounts) -> String {
    let mut text = format!("{} copied", count(counts.copied, "entry", "entries"));
    if counts.unknown > 0 {
        text.push_str(&format!(", {} that may be", counts.unknown));
    }
    if counts.skipped > 0 {
        text.push_str(&format!(", {} that the target had already", counts.skipped));
    }
    text
}

fn partway(counts: &CopyCounts, dry_run: bool, error: Error) -> Failure {
    let done = match dry_run {
        true => format!("{} looked at", count(counts.entries(), "entry", "entries")),
        false => format!("{}; the same command goes on from there", done(counts)),
    };
    Failure::Partway { done, error }
}

fn report(
    counts: &CopyCounts,
    dry_run: bool,
    seconds: f64,
    verified: Option<&Verified>,
    out: &mut Output,
) -> Result<(), Failure> {
    let CopyCounts { copied, bytes, skipped, kept, expired, unreadable, namespaces, .. } = *counts;
    if out.json() {
        return out.object(&CopySummary {
            copied,
            bytes,
            skipped,
            kept,
            expired,
            unreadable,
            namespaces,
            dry_run,
            seconds,
            verified,
        });
    }
    let verb = if dry_run { "would copy" } else { "copied" };
    let mut text = format!(
        "{verb} {} ({}) in {} in {seconds:.1} s",
        count(copied, "entry", "entries"),
        human_bytes(bytes),
        count(namespaces, "namespace", "namespaces"),
    );
    if skipped > 0 {
        text.push_str(&format!("; {skipped} skipped, which the target had already"));
    }
    if kept > 0 {
        text.push_str(&format!("; {kept} kept as they are in the target"));
    }
    if expired > 0 {
        text.push_str(&format!("; {expired} left out, expired by the target's time"));
    }
    out.note(&text);
    let Some(verified) = verified else { return Ok(()) };
    for (name, side) in [("source", &verified.source), ("target", &verified.target)] {
        let entries = count(side.entries, "entry", "entries");
        out.line(&format!("{name}  {entries}  {} bytes  sha256 {}", side.bytes, side.sha256))?;
    }
    if verified.equal {
        out.note("both are equal");
    }
    if verified.expired > 0 {
        let expired = count(verified.expired, "entry", "entries");
        out.note(&format!(
            "{expired} on one side alone had expired, or were about to, and are left out"
        ));
    }
    Ok(())
}

fn judge(counts: &CopyCounts, verified: Option<&Verified>, scope: &Scope) -> Result<(), Failure> {
    if let Some(verified) = verified
        && !verified.equal
    {
        let Verified { missing, different, extra, unreadable, .. } = *verified;
        return Err(Failure::Incomplete(format!(
            "the two differ: {missing} missing in the target, {different} different, {extra} only \
             in the target, {unreadable} unreadable; if somebody writes, stop that and copy again"
        )));
    }
    if counts.unreadable > 0 {
        let entries = count(counts.unreadable, "entry", "entries");
        return Err(Failure::Incomplete(format!(
            "{entries} could not be read and were not copied"
        )));
    }
    if counts.entries() == 0 {
        return Err(Failure::NotFound(format!("there is no entry {scope}")));
    }
    Ok(())
}

/// Shows progress and what is wrong with single entries.
struct ProgressReporter<'a> {
    bar: &'a ProgressBar,
    out: &'a mut Output,
    shown: u64,
}

impl ProgressReporter<'_> {
    fn complain(&mut self, kind: &str, text: &str) {
        let out = &mut self.out;
        self.bar.suspend(|| out.complain(kind, text));
    }
}

impl engine::CopyObserver for ProgressReporter<'_> {
    fn progress(&mut self, counts: &CopyCounts) {
        progress::advance(self.bar, counts.entries());
    }

    fn unreadable(&mut self, namespace: &Namespace, key: &str, error: &Error) {
        let (namespace, key) = (escape(namespace.as_str()), escape(key));
        let text = format!("not copied: `{key}` in {namespace}: {error}");
        self.complain(error.kind().as_str(), &text);
    }
}

impl verify::VerifyObserver for ProgressReporter<'_> {
    fn progress(&mut self, entries: u64) {
        progress::advance(self.bar, entries);
    }

    fn found(&mut self, found: Difference, namespace: &Namespace, key: &str) {
        self.shown += 1;
        if self.shown > SHOWN {
            return;
        }
        let (namespace, key) = (escape(namespace.as_str()), escape(key));
        let what = match found {
            Difference::Missing => "not in the target",
            Difference::Different => "different in the target",
            Difference::Extra => "only in the target",
            Difference::Unreadable => "not readable on one side",
        };
        let more = if self.shown == SHOWN { "; more are only counted" } else { "" };
        self.complain("incomplete", &format!("{what}: `{key}` in {namespace}{more}"));
    }
}
