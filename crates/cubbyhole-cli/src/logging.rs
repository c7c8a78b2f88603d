//! The log of `-v`: events of the tool and the library, on stderr.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use cubbyhole::{Clock, SystemClock};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{fmt as tracing_fmt, registry};

use crate::args::globals::{Globals, LogFormat};
use crate::output::{clear_bar, escape, escape_in_json, style};

/// The prefix of the tracing targets of this tool and its library: the names of their crates.
const OURS: &str = "cubbyhole";

/// The tracing target of the tool.
pub(crate) const TARGET: &str = "cubbyhole::tool";

/// Installs the subscriber for `-v`. Without `-v` nothing is logged, because the tool reports
/// errors itself.
pub(crate) fn install(globals: &Globals) {
    let (ours, others) = levels(globals.verbose);
    if ours == LevelFilter::OFF {
        return;
    }
    let filter = Targets::new().with_target(OURS, ours).with_default(others);
    // With JSON errors, a program reads stderr.
    let default_format = if globals.json { LogFormat::Json } else { LogFormat::Text };
    let format = globals.log_format.unwrap_or(default_format);
    let terminal = io::stderr().is_terminal();
    let stderr = Stderr { format, terminal, colours: style::wanted(terminal) };
    // This fails only if a subscriber is already installed. That one then logs.
    let _ = match format {
        LogFormat::Text => {
            let layer = tracing_fmt::layer().with_timer(Instants).with_ansi(stderr.colours);
            let layer = layer.with_writer(stderr);
            tracing::subscriber::set_global_default(registry().with(filter).with(layer))
        }
        LogFormat::Json => {
            // Fields are nested, not flattened: a field may be named `error`, and readers recognise
            // the tool's own error object by that key.
            let layer = tracing_fmt::layer().json().with_timer(Instants).with_span_list(false);
            let layer = layer.with_ansi(false).with_writer(Stderr { colours: false, ..stderr });
            tracing::subscriber::set_global_default(registry().with(filter).with(layer))
        }
    };
}

/// Logs the end of a command.
pub(crate) fn ended(command: &str, exit_code: u8, took: Duration) {
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(target: TARGET, command, exit_code, took_ms, "the command ended");
}

/// Returns two levels: one for the tool and its library, and a lower one for other crates, because
/// those log much more.
fn levels(verbose: u8) -> (LevelFilter, LevelFilter) {
    match verbose {
        0 => (LevelFilter::OFF, LevelFilter::OFF),
        1 => (LevelFilter::INFO, LevelFilter::WARN),
        2 => (LevelFilter::DEBUG, LevelFilter::WARN),
        _ => (LevelFilter::TRACE, LevelFilter::DEBUG),
    }
}

/// Formats timestamps like the rest of the output.
struct Instants;

impl FormatTime for Instants {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", SystemClock.now())
    }
}

/// Writes log lines to standard error.
#[derive(Clone, Copy)]
struct Stderr {
    format: LogFormat,
    terminal: bool,
    colours: bool,
}

impl Stderr {
    /// Escapes a log line, so no name or message in it can break the line.
    fn line(self, text: &str) -> String {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let mut line = match self.format {
            LogFormat::Json => escape_in_json(text),
            LogFormat::Text if self.colours => {
                // Keep the escape characters: they are the subscriber's own, which escapes those in
                // fields.
                text.split('\u{1b}').map(escape).collect::<Vec<_>>().join("\u{1b}")
            }
            LogFormat::Text => escape(text),
        };
        line.push('\n');
        line
    }
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.terminal {
            // Remove a progress bar; its next tick draws it again.
            clear_bar();
        }
        io::stderr().write_all(self.line(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Stderr {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_crates_log_less() {
        let shown = |verbose| {
            let (ours, others) = levels(verbose);
            (ours.to_string(), others.to_string())
        };
        let pair = |ours: &str, others: &str| (ours.to_owned(), others.to_owned());
        assert_eq!(shown(0), pair("off", "off"));
        assert_eq!(shown(1), pair("info", "warn"));
        assert_eq!(shown(2), pair("debug", "warn"));
        assert_eq!(shown(3), pair("trace", "debug"));
        assert_eq!(shown(255), shown(3));
    }

    #[test]
    fn log_line_cannot_be_broken() {
        let text = "\u{1b}[32m INFO\u{1b}[0m a\nb\u{202e}c\n";
        let stderr = |format, colours| Stderr { format, terminal: false, colours };
        let plain = stderr(LogFormat::Text, false).line(text);
        assert_eq!(plain, "\\x1b[32m INFO\\x1b[0m a\\nb\\u{202e}c\n");
        let coloured = stderr(LogFormat::Text, true).line(text);
        assert_eq!(coloured, "\u{1b}[32m INFO\u{1b}[0m a\\nb\\u{202e}c\n");
        let json = stderr(LogFormat::Json, false).line("{\"a\":\"\u{202e}\"}\n");
        assert_eq!(json, "{\"a\":\"\\u202e\"}\n");
    }
}
