//! The progress bar or spinner of a long command, on stderr and only on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::writer::Output;

/// Creates a bar up to `length`, or a spinner if the length is unknown. The bar is hidden unless
/// `wanted`.
///
/// The message is cut to the width of the terminal, because a wrapped line cannot be cleared.
pub(crate) fn bar(length: Option<u64>, out: &Output, wanted: bool) -> ProgressBar {
    if !wanted || !out.messages_on_terminal() || out.json() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        Some(length) => {
            (ProgressBar::new(length), "{bar:16} {percent:>3} %  {wide_msg} {eta_precise} left")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {elapsed_precise}  {wide_msg}"),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Updates a bar that counts entries.
pub(crate) fn advance(bar: &ProgressBar, entries: u64) {
    if bar.is_hidden() {
        return;
    }
    bar.set_position(entries);
    bar.set_message(format!("{entries} entries, {:.0} a second", bar.per_sec()));
}
