//! `copy`: copies entries to another store.

mod engine;
mod pages;
mod verify;

use std::sync::Arc;

use clap::Args;
use cubbyhole::{
    Backend, Error, ErrorKind, ExecutionContext, Namespace, NamespacePrefix, ScanOptions,
};
use indicatif::ProgressBar;
use serde::Serialize;

use self::engine::{CopyCounts, Plan};
use self::verify::{Difference, Verified};
use crate::args::parse::parse_prefix;
use crate::args::scope::{Scope, ScopeArguments};
use crate::entries::rerooting::Rerooting;
use crate::entries::walk::{self, Namespaces};
use crate::error::Failure;
use crate::output::{Output, count, escape, human_bytes, progress};
use crate::session::Session;

const EXAMPLES: &str = "\
Copies values and expiries. The target sets new versions, created_at and updated_at. Entries that
have expired by the target's clock are left out and counted. Entries that the target already has
with the same value and expiry are skipped. Repeat the command to continue an interrupted copy or to
copy later changes. Nothing is deleted in either store.

The source may change during a copy, and later writes can be missed. To move a service, copy while
it runs, stop the writers, and copy again with --verify; the second copy only writes the changes.
--verify compares every entry of both stores, and shows the SHA-256 of the lines that `cubbyhole
export` would write after its header.

With --as the copies have another prefix, for example to rename a tenant or to clone an agent. The
target may then be the same store, if neither prefix is under the other. --verify compares the new
names.

Examples:
  cubbyhole copy --all --to postgres://my_service@db.internal/state --dry-run
  cubbyhole copy --all --to postgres://my_service@db.internal/state --verify
  cubbyhole copy acme --to redis+cluster://10.0.0.1:7000 --keep-existing
  cubbyhole copy acme:agent-7 --store redb:a.redb --to redb:a.redb --as acme:agent-8";

/// The number of differences that are shown. The others are only counted.
const MAX_SHOWN: u64 = 10;

/// Copy entries to another store on any backend
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Copy {
    #[command(flatten)]
    scope: ScopeArguments,
    /// Target store: a URL or the name of a profile; a missing file is created
    #[arg(long, value_name = "URL|PROFILE")]
    to: String,
    /// Prefix of the copies, instead of PREFIX: acme:agent-7:chat becomes acme:agent-8:chat
    #[arg(long = "as", value_name = "PREFIX", value_parser = parse_prefix, conflicts_with = "all")]
    renamed: Option<NamespacePrefix>,
    /// Keep entries that differ in the target [default: overwrite them]
    #[arg(long)]
    keep_existing: bool,
    /// Only count the entries that would be copied
    #[arg(long)]
    dry_run: bool,
    /// Compare both stores afterwards; the exit code is 6 if they differ
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
        let scope = session.store.narrow(self.scope.into_scope())?;
        let rerooting = scope.prefix().cloned().zip(self.renamed);
        let rerooting = rerooting.map(|(from, to)| Rerooting::new(from, to));
        let to = session.choose_target(&self.to)?;
        let same = session.is_source(&to);
        if same {
            check_same_store(rerooting.as_ref())?;
            session.store.check_same_layers(&to)?;
        }
        if !self.dry_run {
            session.share_key_store(&to);
        }
        let source = match same && !self.dry_run {
            true => session.open().await?,
            false => session.open_read_only().await?,
        };
        // Checked first, so a mistyped prefix creates no file.
        let first = Namespaces::new(source.clone(), session.ctx.clone(), &scope).next().await?;
        let nothing = || Failure::NotFound(format!("there is no entry {scope}"));
        if first.is_none() && !self.verify {
            return Err(nothing());
        }
        let read_only = self.dry_run || first.is_none();
        // A file can be open only once.
        let target = match same {
            true => Some(Arc::clone(&source)),
            false => session.open_target(&to, read_only).await?,
        };
        if first.is_none() && target.is_none() {
            return Err(nothing());
        }
        if let (Some(first), Some(target), Some(rerooting)) = (&first, &target, &rerooting)
            && rerooting.overlaps()
            && has_entries_of(&session.ctx, &*source, &**target, first).await?
        {
            return Err(overlapping(rerooting));
        }
        let total = match session.out.messages_on_terminal() {
            // Only counted for the bar, because counting takes time.
            true => Some(walk::usage(&scope, &source, &session.ctx).await?.entries),
            false => None,
        };
        let ctx = session.ctx.clone();
        let plan = Plan {
            source: source.clone(),
            target: target.clone(),
            rerooting: rerooting.clone(),
            keep_existing: self.keep_existing,
            dry_run: self.dry_run,
            reading: ctx.child(),
            writing: ExecutionContext::new(),
        };
        let started = tokio::time::Instant::now();
        let bar = progress::bar(total, &session.out, true);
        let namespaces = Namespaces::new(source.clone(), ctx.clone(), &scope);
        let mut observer = ProgressReporter { bar: &bar, out: &mut session.out, shown: 0 };
        let (counts, outcome) = engine::run(&plan, namespaces, &mut observer).await;
        bar.finish_and_clear();
        if let Err(error) = outcome {
            // The error of the context is more precise than the error of an interrupted read.
            let error = ctx.check().err().unwrap_or(error);
            return Err(partway(&counts, self.dry_run, error));
        }
        let verified = match (&target, self.verify) {
            (Some(target), true) => {
                Some(verify_copy(&plan, target, &scope, &counts, session).await?)
            }
            _ => None,
        };
        let seconds = started.elapsed().as_secs_f64();
        report(&counts, self.dry_run, seconds, verified.as_ref(), &mut session.out)?;
        check_outcome(&counts, verified.as_ref(), &scope)
    }
}

async fn verify_copy(
    plan: &Plan,
    target: &Arc<dyn Backend>,
    scope: &Scope,
    counts: &CopyCounts,
    session: &mut Session,
) -> Result<Verified, Failure> {
    let bar = progress::bar(Some(counts.entries()), &session.out, true);
    let mut observer = ProgressReporter { bar: &bar, out: &mut session.out, shown: 0 };
    let rerooting = plan.rerooting.as_ref();
    let verified =
        verify::run(&session.ctx, &plan.source, target, scope, rerooting, &mut observer).await;
    bar.finish_and_clear();
    verified.map_err(|error| Failure::Partway {
        done: format!("{}, not verified", done(counts)),
        error,
    })
}

/// Refuses a copy within one store that would copy entries to themselves or copy its own copies.
fn check_same_store(rerooting: Option<&Rerooting>) -> Result<(), Failure> {
    match rerooting {
        None => Err(Failure::Usage(
            "--to names the store that is copied; name another one, or another prefix with --as"
                .to_owned(),
        )),
        Some(rerooting) if rerooting.overlaps() => Err(overlapping(rerooting)),
        Some(_) => Ok(()),
    }
}

fn overlapping(rerooting: &Rerooting) -> Failure {
    Failure::Usage(format!(
        "--to names the store that is copied, and one of the prefixes {} and {} is under the other; \
         nothing was written; use a prefix outside, or another store",
        escape(rerooting.from().as_str()),
        escape(rerooting.to().as_str()),
    ))
}

/// Whether the target has one of the first entries of a namespace with the same version. It is then
/// the source under another URL, because versions are not copied, or a physical copy of it.
async fn has_entries_of(
    ctx: &ExecutionContext,
    source: &dyn Backend,
    target: &dyn Backend,
    namespace: &Namespace,
) -> Result<bool, Error> {
    let page = source.scan(ctx, namespace, ScanOptions::new().keys_only()).await?;
    let keys: Vec<&str> = page.items.iter().map(|item| item.key.as_str()).collect();
    let there = target.stat(ctx, namespace, &keys).await?;
    Ok(page
        .items
        .iter()
        .zip(there)
        .any(|(item, stat)| stat.is_some_and(|stat| stat.meta.version == item.meta.version)))
}

fn done(counts: &CopyCounts) -> String {
    let mut text = format!("{} copied", count(counts.copied, "entry", "entries"));
    if counts.unknown > 0 {
        text.push_str(&format!(", {} that may have been copied", counts.unknown));
    }
    if counts.skipped > 0 {
        text.push_str(&format!(", {} that the target already had", counts.skipped));
    }
    text
}

fn partway(counts: &CopyCounts, dry_run: bool, error: Error) -> Failure {
    let done = match dry_run {
        true => format!("{} compared", count(counts.entries(), "entry", "entries")),
        // Repeating would fail again, for example at a name that is too long.
        false if error.kind() == ErrorKind::InvalidArgument => done(counts),
        false => format!("{}; repeat the command to continue", done(counts)),
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
        text.push_str(&format!("; {skipped} skipped, which the target already had"));
    }
    if kept > 0 {
        text.push_str(&format!("; {kept} kept unchanged in the target"));
    }
    if expired > 0 {
        text.push_str(&format!("; {expired} left out, expired by the target's clock"));
    }
    out.note(&text);
    let Some(verified) = verified else { return Ok(()) };
    for (name, side) in [("source", &verified.source), ("target", &verified.target)] {
        let entries = count(side.entries, "entry", "entries");
        out.line(&format!("{name}  {entries}  {} bytes  sha256 {}", side.bytes, side.sha256))?;
    }
    if verified.equal {
        out.note("both stores are equal");
    }
    if verified.expired > 0 {
        let expired = count(verified.expired, "entry", "entries");
        out.note(&format!(
            "{expired} of only one store left out, which had expired or were about to expire"
        ));
    }
    Ok(())
}

fn check_outcome(
    counts: &CopyCounts,
    verified: Option<&Verified>,
    scope: &Scope,
) -> Result<(), Failure> {
    if let Some(verified) = verified
        && !verified.equal
    {
        let Verified { missing, different, extra, unreadable, .. } = *verified;
        return Err(Failure::Incomplete(format!(
            "the stores differ: {missing} missing in the target, {different} different, {extra} only \
             in the target, {unreadable} unreadable; stop all writers and copy again"
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

/// Reports progress, and errors of single entries.
struct ProgressReporter<'a> {
    bar: &'a ProgressBar,
    out: &'a mut Output,
    shown: u64,
}

impl ProgressReporter<'_> {
    fn report_error(&mut self, kind: &str, text: &str) {
        let out = &mut self.out;
        self.bar.suspend(|| out.report_error(kind, text));
    }
}

impl engine::CopyObserver for ProgressReporter<'_> {
    fn progress(&mut self, counts: &CopyCounts) {
        progress::advance(self.bar, counts.entries());
    }

    fn unreadable(&mut self, namespace: &Namespace, key: &str, error: &Error) {
        let (namespace, key) = (escape(namespace.as_str()), escape(key));
        let text = format!("not copied: `{key}` in {namespace}: {error}");
        self.report_error(error.kind().as_str(), &text);
    }
}

impl verify::VerifyObserver for ProgressReporter<'_> {
    fn progress(&mut self, entries: u64) {
        progress::advance(self.bar, entries);
    }

    fn found(&mut self, found: Difference, namespace: &Namespace, key: &str) {
        self.shown += 1;
        if self.shown > MAX_SHOWN {
            return;
        }
        let (namespace, key) = (escape(namespace.as_str()), escape(key));
        let what = match found {
            Difference::Missing => "not in the target",
            Difference::Different => "different in the target",
            Difference::Extra => "only in the target",
            Difference::Unreadable => "not readable in one store",
        };
        let more = if self.shown == MAX_SHOWN { "; more are only counted" } else { "" };
        self.report_error("incomplete", &format!("{what}: `{key}` in {namespace}{more}"));
    }
}
