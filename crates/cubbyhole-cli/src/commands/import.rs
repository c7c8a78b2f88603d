//! `import`: stores JSON Lines, in batches, several at once.

mod in_flight;
mod reader;

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use cubbyhole::{Error, Namespace};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::sync::mpsc;

use self::in_flight::{FinishedBatch, InFlightBatches};
use self::reader::{PendingBatch, Reader, ReaderEvent};
use crate::entries::compression;
use crate::error::Failure;
use crate::output::{count, escape, progress, shown_path, streams};
use crate::session::Session;

const EXAMPLES: &str = "\
Each line is an entry, as `cubbyhole export` writes it:
  {\"namespace\":[\"acme\",\"agent-7\"],\"key\":\"k\",\"value\":<JSON>}
with \"value_base64\" in place of \"value\" for other bytes, and \"expires_at\" (RFC 3339) if it
expires. A header is skipped. Input that Zstandard compressed is recognised and read. Lines that have
expired by the store's time are skipped and counted. Lines of one namespace that are
near each other are stored as a batch, all or nothing, and the last line of a key wins. Batches
are stored in no order of their own; to resume, import the file again, which does no harm.

Examples:
  cubbyhole import dialogs.jsonl
  cubbyhole import backup.jsonl.zst
  zcat backup.jsonl.gz | cubbyhole import --on-error skip";

/// Batches that were read and not yet begun.
const READ_AHEAD: usize = 4;

/// Store the entries of a JSON Lines file
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Import {
    /// The file; `-` or none for standard input
    file: Option<PathBuf>,
    /// What to do about a line that cannot be read: stop there, or report it and go on. The header
    /// of a newer or unknown format always stops
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnError::Stop)]
    on_error: OnError,
    /// Write a line to stdout for each batch once it is stored: namespace, entries, its first and
    /// its last line; lines between these may belong to other batches
    #[arg(long)]
    report_batches: bool,
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
        // Before the store: a mistyped name creates no store.
        let (source, length) = open_source(path)?;
        let store = session.open_or_create().await?;
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let reader = Reader::new(sender, self.on_error == OnError::Stop);
        // Reading blocks, for ever if it is a pipe: a thread that the process need not wait for.
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
            return Err(Failure::Usage("the file is missing: name it, or pipe it in".to_owned()));
        }
        let stdin = streams::stdin();
        let stdin = stdin.map_err(|error| Failure::io("cannot read standard input", error))?;
        return Ok((stdin, None));
    };
    let cannot = |error| Failure::Usage(format!("cannot read {}: {error}", shown_path(path)));
    let mut file = File::open(path).map_err(cannot)?;
    let about = file.metadata().map_err(cannot)?;
    if about.is_dir() {
        return Err(Failure::Usage(format!("{} is a folder and no file", shown_path(path))));
    }
    if about.is_file() {
        // Here too, and not only when it is read: then a store would have been created.
        let refused = |error| Failure::io(format!("cannot import {}", shown_path(path)), error);
        compression::check_file_to_read(&mut file, path).map_err(refused)?;
    }
    // How far it has come is known in bytes of text, which of a compressed file nobody knows.
    let known = about.is_file() && !compression::names_zstd(path);
    let length = known.then_some(about.len());
    Ok((Box::new(file), length))
}

#[derive(Default)]
struct ImportCounts {
    entries: u64,
    /// Hashes in place of names: a million namespaces take 16 MB and not a hundred.
    namespaces: HashSet<u64>,
    hasher: RandomState,
    skipped: u64,
    expired: u64,
    /// Entries of batches that may have been stored or not.
    unknown: u64,
}

/// Why an import ended before the end of its input.
enum StopReason {
    BadLine(String),
    /// The header of a format that this build cannot read. `--on-error skip` does not skip it.
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
        // Whatever ended it, what is on its way is waited for: only then can the count be told.
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
        self.bar.suspend(|| out.complain("invalid_argument", &format!("{text}; skipped")));
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
        // Who resumes by these lines must have each one.
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
        stored.push_str(&format!(", and {} that may be", counts.unknown));
    }
    match ended {
        Ok(()) => {}
        Err(StopReason::BadLine(text)) => {
            return Err(Failure::Incomplete(format!(
                "{text}; stopped there with {stored}; repair it, or go on with --on-error skip"
            )));
        }
        Err(StopReason::UnknownFormat(text)) => {
            return Err(Failure::Incomplete(format!("{text}; stopped there with {stored}")));
        }
        Err(StopReason::Unreadable(error)) => {
            return Err(Failure::io(format!("the input could not be read ({stored})"), error));
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
