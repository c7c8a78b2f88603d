//! Colours of the output. Only terminals get colours, and only if `NO_COLOR` and `TERM` allow them.

use std::ffi::OsStr;
use std::sync::OnceLock;

use anstyle::{AnsiColor, Style};

/// The prefix of every error message.
const ERROR_PREFIX: &str = "cubbyhole: ";

/// The meaning of a colour or a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Warning,
    Problem,
    Heading,
    Command,
    Aside,
}

/// Whether to write colours to a stream. The environment is read once.
pub(crate) fn wanted(terminal: bool) -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    let read = |name| std::env::var_os(name);
    let judge =
        || allowed(read("NO_COLOR").as_deref(), read("TERM").as_deref(), is_windows_terminal());
    terminal && *ALLOWED.get_or_init(judge)
}

/// Applies <https://no-color.org>: any value of `NO_COLOR` but the empty one disables colours.
fn allowed(no_color: Option<&OsStr>, term: Option<&OsStr>, without_term: bool) -> bool {
    let refused = no_color.is_some_and(|value| !value.is_empty());
    !refused && term.map_or(without_term, |term| term != "dumb")
}

/// Whether the terminal is Windows Terminal. Windows does not set `TERM`, and its old console
/// prints escape codes as text.
fn is_windows_terminal() -> bool {
    cfg!(windows) && std::env::var_os("WT_SESSION").is_some()
}

/// Returns text in the colour of its tone.
pub(crate) fn paint(text: &str, tone: Tone) -> String {
    let coloured = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
    let style = match tone {
        Tone::Good => coloured(AnsiColor::Green),
        Tone::Warning => coloured(AnsiColor::Yellow),
        Tone::Problem => coloured(AnsiColor::Red).bold(),
        Tone::Heading => Style::new().bold(),
        Tone::Command => coloured(AnsiColor::Cyan),
        Tone::Aside => Style::new().dimmed(),
    };
    format!("{style}{text}{style:#}")
}

/// Colours the prefix of an error message.
pub(crate) fn paint_error(line: &str) -> String {
    match line.strip_prefix(ERROR_PREFIX) {
        Some(rest) => format!("{} {rest}", paint(ERROR_PREFIX.trim_end(), Tone::Problem)),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_disables_colours() {
        let allowed = |no_color: Option<&str>, term: Option<&str>| {
            super::allowed(no_color.map(OsStr::new), term.map(OsStr::new), false)
        };
        assert!(allowed(None, Some("xterm-256color")));
        assert!(allowed(Some(""), Some("xterm")));
        assert!(!allowed(Some("0"), Some("xterm")));
        assert!(!allowed(None, Some("dumb")));
        assert!(!allowed(None, None));
        assert!(!wanted(false));
    }

    #[test]
    fn only_the_prefix_of_an_error_is_coloured() {
        assert_eq!(
            paint_error("cubbyhole: no cubbyhole: there\n"),
            "\u{1b}[1m\u{1b}[31mcubbyhole:\u{1b}[0m no cubbyhole: there\n"
        );
        assert_eq!(paint_error("erased 3 entries\n"), "erased 3 entries\n");
        assert_eq!(paint("ok", Tone::Good), "\u{1b}[32mok\u{1b}[0m");
    }
}
