//! `export`: writes entries as JSON Lines.

mod file_target;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ArgGroup, Args};
use cubbyhole::{
    Backend, Bytes, ExecutionContext, Expiry, Namespace, NamespacePrefix, RecursiveScanOptions,
    ScanItem,
};
use indicatif::ProgressBar;
use serde::Serialize;

use self::file_target::{FileTarget, Leftover};
use crate::args::parse::parse_prefix;
use crate::args::scope::Scope;
use crate::entries::compression;
use crate::entries::record::{EntryLine, Header};
use crate::entries::walk::{self, Prefixes};
use crate::error::Failure;
use crate::output::{Output, count, escape, progress, shown_path};
use crate::session::{Session, same_file};

const EXAMPLES: &str = "\
The first line names the format and its version. Each other line is an entry, ordered by namespace
and key:
  {\"namespace\":[\"acme\",\"agent-7\"],\"key\":\"k\",\"value\":<JSON>}
\"expires_at\" is added if the entry expires, and \"idle_ttl\" if it has an idle TTL.
\"value_base64\" replaces \"value\" if the value is not one line of JSON.

An export is not a snapshot, but every entry that exists throughout the export appears exactly once.
If nothing matches, FILE is not changed and the exit code is 1. A new FILE is readable only by its
owner; a replaced FILE keeps its mode.

Examples:
  cubbyhole export acme acme.jsonl
  cubbyhole export --all backup.jsonl.zst        # compressed, because the name ends in .zst
  cubbyhole export --all | gzip > backup.jsonl.gz";

/// The page size, smaller than without values to limit memory.
const PAGE_ENTRIES: usize = 500;

/// Write entries as JSON Lines, to stdout or to a file
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group(ArgGroup::new("which").args(["first", "all"]).required(true).multiple(true)))]
pub(crate) struct Export {
    /// Prefix: a tenant and segments, as in acme:agent-7. With --all there is no prefix, and this
    /// argument is the FILE
    #[arg(value_name = "PREFIX")]
    first: Option<String>,
    /// File, which is replaced only after everything is written [default: stdout]
    #[arg(value_name = "FILE", conflicts_with = "all")]
    second: Option<PathBuf>,
    /// Export every tenant
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Default, Serialize)]
struct Exported {
    entries: u64,
    namespaces: u64,
    skipped: u64,
}

impl Export {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        // With `--all` the first argument is the file.
        let (scope, file) = match (self.all, self.first) {
            (true, file) => (Scope(None), file.map(PathBuf::from)),
            (false, first) => {
                let prefix = parse_prefix(&first.unwrap_or_default()).map_err(Failure::Usage)?;
                (Scope(Some(prefix)), self.second)
            }
        };
        let scope = session.store.narrow(scope)?;
        let file = file.filter(|path| path.as_os_str() != "-");
        if let Some(file) = &file {
            compression::check_name_to_write(file).map_err(Failure::Usage)?;
        }
        let store = session.open_read_only().await?;
        if let Some(file) = &file {
            refuse_stores(file, session.store.file().as_deref())?;
        }
        let target = match &file {
            Some(file) => Some(create_target(file, &mut session.out)?),
            None => None,
        };
        let ctx = session.ctx.clone();
        // No bar if the entries themselves are written to the terminal.
        let total = match target.is_some() && session.out.messages_on_terminal() {
            true => Some(walk::usage(&scope, &store, &ctx).await?.entries),
            false => None,
        };
        let bar = progress::bar(total, &session.out, target.is_some());
        let out = &mut session.out;
        let mut walk = Walk::new(store, ctx, out, target, bar.clone());
        let outcome = walk.all(&scope).await;
        bar.finish_and_clear();
        let Walk { target, done, .. } = walk;
        if let Err(failure) = outcome {
            return Err(explain(failure, &done, file.as_deref()));
        }
        if done.entries == 0 && done.skipped == 0 {
            return Err(nothing(&scope, file.as_deref()));
        }
        // An export without a readable entry does not replace the file.
        if let Some(target) = target
            && done.entries > 0
        {
            target.keep()?;
        }
        conclude(&done, file.is_some(), &mut session.out)
    }
}

/// Creates the file, and reports temporary files that earlier exports left behind.
fn create_target(file: &Path, out: &mut Output) -> Result<FileTarget, Failure> {
    let (target, leftovers) = FileTarget::create(file)?;
    for leftover in leftovers {
        match &leftover {
            Leftover::Removed(_) => out.note(&leftover.message()),
            Leftover::Kept(..) => out.report_error("io", &leftover.message()),
        }
    }
    Ok(target)
}

fn nothing(scope: &Scope, file: Option<&Path>) -> Failure {
    let mut text = format!("there is no entry {scope}");
    match file {
        Some(file) if file.exists() => {
            text.push_str(&format!("; {} is unchanged", shown_path(file)));
        }
        Some(file) => text.push_str(&format!("; {} was not written", shown_path(file))),
        None => {}
    }
    Failure::NotFound(text)
}

/// Refuses to replace a store, in particular the one that is exported.
fn refuse_stores(file: &Path, store: Option<&Path>) -> Result<(), Failure> {
    let shown = shown_path(file);
    if store.is_some_and(|store| same_file(file, store)) {
        return Err(Failure::Usage(format!(
            "{shown} is the store itself; name another file for the export"
        )));
    }
    // A file that cannot be read is reported when it is written.
    if cubbyhole::embedded::is_store_file(file).is_ok_and(|is_store| is_store) {
        return Err(Failure::Usage(format!(
            "{shown} is a store, and the export would replace it; name another file"
        )));
    }
    Ok(())
}

/// Adds the progress to the failure of an interrupted export.
fn explain(failure: Failure, done: &Exported, file: Option<&Path>) -> Failure {
    let Failure::Store(error) = failure else { return failure };
    let mut text = format!("{} exported", count(done.entries, "entry", "entries"));
    if let Some(file) = file {
        text.push_str(&format!("; {} is unchanged", shown_path(file)));
    }
    Failure::Partway { done: text, error }
}

fn conclude(done: &Exported, to_file: bool, out: &mut Output) -> Result<(), Failure> {
    // If the entries are written to stdout, nothing else is.
    if out.json() && to_file {
        out.object(done)?;
    }
    out.note(&format!(
        "exported {} in {}",
        count(done.entries, "entry", "entries"),
        count(done.namespaces, "namespace", "namespaces")
    ));
    if done.skipped > 0 {
        let skipped = count(done.skipped, "entry", "entries");
        return Err(Failure::Incomplete(format!(
            "{skipped} could not be read and {} not in the export",
            if done.skipped == 1 { "is" } else { "are" }
        )));
    }
    Ok(())
}

struct Walk<'a> {
    store: Arc<dyn Backend>,
    ctx: ExecutionContext,
    out: &'a mut Output,
    target: Option<FileTarget>,
    bar: ProgressBar,
    done: Exported,
    /// The namespace of the last entry.
    last: Option<Namespace>,
}

impl<'a> Walk<'a> {
    fn new(
        store: Arc<dyn Backend>,
        ctx: ExecutionContext,
        out: &'a mut Output,
        target: Option<FileTarget>,
        bar: ProgressBar,
    ) -> Self {
        Self { store, ctx, out, target, bar, done: Exported::default(), last: None }
    }

    async fn all(&mut self, scope: &Scope) -> Result<(), Failure> {
        let mut prefixes = Prefixes::new(Arc::clone(&self.store), self.ctx.clone(), scope);
        while let Some(prefix) = prefixes.next().await? {
            self.under(&prefix).await?;
        }
        Ok(())
    }

    async fn under(&mut self, prefix: &NamespacePrefix) -> Result<(), Failure> {
        let mut options = RecursiveScanOptions::new().with_limit(PAGE_ENTRIES);
        loop {
            let page = self.store.scan_recursive(&self.ctx, prefix, options.clone()).await?;
            for (namespace, item) in &page.items {
                self.entry(namespace, item)?;
            }
            progress::advance(&self.bar, self.done.entries);
            match page.next {
                Some(next) => options = options.with_after(next),
                None => return Ok(()),
            }
        }
    }

    fn entry(&mut self, namespace: &Namespace, item: &ScanItem<Bytes>) -> Result<(), Failure> {
        let value = match &item.value {
            Some(Ok(value)) => value,
            Some(Err(error)) => {
                let (namespace, key) = (escape(namespace.as_str()), escape(&item.key));
                let text = format!("skipped `{key}` in {namespace}: {error}");
                let out = &mut self.out;
                self.bar.suspend(|| out.report_error(error.kind().as_str(), &text));
                self.done.skipped += 1;
                return Ok(());
            }
            None => return Err(cubbyhole::Error::internal("a page came without values").into()),
        };
        let line = EntryLine::new(namespace, &item.key)
            .with_value(value)
            .with_expiry(Expiry::of(&item.meta));
        if self.done.entries == 0 {
            // Written with the first entry, so an export without entries writes nothing.
            write(&mut self.target, self.out, &Header::new())?;
        }
        write(&mut self.target, self.out, &line)?;
        self.done.entries += 1;
        if self.last.as_ref() != Some(namespace) {
            self.done.namespaces += 1;
            self.last = Some(namespace.clone());
        }
        Ok(())
    }
}

fn write(
    target: &mut Option<FileTarget>,
    out: &mut Output,
    line: &impl Serialize,
) -> Result<(), Failure> {
    match target {
        Some(target) => target.write(line),
        None => out.object(line),
    }
}

#[cfg(test)]
mod tests {
    use cubbyhole::{EntryMeta, Error, Timestamp, Version};

    use super::*;

    fn item(key: &str, value: cubbyhole::Result<Bytes>) -> ScanItem<Bytes> {
        let now = Timestamp::EPOCH;
        let version = Version::draw();
        let (created_at, updated_at) = (now, now);
        let meta = EntryMeta { version, created_at, updated_at, expires_at: None, idle_ttl: None };
        ScanItem { key: key.to_owned(), meta, value_bytes: None, value: Some(value) }
    }

    #[tokio::test]
    async fn unreadable_entry_is_reported_and_skipped() {
        let ctx = ExecutionContext::new();
        let store = cubbyhole::open(&ctx, "memory:").await.unwrap();
        let namespace = Namespace::parse("acme").unwrap();
        let (mut out, capture) = Output::captured();
        let mut walk = Walk::new(store, ctx, &mut out, None, ProgressBar::hidden());
        for (key, value) in [
            ("a", Ok(Bytes::from_static(b"1"))),
            ("b", Err(Error::corrupt("the checksum is wrong"))),
            ("c", Ok(Bytes::from_static(b"3"))),
        ] {
            walk.entry(&namespace, &item(key, value)).unwrap();
        }
        let Walk { done, .. } = walk;
        let outcome = conclude(&done, false, &mut out);
        assert_eq!(outcome.unwrap_err().exit_code(None), crate::error::EXIT_OTHER);
        let expected = "{\"format\":\"cubbyhole-export\",\"version\":1}\n\
             {\"namespace\":[\"acme\"],\"key\":\"a\",\"value\":1}\n\
             cubbyhole: skipped `b` in acme: the checksum is wrong\n\
             {\"namespace\":[\"acme\"],\"key\":\"c\",\"value\":3}\n\
             exported 2 entries in 1 namespace\n";
        assert_eq!(capture.take(), expected);
    }
}
