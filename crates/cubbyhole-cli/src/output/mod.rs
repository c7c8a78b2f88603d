//! Everything that the tool writes to standard output and standard error.

mod escape;
pub(crate) mod progress;
pub(crate) mod streams;
pub(crate) mod style;
mod table;
mod units;
mod writer;

pub(crate) use self::escape::{
    escape, escape_bytes, escape_in_json, is_plain_in_shell, shell_quoted, shown_path,
};
pub(crate) use self::style::Tone;
pub(crate) use self::table::{Align, Table, terminal_width};
pub(crate) use self::units::{ago, count, exact_duration, human_bytes, until};
pub(crate) use self::writer::{Capture, Output, abandon, clear_bar};
