//! `import`: stores JSON Lines in concurrent batches.

mod in_flight;
mod reader;

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use cubbyhole::{Error, Namespace, NamespacePrefix};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::sync::mpsc;

use self::in_flight::{FinishedBatch, InFlightBatches};
use self::reader::{PendingBatch, Reader, ReaderEvent};
use crate::args::parse::parse_prefix;
use crate::entries::compression;
use crate::entries::rerooting::Rerooting;
use crate::error::Failure;
use crate::output::{count, escape, progress, shown_path, streams};
use crate::session::Session;

const EXAMPLES: &str = "\
Each line is an entry, as `cubbyhole export` writes it:
  {\"namespace\":[\"acme\",\"agent-7\"],\"key\":\"k\",\"value\":<JSON>}
\"value_base64\" replaces \"value\" for other bytes. \"expires_at\" (RFC 3339) sets an expiry. A
header is skipped. \"idle_ttl\" (such as 30m) sets an idle TTL. Input compressed with Zstandard is
detected.

Lines that have expired by the store's clock are skipped and counted. Nearby lines of one namespace
are stored as one atomic batch. If a key is repeated, the last line wins. Batches may be stored in
any order. To resume an interrupted import, import the file again.

Examples:
  cubbyhole import dialogs.jsonl
  cubbyhole import backup.jsonl.zst
  zcat backup.jsonl.gz | cubbyhole import --on-error skip
  cubbyhole import backup.jsonl --from acme:agent-7 --as acme:agent-8";

/// The batches that are read ahead.
const READ_AHEAD: usize = 4;

/// Store the entries of a JSON Lines file
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Import {
    /// File [default: standard input, also written `-`]
    file: Option<PathBuf>,
    /// How to treat an unreadable line: stop, or report and skip it. The header of a newer or
    /// unknown format always stops the import
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnError::Stop)]
    on_error: OnError,
    /// Write a line to stdout for each stored batch: namespace, entries, first line and last line.
    /// Lines in between may belong to other batches
    #[arg(long)]
    report_batches: bool,
    /// Prefix that --as replaces. A line of a namespace that is not under it is unreadable
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix, requires = "to")]
    from: Option<NamespacePrefix>,
    /// Store the entries under this prefix instead of the one of --from: acme:agent-7:chat becomes
    /// acme:agent-8:chat
    #[arg(id = "to", long = "as", value_name = "PREFIX", value_parser = parse_prefix)]
    #[arg(requires = "from")]
    to: Option<NamespacePrefix>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnError {
    Stop,
    Skip,
}

#[derive(Serialize)]
struct ImportSummary {
    entries: u64,
    namespaces: usize,
    skipped: u64,
    expired: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct BatchLine<'a> {
    namespace: &'a Namespace,
    entries: usize,
    first_line: u64,
    last_line: u64,
}

impl Import {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let path = self.file.as_deref().filter(|path| path.as_os_str() != "-");
        // Open the input first: a mistyped name must not create a store.
        let (source, length) = open_source(path)?;
        let store = session.open_or_create().await?;
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let rerooting = self.from.clone().zip(self.to.clone());
        let rerooting = rerooting.map(|(from, to)| Rerooting::new(from, to));
        let reader = Reader::new(sender, self.on_error == OnError::Stop).with_rerooting(rerooting);
        // Reading may block indefinitely on a pipe. The process does not wait for this thread.
        let named = path.map(Path::to_owned);
        std::thread::spawn(move || match compression::reader(source, named.as_deref()) {
            Ok(input) => reader.run(input),
            Err(error) => reader.fail(error),
        });
        let bar = progress::bar(length, &session.out, true);
        let mut run = ImportRun {
            options: &self,
            session,
            in_flight: InFlightBatches::new(store),
            bar,
            counts: ImportCounts::default(),
        };
        let started = tokio::time::Instant::now();
        let ended = run.all(receiver).await;
        run.bar.finish_and_clear();
        let ImportRun { counts, .. } = run;
        let seconds = started.elapsed().as_secs_f64();
        conclude(ended, &counts, seconds, session)
    }
}

fn open_source(path: Option<&Path>) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    let Some(path) = path else {
        if io::stdin().is_terminal() {
            return Err(Failure::Usage(
                "the input is missing: give FILE, or pipe it to standard input".to_owned(),
            ));
        }
        let stdin = streams::stdin();
        let stdin = stdin.map_err(|error| Failure::io("cannot read standard input", error))?;
        return Ok((stdin, None));
    };
    let cannot = |error| Failure::Usage(format!("cannot read {}: {error}", shown_path(path)));
    let mut file = File::open(path).map_err(cannot)?;
    let about = file.metadata().map_err(cannot)?;
    if about.is_dir() {
        return Err(Failure::Usage(format!("{} is a folder, not a file", shown_path(path))));
    }
    if about.is_file() {
        // Checked before reading, because the store is created before that.
        let refused = |error| Failure::io(format!("cannot import {}", shown_path(path)), error);
        compression::check_file_to_read(&mut file, path).map_err(refused)?;
    }
    // Progress is counted in bytes of text, and the size of the text of a compressed file is
    // unknown.
    let known = about.is_file() && !compression::names_zstd(path);
    let length = known.then_some(about.len());
    Ok((Box::new(file), length))
}

#[derive(Default)]
struct ImportCounts {
    entries: u64,
    /// Hashes of names, which need less memory than the names.
    namespaces: HashSet<u64>,
    hasher: RandomState,
    skipped: u64,
    expired: u64,
    /// Entries of batches whose outcome is unknown.
    unknown: u64,
}

/// The reason why an import stopped before the end of its input.
enum StopReason {
    BadLine(String),
    /// The header of an unknown format, which `--on-error skip` does not skip.
    UnknownFormat(String),
    Unreadable(io::Error),
    Store(Error),
    Output(Failure),
}

struct ImportRun<'a> {
    options: &'a Import,
    session: &'a mut Session,
    in_flight: InFlightBatches,
    bar: ProgressBar,
    counts: ImportCounts,
}

impl ImportRun<'_> {
    async fn all(&mut self, receiver: mpsc::Receiver<ReaderEvent>) -> Result<(), StopReason> {
        let outcome = self.until_the_end(receiver).await;
        // Wait for the in-flight batches, so the counts are complete.
        let finished = self.in_flight.drain(outcome.is_err()).await;
        finished.into_iter().fold(outcome, |outcome, finished| outcome.and(self.account(finished)))
    }

    async fn until_the_end(
        &mut self,
        mut receiver: mpsc::Receiver<ReaderEvent>,
    ) -> Result<(), StopReason> {
        let ctx = self.session.ctx.clone();
        let mut waiting: Option<PendingBatch> = None;
        loop {
            if let Some(pending) = waiting.take() {
                waiting = self.in_flight.start(pending);
            }
            tokio::select! {
                biased;
                error = ctx.ended() => return Err(StopReason::Store(error)),
                Some(finished) = self.in_flight.next() => self.account(finished)?,
                read = receiver.recv(), if waiting.is_none() => match read {
                    None => return Ok(()),
                    Some(ReaderEvent::Batch(pending)) => waiting = Some(pending),
                    Some(ReaderEvent::Bad { line, reason }) => self.bad_line(line, &reason)?,
                    Some(ReaderEvent::UnknownFormat { line, reason }) => {
                        return Err(StopReason::UnknownFormat(format!("line {line}: {reason}")));
                    }
                    Some(ReaderEvent::Failed(error)) => return Err(StopReason::Unreadable(error)),
                },
            }
        }
    }

    fn bad_line(&mut self, line: u64, reason: &str) -> Result<(), StopReason> {
        let text = format!("line {line}: {reason}");
        if self.options.on_error == OnError::Stop {
            return Err(StopReason::BadLine(text));
        }
        self.counts.skipped += 1;
        let out = &mut self.session.out;
        self.bar.suspend(|| out.report_error("invalid_argument", &format!("{text}; skipped")));
        Ok(())
    }

    fn account(&mut self, finished: Result<FinishedBatch, Error>) -> Result<(), StopReason> {
        let FinishedBatch { namespace, entries, lines, position, outcome } =
            finished.map_err(StopReason::Store)?;
        let live = match outcome {
            Ok(live) => live,
            Err(error) => {
                if error.may_have_been_applied() {
                    self.counts.unknown += entries as u64;
                }
                return Err(StopReason::Store(error));
            }
        };
        self.counts.entries += live as u64;
        self.counts.expired += (entries - live) as u64;
        if live > 0 {
            self.counts.namespaces.insert(self.counts.hasher.hash_one(&namespace));
        }
        self.bar.set_position(self.bar.position().max(position));
        self.bar.set_message(count(self.counts.entries, "entry", "entries"));
        if self.options.report_batches && live > 0 {
            self.report(&namespace, live, lines).map_err(StopReason::Output)?;
        }
        Ok(())
    }

    fn report(
        &mut self,
        namespace: &Namespace,
        entries: usize,
        (first_line, last_line): (u64, u64),
    ) -> Result<(), Failure> {
        let out = &mut self.session.out;
        if out.json() {
            out.object(&BatchLine { namespace, entries, first_line, last_line })?;
        } else {
            let name = escape(namespace.as_str());
            out.raw(format!("{name}\t{entries}\t{first_line}\t{last_line}\n").as_bytes())?;
        }
        // Flush each line, because callers use them to resume.
        out.flush()
    }
}

fn conclude(
    ended: Result<(), StopReason>,
    counts: &ImportCounts,
    seconds: f64,
    session: &mut Session,
) -> Result<(), Failure> {
    let mut stored = format!("{} stored", count(counts.entries, "entry", "entries"));
    if counts.unknown > 0 {
        stored.push_str(&format!(", and {} that may have been stored", counts.unknown));
    }
    match ended {
        Ok(()) => {}
        Err(StopReason::BadLine(text)) => {
            return Err(Failure::Incomplete(format!(
                "{text}; stopped there with {stored}; fix the line, or continue with --on-error skip"
            )));
        }
        Err(StopReason::UnknownFormat(text)) => {
            return Err(Failure::Incomplete(format!("{text}; stopped there with {stored}")));
        }
        Err(StopReason::Unreadable(error)) => {
            return Err(Failure::io(format!("cannot read the input ({stored})"), error));
        }
        Err(StopReason::Store(error)) => return Err(Failure::Partway { done: stored, error }),
        Err(StopReason::Output(failure)) => return Err(failure),
    }
    let ImportCounts { entries, skipped, expired, .. } = *counts;
    let namespaces = counts.namespaces.len();
    if session.out.json() {
        session.out.object(&ImportSummary { entries, namespaces, skipped, expired, seconds })?;
    }
    session.out.note(&format!(
        "imported {} in {} in {seconds:.1} s ({skipped} skipped, {expired} already expired)",
        count(entries, "entry", "entries"),
        count(namespaces as u64, "namespace", "namespaces"),
    ));
    if skipped > 0 {
        let lines = count(skipped, "line was", "lines were");
        return Err(Failure::Incomplete(format!("{lines} not imported")));
    }
    Ok(())
}
