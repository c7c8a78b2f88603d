//! Why a command did not do what it was asked, and the exit code that says so.

use std::error::Error as _;
use std::io;

use cubbyhole::{Error, ErrorKind, Version};

pub(crate) const EXIT_NOT_FOUND: u8 = 1;
pub(crate) const EXIT_USAGE: u8 = 2;
pub(crate) const EXIT_CONFLICT: u8 = 3;
pub(crate) const EXIT_DEADLINE: u8 = 4;
pub(crate) const EXIT_UNAVAILABLE: u8 = 5;
pub(crate) const EXIT_OTHER: u8 = 6;
pub(crate) const EXIT_HUNG_UP: u8 = 129;
pub(crate) const EXIT_INTERRUPTED: u8 = 130;
pub(crate) const EXIT_TERMINATED: u8 = 143;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The store refused or failed.
    Store(Error),
    /// The same, in the middle of something long: `done` says how far it came, in words that
    /// follow "after".
    Partway { done: String, error: Error },
    /// There is no such entry.
    NotFound(String),
    /// The command line asks for what cannot be.
    Usage(String),
    /// A file or a stream of the tool's own.
    Io { what: String, error: io::Error },
    /// The same, and what a person wrote is kept: `kept` says where.
    Kept { failure: Box<Self>, kept: String },
    /// It was done, but not for everything.
    Incomplete(String),
    /// Nobody reads the output any more, as in `list | head -1`: no failure to speak of.
    ClosedPipe,
}

impl Failure {
    pub(crate) fn io(what: impl Into<String>, error: io::Error) -> Self {
        Self::Io { what: what.into(), error }
    }

    /// The exit code; `signal` is the code of the signal that was received, if one was.
    pub(crate) fn exit_code(&self, signal: Option<u8>) -> u8 {
        match self {
            Self::Store(error) | Self::Partway { error, .. } => match error.kind() {
                ErrorKind::InvalidArgument => EXIT_USAGE,
                ErrorKind::Conflict => EXIT_CONFLICT,
                ErrorKind::DeadlineExceeded => EXIT_DEADLINE,
                ErrorKind::Unavailable => EXIT_UNAVAILABLE,
                ErrorKind::Cancelled => signal.unwrap_or(EXIT_INTERRUPTED),
                _ => EXIT_OTHER,
            },
            Self::Kept { failure, .. } => failure.exit_code(signal),
            Self::NotFound(_) => EXIT_NOT_FOUND,
            Self::Usage(_) => EXIT_USAGE,
            Self::Io { .. } | Self::Incomplete(_) => EXIT_OTHER,
            Self::ClosedPipe => 0,
        }
    }

    /// The same for what must be read by somebody, a record or a service's log: there a closed pipe is
    /// a failure.
    pub(crate) fn where_output_is_wanted(self) -> Self {
        match self {
            Self::ClosedPipe => {
                Self::io("standard output was closed", io::ErrorKind::BrokenPipe.into())
            }
            other => other,
        }
    }

    /// The kind as one word, as JSON errors carry it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Store(error) | Self::Partway { error, .. } => error.kind().as_str(),
            Self::Kept { failure, .. } => failure.kind(),
            Self::NotFound(_) => "not_found",
            Self::Usage(_) => ErrorKind::InvalidArgument.as_str(),
            Self::Io { .. } => "io",
            Self::Incomplete(_) => "incomplete",
            Self::ClosedPipe => "closed_pipe",
        }
    }

    /// For a conflict: the version that stands there, `None` inside if there is none.
    pub(crate) fn conflicting_version(&self) -> Option<Option<Version>> {
        match self {
            Self::Store(error) | Self::Partway { error, .. }
                if error.kind() == ErrorKind::Conflict =>
            {
                Some(error.current_version())
            }
            Self::Kept { failure, .. } => failure.conflicting_version(),
            _ => None,
        }
    }

    /// One line that says what went wrong and what to do.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Store(error) => store_message(error),
            Self::Partway { done, error } => match error.kind() {
                ErrorKind::Cancelled => format!("interrupted after {done}"),
                ErrorKind::DeadlineExceeded => format!("the deadline passed after {done}"),
                _ => format!("stopped after {done}: {}", store_message(error)),
            },
            Self::Kept { failure, kept } => format!("{}; {kept}", failure.message()),
            Self::NotFound(message) | Self::Usage(message) | Self::Incomplete(message) => {
                message.clone()
            }
            Self::Io { what, error } => format!("{what}: {error}"),
            Self::ClosedPipe => "the output was closed".to_owned(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

fn store_message(error: &Error) -> String {
    // An error's own text tells of an unknown outcome by itself.
    let unknown = if error.may_have_been_applied() {
        " (it may have been done all the same; look before you repeat it)"
    } else {
        ""
    };
    let mut message = match error.kind() {
        ErrorKind::Cancelled => format!("interrupted{unknown}"),
        ErrorKind::DeadlineExceeded => {
            format!("the deadline passed; give more time with --timeout{unknown}")
        }
        _ => error.to_string(),
    };
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Engines like to repeat their cause in their own message.
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = cause.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_chain_is_one_line() {
        let io = io::Error::other("the disk is gone");
        let error = Error::unavailable("could not be read").in_operation("get").with_source(io);
        assert_eq!(Failure::from(error).message(), "get: could not be read: the disk is gone");
    }

    #[test]
    fn a_signal_decides_the_code_of_a_cancellation_only() {
        assert_eq!(Failure::from(Error::cancelled()).exit_code(Some(143)), 143);
        assert_eq!(Failure::from(Error::conflict(None)).exit_code(Some(143)), EXIT_CONFLICT);
    }
}
