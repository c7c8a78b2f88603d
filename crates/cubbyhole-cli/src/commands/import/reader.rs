//! Reads the input, line by line, into batches; runs on a thread of its own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, BufRead};

use cubbyhole::{Batch, Bytes, Condition, Namespace, PutOptions, limits};
use tokio::sync::mpsc;

use crate::entries::record::{Record, Unreadable};

/// A longer line is a bad one: no entry within the limits takes as much, and an input without line
/// ends must not fill the memory.
const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;

/// A batch is closed once it holds this much, far below the store's limit: many are in memory.
const FULL_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// What open batches hold together, about as much as that takes in memory. The wider the window,
/// the larger the batches of an input whose lines are in no order of their namespaces.
const WINDOW_BYTES: usize = 32 * 1024 * 1024;
/// What an entry and a batch take besides their text.
const ENTRY_OVERHEAD: usize = 256;
const BATCH_OVERHEAD: usize = 512;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What the reader sends.
pub(super) enum ReaderEvent {
    Batch(PendingBatch),
    /// A line that cannot be read.
    Bad {
        line: u64,
        reason: String,
    },
    /// The header of a format that cannot be read. Nothing is read after it.
    UnknownFormat {
        line: u64,
        reason: String,
    },
    Failed(io::Error),
}

/// Lines of one namespace, to be stored all or not at all.
pub(super) struct PendingBatch {
    pub(super) namespace: Namespace,
    pub(super) batch: Batch<Bytes>,
    pub(super) bytes: usize,
    pub(super) first_line: u64,
    pub(super) last_line: u64,
    /// Where in the input its last line ends.
    pub(super) position: u64,
    /// A key that comes again ends the batch, so that the later one wins.
    keys: HashSet<String>,
}

pub(super) struct Reader {
    sender: mpsc::Sender<ReaderEvent>,
    stop_at_bad_line: bool,
    /// The batches that still grow, by their first line: the oldest is the first.
    open: BTreeMap<u64, PendingBatch>,
    /// The first line of the open batch of a namespace.
    open_lines: HashMap<Namespace, u64>,
    /// What the open batches weigh together.
    weight: usize,
    line: u64,
    position: u64,
}

/// The other side has gone: there is nothing more to do.
struct ReceiverClosed;

impl Reader {
    pub(super) fn new(sender: mpsc::Sender<ReaderEvent>, stop_at_bad_line: bool) -> Self {
        Self {
            sender,
            stop_at_bad_line,
            open: BTreeMap::new(),
            open_lines: HashMap::new(),
            weight: 0,
            line: 0,
            position: 0,
        }
    }

    pub(super) fn run(mut self, input: impl BufRead) {
        // `ReceiverClosed` is no news to the one who left.
        drop(self.read_all(input));
    }

    /// Tells that there is nothing to read from.
    pub(super) fn fail(self, error: io::Error) {
        // As above.
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
            match parsed {
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

    /// The line without the mark that some tools put at the head of a file.
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
        let mut options = PutOptions::new();
        if let Some(instant) = record.expires_at {
            options = options.with_expires_at(instant);
        }
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

    /// Sends the oldest batch; answers whether there was one.
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
    /// Passed over; its length.
    TooLong(u64),
    End,
}

/// Reads a line with its end into `buffer`, and at most `most` bytes of it.
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
        // A buffer of three bytes: lines cross its edges.
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
    fn a_line_that_is_too_long_is_passed_over() {
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
    fn a_batch_takes_what_other_namespaces_stand_between_and_ends_at_a_key_that_comes_again() {
        let input =
            [line("a", "1"), line("a", "2"), line("a", "1"), line("b", "1"), line("a", "3")];
        let expected = [("a", 2, 2), ("a", 2, 5), ("b", 1, 4)];
        assert_eq!(
            batches(&format!("\u{feff}{}", input.concat())),
            expected.map(|(name, entries, last)| (name.to_owned(), entries, last))
        );
    }

    #[test]
    fn the_window_of_open_batches_is_bounded() {
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
    fn a_batch_ends_at_the_limit_of_operations() {
        let input: String = (0..1001).map(|number| line("a", &number.to_string())).collect();
        let sizes: Vec<usize> =
            batches(&input).into_iter().map(|(_, entries, _)| entries).collect();
        assert_eq!(sizes, [1000, 1]);
    }
}
