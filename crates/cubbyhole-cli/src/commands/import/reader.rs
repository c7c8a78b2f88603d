//! Reads the input into batches, on a separate thread.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, BufRead};

use cubbyhole::{Batch, Bytes, Condition, Namespace, PutOptions, limits};
use tokio::sync::mpsc;

use crate::entries::record::{Record, Unreadable};
use crate::entries::rerooting::Rerooting;

/// The maximum length of a line, larger than that of any valid entry. It bounds memory for input
/// without line ends.
const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;

/// The size at which a batch is closed. It is far below the limit of a store, because many batches
/// are in memory.
const FULL_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The approximate memory of all open batches. A larger window gives larger batches if the lines
/// are not grouped by namespace.
const WINDOW_BYTES: usize = 32 * 1024 * 1024;
/// The memory of an entry and of a batch in addition to their text.
const ENTRY_OVERHEAD: usize = 256;
const BATCH_OVERHEAD: usize = 512;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A message of the reader.
pub(super) enum ReaderEvent {
    Batch(PendingBatch),
    /// A malformed line.
    Bad {
        line: u64,
        reason: String,
    },
    /// The header of an unknown format, which ends the reader.
    UnknownFormat {
        line: u64,
        reason: String,
    },
    Failed(io::Error),
}

/// Lines of one namespace, to be stored atomically.
pub(super) struct PendingBatch {
    pub(super) namespace: Namespace,
    pub(super) batch: Batch<Bytes>,
    pub(super) bytes: usize,
    pub(super) first_line: u64,
    pub(super) last_line: u64,
    /// The position in the input after its last line.
    pub(super) position: u64,
    /// The keys. A repeated key ends the batch, so the later line wins.
    keys: HashSet<String>,
}

pub(super) struct Reader {
    sender: mpsc::Sender<ReaderEvent>,
    stop_at_bad_line: bool,
    /// Renames the namespaces.
    rerooting: Option<Rerooting>,
    /// The open batches by their first line, the oldest first.
    open: BTreeMap<u64, PendingBatch>,
    /// The first line of the open batch of each namespace.
    open_lines: HashMap<Namespace, u64>,
    /// The approximate memory of the open batches.
    weight: usize,
    line: u64,
    position: u64,
}

/// The receiver was dropped, which ends the reader.
struct ReceiverClosed;

impl Reader {
    pub(super) fn new(sender: mpsc::Sender<ReaderEvent>, stop_at_bad_line: bool) -> Self {
        Self {
            sender,
            stop_at_bad_line,
            rerooting: None,
            open: BTreeMap::new(),
            open_lines: HashMap::new(),
            weight: 0,
            line: 0,
            position: 0,
        }
    }

    /// Renames the namespaces. A line of another namespace counts as malformed.
    pub(super) fn with_rerooting(mut self, rerooting: Option<Rerooting>) -> Self {
        self.rerooting = rerooting;
        self
    }

    pub(super) fn run(mut self, input: impl BufRead) {
        // The receiver knows that it is closed.
        drop(self.read_all(input));
    }

    /// Reports that the input cannot be read.
    pub(super) fn fail(self, error: io::Error) {
        // The receiver knows that it is closed.
        drop(self.send(ReaderEvent::Failed(error)));
    }

    fn read_all(&mut self, mut input: impl BufRead) -> Result<(), ReceiverClosed> {
        let mut buffer = Vec::new();
        loop {
            let line = match read_line(&mut input, &mut buffer, MAX_LINE_BYTES) {
                Ok(ReadLine::End) => return self.close_all(),
                Ok(line) => line,
                Err(error) => {
                    self.close_all()?;
                    return self.send(ReaderEvent::Failed(error));
                }
            };
            self.line += 1;
            let parsed = match line {
                ReadLine::TooLong(length) => {
                    self.position += length;
                    Err(Unreadable::Line(format!("longer than {MAX_LINE_BYTES} bytes")))
                }
                ReadLine::Whole | ReadLine::End => {
                    self.position += buffer.len() as u64;
                    Record::parse(self.text(&buffer))
                }
            };
            match parsed.and_then(|record| self.renamed(record)) {
                Ok(Some(record)) => self.accept(record)?,
                Ok(None) => {}
                Err(Unreadable::Format(reason)) => {
                    self.close_all()?;
                    return self.send(ReaderEvent::UnknownFormat { line: self.line, reason });
                }
                Err(Unreadable::Line(reason)) => {
                    if self.stop_at_bad_line {
                        self.close_all()?;
                        return self.send(ReaderEvent::Bad { line: self.line, reason });
                    }
                    self.send(ReaderEvent::Bad { line: self.line, reason })?;
                }
            }
        }
    }

    fn renamed(&self, record: Option<Record>) -> Result<Option<Record>, Unreadable> {
        let Some(rerooting) = &self.rerooting else { return Ok(record) };
        let Some(record) = record else { return Ok(None) };
        let namespace =
            rerooting.apply(&record.namespace).map_err(|error| error.message().to_owned())?;
        Ok(Some(Record { namespace, ..record }))
    }

    /// Removes the byte order mark that some tools write at the start of a file.
    fn text<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        match self.line {
            1 => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
            _ => line,
        }
    }

    fn accept(&mut self, record: Record) -> Result<(), ReceiverClosed> {
        let bytes = record.key.len() + record.value.len();
        if let Some(first) = self.open_lines.get(&record.namespace).copied()
            && self.open.get(&first).is_some_and(|open| !open.has_room_for(&record, bytes))
        {
            self.close_batch(first)?;
        }
        let line = self.line;
        let open_lines = &mut self.open_lines;
        let first = match open_lines.get(&record.namespace) {
            Some(first) => *first,
            None => {
                self.weight += BATCH_OVERHEAD;
                open_lines.insert(record.namespace.clone(), line);
                line
            }
        };
        let open = self.open.entry(first).or_insert_with(|| PendingBatch {
            namespace: record.namespace,
            batch: Batch::new(),
            bytes: 0,
            first_line: line,
            last_line: 0,
            position: 0,
            keys: HashSet::new(),
        });
        let options = PutOptions::new().with_expiry(record.expiry);
        open.keys.insert(record.key.clone());
        open.batch.push(cubbyhole::Operation::Put {
            key: record.key,
            value: record.value,
            options,
            condition: Condition::Always,
        });
        open.bytes += bytes;
        open.last_line = line;
        open.position = self.position;
        self.weight += bytes + ENTRY_OVERHEAD;
        while self.weight > WINDOW_BYTES && self.close_oldest()? {}
        Ok(())
    }

    /// Sends the oldest batch. Returns whether there was one.
    fn close_oldest(&mut self) -> Result<bool, ReceiverClosed> {
        match self.open.keys().next().copied() {
            Some(first) => self.close_batch(first).map(|()| true),
            None => Ok(false),
        }
    }

    fn close_all(&mut self) -> Result<(), ReceiverClosed> {
        while self.close_oldest()? {}
        Ok(())
    }

    fn close_batch(&mut self, first: u64) -> Result<(), ReceiverClosed> {
        let Some(pending) = self.open.remove(&first) else { return Ok(()) };
        self.open_lines.remove(&pending.namespace);
        self.weight -= pending.weight();
        self.send(ReaderEvent::Batch(pending))
    }

    fn send(&self, read: ReaderEvent) -> Result<(), ReceiverClosed> {
        self.sender.blocking_send(read).map_err(|_| ReceiverClosed)
    }
}

impl PendingBatch {
    fn weight(&self) -> usize {
        BATCH_OVERHEAD + self.batch.len() * ENTRY_OVERHEAD + self.bytes
    }

    fn has_room_for(&self, record: &Record, bytes: usize) -> bool {
        self.batch.len() < limits::MAX_BATCH_OPERATIONS
            && self.bytes + bytes <= FULL_BATCH_BYTES
            && !self.keys.contains(&record.key)
    }
}

#[derive(Debug, PartialEq)]
enum ReadLine {
    Whole,
    /// A skipped line, with its length.
    TooLong(u64),
    End,
}

/// Reads a line with its end into `buffer`. A line of more than `most` bytes is skipped.
fn read_line(input: &mut impl BufRead, buffer: &mut Vec<u8>, most: usize) -> io::Result<ReadLine> {
    buffer.clear();
    let mut length = 0_u64;
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = available.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(available.len(), |at| at + 1);
        if buffer.len() + used <= most && length == buffer.len() as u64 {
            buffer.extend_from_slice(&available[..used]);
        }
        length += used as u64;
        input.consume(used);
        if end.is_some() || used == 0 {
            return Ok(match length {
                0 => ReadLine::End,
                _ if length == buffer.len() as u64 => ReadLine::Whole,
                _ => ReadLine::TooLong(length),
            });
        }
    }
}

#[cfg(test)]
mod hostile;

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8], most: usize) -> Vec<(ReadLine, Vec<u8>)> {
        // A buffer of three bytes splits the lines.
        let mut input = io::BufReader::with_capacity(3, input);
        let mut buffer = Vec::new();
        let mut lines = Vec::new();
        loop {
            match read_line(&mut input, &mut buffer, most).unwrap() {
                ReadLine::End => return lines,
                ReadLine::Whole => lines.push((ReadLine::Whole, buffer.clone())),
                line => lines.push((line, Vec::new())),
            }
        }
    }

    #[test]
    fn line_that_is_too_long_is_skipped() {
        let found = lines(b"abcd\nabcdefgh\n\nxyz", 5);
        let expected = [
            (ReadLine::Whole, b"abcd\n".to_vec()),
            (ReadLine::TooLong(9), Vec::new()),
            (ReadLine::Whole, b"\n".to_vec()),
            (ReadLine::Whole, b"xyz".to_vec()),
        ];
        assert_eq!(found, expected);
    }

    fn batches(input: &str) -> Vec<(String, usize, u64)> {
        let (sender, mut receiver) = mpsc::channel(100);
        Reader::new(sender, false).run(input.as_bytes());
        let mut found = Vec::new();
        while let Some(read) = receiver.blocking_recv() {
            if let ReaderEvent::Batch(pending) = read {
                let name = pending.namespace.to_string();
                found.push((name, pending.batch.len(), pending.last_line));
            }
        }
        found
    }

    fn line(namespace: &str, key: &str) -> String {
        format!("{{\"namespace\":[\"{namespace}\"],\"key\":\"{key}\",\"value\":1}}\n")
    }

    #[test]
    fn batch_spans_other_namespaces_and_ends_at_a_repeated_key() {
        let input =
            [line("a", "1"), line("a", "2"), line("a", "1"), line("b", "1"), line("a", "3")];
        let expected = [("a", 2, 2), ("a", 2, 5), ("b", 1, 4)];
        assert_eq!(
            batches(&format!("\u{feff}{}", input.concat())),
            expected.map(|(name, entries, last)| (name.to_owned(), entries, last))
        );
    }

    #[test]
    fn memory_of_open_batches_is_bounded() {
        let most = WINDOW_BYTES / (ENTRY_OVERHEAD + BATCH_OVERHEAD);
        let input: String = (0..most + 10).map(|number| line(&format!("n{number}"), "k")).collect();
        let (sender, mut receiver) = mpsc::channel(2 * most);
        let mut reader = Reader::new(sender, true);
        for text in input.lines() {
            reader.line += 1;
            assert!(reader.accept(Record::parse(text.as_bytes()).unwrap().unwrap()).is_ok());
        }
        assert!(reader.weight <= WINDOW_BYTES && reader.open.len() > most / 2);
        assert_eq!(reader.open.len(), reader.open_lines.len());
        let Ok(ReaderEvent::Batch(first)) = receiver.try_recv() else { panic!("nothing was sent") };
        assert_eq!(first.first_line, 1);
        assert!(reader.close_all().is_ok());
        assert_eq!((reader.weight, reader.open_lines.len()), (0, 0));
    }

    #[test]
    fn batch_ends_at_the_operation_limit() {
        let input: String = (0..1001).map(|number| line("a", &number.to_string())).collect();
        let sizes: Vec<usize> =
            batches(&input).into_iter().map(|(_, entries, _)| entries).collect();
        assert_eq!(sizes, [1000, 1]);
    }
}
