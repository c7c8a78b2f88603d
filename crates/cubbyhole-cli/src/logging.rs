//! `-v`: what the tool and the library tell of their work, on stderr.

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

/// The targets of this tool and of its library, which are the names of their crates.
const OURS: &str = "cubbyhole";

/// The target of what the tool itself tells.
pub(crate) const TARGET: &str = "cubbyhole::tool";

/// Installs the subscriber that `-v` asks for. Without it nothing is told: an error is the tool's
/// own message already.
pub(crate) fn install(globals: &Globals) {
    let (ours, others) = levels(globals.verbose);
    if ours == LevelFilter::OFF {
        return;
    }
    let filter = Targets::new().with_target(OURS, ours).with_default(others);
    // Where errors are JSON, stderr is read by a program.
    let usual = if globals.json { LogFormat::Json } else { LogFormat::Text };
    let format = globals.log_format.unwrap_or(usual);
    let terminal = io::stderr().is_terminal();
    let stderr = Stderr { format, terminal, colours: style::wanted(terminal) };
    // It fails only where there is a subscriber already, which then tells.
    let _ = match format {
        LogFormat::Text => {
            let layer = tracing_fmt::layer().with_timer(Instants).with_ansi(stderr.colours);
            let layer = layer.with_writer(stderr);
            tracing::subscriber::set_global_default(registry().with(filter).with(layer))
        }
        LogFormat::Json => {
            // The fields stand by themselves: one may be named `error`, which is how an object
            // begins that tells why the command failed.
            let layer = tracing_fmt::layer().json().with_timer(Instants).with_span_list(false);
            let layer = layer.with_ansi(false).with_writer(Stderr { colours: false, ..stderr });
            tracing::subscriber::set_global_default(registry().with(filter).with(layer))
        }
    };
}

/// Tells how a command ended.
pub(crate) fn ended(command: &str, exit_code: u8, took: Duration) {
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(target: TARGET, command, exit_code, took_ms, "the command ended");
}

/// What is told of the tool and its library, and of the crates beneath. Those have much to say
/// that helps only who looks for everything.
fn levels(verbose: u8) -> (LevelFilter, LevelFilter) {
    match verbose {
        0 => (LevelFilter::OFF, LevelFilter::OFF),
        1 => (LevelFilter::INFO, LevelFilter::WARN),
        2 => (LevelFilter::DEBUG, LevelFilter::WARN),
        _ => (LevelFilter::TRACE, LevelFilter::DEBUG),
    }
}

/// Instants in the form that the rest of the output has them.
struct Instants;

impl FormatTime for Instants {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", SystemClock.now())
    }
}

/// Standard error, a line at a time.
#[derive(Clone, Copy)]
struct Stderr {
    format: LogFormat,
    terminal: bool,
    colours: bool,
}

impl Stderr {
    /// A line that stays one, whatever a name or a message in it holds.
    fn line(self, text: &str) -> String {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let mut line = match self.format {
            LogFormat::Json => escape_in_json(text),
            LogFormat::Text if self.colours => {
                // Only the subscriber's own are left: it escapes those in fields.
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
            // A bar may stand there; it comes back by itself.
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
    fn others_are_told_of_less() {
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
    fn a_line_stays_a_line() {
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
