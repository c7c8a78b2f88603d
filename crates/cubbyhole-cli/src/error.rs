//! Failures of commands, their messages and their exit codes.

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

/// The failure of a command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error of the store.
    Store(Error),
    /// An error of the store in the middle of a long command. `done` describes the progress in
    /// words that follow "after".
    Partway { done: String, error: Error },
    /// No entry matches.
    NotFound(String),
    /// The command line or the configuration is wrong.
    Usage(String),
    /// An I/O error of a file or stream that the tool uses.
    Io { what: String, error: io::Error },
    /// A failure after which the text that a person wrote is kept. `kept` says where.
    Kept { failure: Box<Self>, kept: String },
    /// The command worked, but not for every entry.
    Incomplete(String),
    /// The reader of stdout is gone, as in `list | head -1`. This is not reported as a failure.
    ClosedPipe,
}

impl Failure {
    pub(crate) fn io(what: impl Into<String>, error: io::Error) -> Self {
        Self::Io { what: what.into(), error }
    }

    /// Returns the exit code. `signal` is the exit code of a received signal.
    pub(crate) fn exit_code(&self, signal: Option<u8>) -> u8 {
        match self {
            Self::Store(error) | Self::Partway { error, .. } => match error.kind() {
                ErrorKind::InvalidArgument => EXIT_USAGE,
                ErrorKind::Conflict => EXIT_CONFLICT,
                ErrorKind::DeadlineExceeded => EXIT_DEADLINE,
                ErrorKind::Unavailable | ErrorKind::RateLimited => EXIT_UNAVAILABLE,
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

    /// Turns a closed pipe into a failure, for output that must not be lost: the record of an
    /// erasure or the log of a service.
    pub(crate) fn with_closed_pipe_as_error(self) -> Self {
        match self {
            Self::ClosedPipe => {
                Self::io("standard output was closed", io::ErrorKind::BrokenPipe.into())
            }
            other => other,
        }
    }

    /// Returns the kind of failure as one word, for JSON errors.
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

    /// For a conflict, returns the current version: `Some(None)` if there is no entry.
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

    /// Returns one line that says what failed and what to do.
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
    // The text of other errors already mentions an unknown outcome.
    let unknown = if error.may_have_been_applied() {
        " (it may have taken effect; check before you repeat it)"
    } else {
        ""
    };
    let mut message = match error.kind() {
        ErrorKind::Cancelled => format!("interrupted{unknown}"),
        ErrorKind::DeadlineExceeded => {
            format!("the deadline passed; allow more time with --timeout{unknown}")
        }
        _ => error.to_string(),
    };
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Some engines repeat the cause in their own message.
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
    fn source_chain_is_one_line() {
        let io = io::Error::other("the disk is gone");
        let error = Error::unavailable("could not be read").in_operation("get").with_source(io);
        assert_eq!(Failure::from(error).message(), "get: could not be read: the disk is gone");
    }

    #[test]
    fn signal_sets_the_exit_code_of_a_cancellation_only() {
        assert_eq!(Failure::from(Error::cancelled()).exit_code(Some(143)), 143);
        assert_eq!(Failure::from(Error::conflict(None)).exit_code(Some(143)), EXIT_CONFLICT);
    }
}
