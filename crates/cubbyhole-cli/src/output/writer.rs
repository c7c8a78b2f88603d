//! The writer for standard output and standard error.
//!
//! Only data goes to stdout. Messages and errors go to stderr.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cubbyhole::Version;
use serde::Serialize;

use super::escape::{escape, escape_in_json};
use super::streams;
use super::style::{self, Tone};
use crate::error::Failure;

/// How long writing the last message may take.
const LAST_MESSAGE_TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) struct Output {
    json: bool,
    data: Box<dyn Write + Send + Sync>,
    messages: Box<dyn Write + Send + Sync>,
    data_on_terminal: bool,
    messages_on_terminal: bool,
}

impl Output {
    /// Writes to the process's own stdout and stderr.
    pub(crate) fn standard(json: bool) -> Self {
        Self {
            json,
            data: streams::stdout(),
            messages: Box::new(io::stderr()),
            data_on_terminal: io::stdout().is_terminal(),
            messages_on_terminal: io::stderr().is_terminal(),
        }
    }

    /// Writes data and messages to one buffer in memory, in order.
    pub(crate) fn captured() -> (Self, Capture) {
        let capture = Capture::default();
        let out = Self {
            json: false,
            data: Box::new(capture.clone()),
            messages: Box::new(capture.clone()),
            data_on_terminal: false,
            messages_on_terminal: false,
        };
        (out, capture)
    }

    /// Whether the caller asked for JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    pub(crate) fn data_on_terminal(&self) -> bool {
        self.data_on_terminal
    }

    pub(crate) fn messages_on_terminal(&self) -> bool {
        self.messages_on_terminal
    }

    /// Writes bytes to stdout, unescaped.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.data.write_all(bytes).map_err(data_failure)
    }

    /// Writes one line of text to stdout. Control characters are escaped.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.raw(escape(text).as_bytes())?;
        self.raw(b"\n")
    }

    /// Writes one line to stdout whose beginning is coloured.
    pub(crate) fn toned_line(&mut self, head: &str, tone: Tone, rest: &str) -> Result<(), Failure> {
        let head = self.paint(&escape(head), tone);
        self.raw(head.as_bytes())?;
        self.line(rest)
    }

    /// Returns text in the colour of its tone if stdout shows colours.
    pub(crate) fn paint(&self, text: &str, tone: Tone) -> String {
        match style::wanted(self.data_on_terminal && !self.json) {
            true => style::paint(text, tone),
            false => text.to_owned(),
        }
    }

    /// Writes help to stderr, in colours if stderr shows them.
    pub(crate) fn help_on_stderr(&mut self, help: &clap::builder::StyledStr) {
        let text = match style::wanted(self.messages_on_terminal) {
            true => help.ansi().to_string(),
            false => help.to_string(),
        };
        // An error of stderr itself cannot be reported.
        drop(self.messages.write_all(text.as_bytes()));
    }

    /// Writes help to stdout, in colours if stdout shows them.
    pub(crate) fn help(&mut self, help: &clap::builder::StyledStr) -> Result<(), Failure> {
        let text = match style::wanted(self.data_on_terminal) {
            true => help.ansi().to_string(),
            false => help.to_string(),
        };
        self.raw(text.as_bytes())
    }

    /// Writes one line of tab-separated fields to stdout, for programs. Control characters are
    /// escaped.
    pub(crate) fn fields(&mut self, fields: &[String]) -> Result<(), Failure> {
        let fields: Vec<String> = fields.iter().map(|field| escape(field)).collect();
        self.raw(fields.join("\t").as_bytes())?;
        self.raw(b"\n")
    }

    /// Writes a JSON object to stdout, on one line.
    pub(crate) fn object(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.data, object)
            .map_err(|error| data_failure(error.into()))?;
        self.raw(b"\n")
    }

    /// Fails if stdout is closed. For a command that removes the data that it prints.
    pub(crate) fn check_data_can_be_written(&mut self) -> Result<(), Failure> {
        self.data.write(&[]).map(drop).map_err(data_failure)
    }

    /// Flushes stdout.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.data.flush().map_err(data_failure)
    }

    /// Writes a message about the result to stderr. With `--json`, only errors are written there.
    pub(crate) fn note(&mut self, text: &str) {
        if !self.json {
            self.message(text);
        }
    }

    /// Writes a question to stderr, without a line end.
    pub(crate) fn ask(&mut self, question: &str) -> Result<(), Failure> {
        drop(self.data.flush());
        self.messages
            .write_all(escape(question).as_bytes())
            .map_err(|error| Failure::io("cannot write to standard error", error))
    }

    /// Reports an error that does not end the command.
    pub(crate) fn report_error(&mut self, kind: &str, text: &str) {
        let error = ErrorObject { kind, message: text, version: None };
        self.message(&error.line(self.json));
    }

    /// Ends the command: flushes stdout, reports a failure, and returns the exit code.
    pub(crate) fn conclude(&mut self, outcome: Result<(), Failure>, signal: Option<u8>) -> u8 {
        // If the command failed, that failure is reported and not one of the flush.
        let outcome = match outcome {
            Ok(()) => self.flush(),
            Err(failure) => {
                drop(self.flush());
                Err(failure)
            }
        };
        match outcome {
            Ok(()) => 0,
            Err(Failure::ClosedPipe) => 0,
            Err(failure) => {
                self.message(&failure_line(&failure, self.json));
                failure.exit_code(signal)
            }
        }
    }

    fn message(&mut self, text: &str) {
        // Flushing stdout first keeps the order on a terminal. An error of stderr itself cannot be
        // reported.
        drop(self.data.flush());
        let line = shown_message(text, self.json, self.messages_on_terminal);
        drop(self.messages.write_all(line.as_bytes()));
    }
}

#[derive(Serialize)]
struct JsonError<'a> {
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    kind: &'a str,
    message: &'a str,
    /// For a conflict: the current version, or null.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Option<Version>>,
}

impl ErrorObject<'_> {
    fn line(self, json: bool) -> String {
        if json {
            return serde_json::to_string(&JsonError { error: self }).unwrap_or_default();
        }
        format!("cubbyhole: {}", self.message)
    }
}

fn failure_line(failure: &Failure, json: bool) -> String {
    let message = failure.message();
    let version = failure.conflicting_version();
    ErrorObject { kind: failure.kind(), message: &message, version }.line(json)
}

fn message_line(text: &str, json: bool) -> String {
    let mut line = if json { escape_in_json(text) } else { escape(text) };
    line.push('\n');
    line
}

/// Formats a message for stderr.
fn shown_message(text: &str, json: bool, terminal: bool) -> String {
    let line = message_line(text, json);
    if style::wanted(terminal && !json) { style::paint_error(&line) } else { line }
}

/// Reports a failure on stderr and ends the process without waiting for blocked tasks. Does not
/// touch stdout.
pub(crate) fn abandon(json: bool, failure: &Failure, signal: Option<u8>) -> ! {
    let line = shown_message(&failure_line(failure, json), json, io::stderr().is_terminal());
    let (sender, written) = std::sync::mpsc::channel();
    // stderr may be the same blocked pipe as stdout, so the write has a time limit.
    std::thread::spawn(move || {
        clear_bar();
        drop(io::stderr().write_all(line.as_bytes()));
        // The receiver may have timed out.
        let _ = sender.send(());
    });
    // The process ends even if the message was not written.
    let _ = written.recv_timeout(LAST_MESSAGE_TIMEOUT);
    std::process::exit(i32::from(failure.exit_code(signal)))
}

/// Clears the line of a progress bar on the terminal.
pub(crate) fn clear_bar() {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        drop(stderr.write_all(b"\r\x1b[2K"));
    }
}

fn data_failure(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::ClosedPipe;
    }
    Failure::io("cannot write to standard output", error)
}

/// The buffer of [`Output::captured`].
#[derive(Clone, Default)]
pub(crate) struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    pub(crate) fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::escape::disguises;
    use super::*;

    #[test]
    fn message_in_json_is_valid_json() {
        let message = "a\u{202e}b\u{9b}c\u{7f}d\n\"\\\u{2028}\u{2069}";
        let error = Failure::Usage(message.to_owned());
        let line = message_line(&failure_line(&error, true), true);
        assert!(!line.trim_end().contains(|c: char| c.is_control() || disguises(c)), "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["error"]["message"], message);
    }
}
