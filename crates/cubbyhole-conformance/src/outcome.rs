//! How a case ends, and the assertions that end it.

use std::fmt;
use std::panic::Location;

use cubbyhole_core::{Error, ErrorKind};

/// The result of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The store fulfils the contract of the case.
    Passed,
    /// The case does not apply to the store, for this reason.
    Ignored(String),
    /// The store breaks the contract of the case. The message has the location in the case, the
    /// expected result and the actual one.
    Failed(String),
}

/// The result of the body of a case.
pub(crate) type Outcome<T = ()> = Result<T, Stop>;

/// The reason why the body of a case ends early.
#[derive(Debug)]
pub(crate) struct Stop(Box<Reason>);

#[derive(Debug)]
enum Reason {
    Failed { message: String, at: &'static Location<'static> },
    Unexpected { error: Error, message: String, at: &'static Location<'static> },
    Ignored(String),
}

impl Stop {
    #[track_caller]
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self(Box::new(Reason::Failed { message: message.into(), at: Location::caller() }))
    }

    /// The store returned an error, and the case expected success or another error.
    #[track_caller]
    pub(crate) fn unexpected(error: Error, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Reason::Unexpected { error, message, at: Location::caller() }))
    }

    pub(crate) fn ignored(reason: impl Into<String>) -> Self {
        Self(Box::new(Reason::Ignored(reason.into())))
    }

    /// Returns the verdict for a store that lacks the methods `missing`.
    pub(crate) fn into_verdict(self, missing: &[&'static str]) -> Verdict {
        match *self.0 {
            Reason::Ignored(reason) => Verdict::Ignored(reason),
            Reason::Failed { message, at } => Verdict::Failed(format!("{at}: {message}")),
            Reason::Unexpected { error, message, at } => {
                let lacking = error.operation().filter(|name| missing.contains(name));
                match lacking {
                    Some(name) if error.kind() == ErrorKind::Unsupported => {
                        Verdict::Ignored(format!("the store does not support `{name}`"))
                    }
                    _ => Verdict::Failed(format!("{at}: {message}: {error:?}")),
                }
            }
        }
    }
}

impl From<Error> for Stop {
    #[track_caller]
    fn from(error: Error) -> Self {
        Self::unexpected(error, "a call that must succeed failed")
    }
}

/// Asserts that a call fails with an error of this kind, and returns the error.
#[track_caller]
pub(crate) fn refused<T>(
    result: cubbyhole_core::Result<T>,
    kind: ErrorKind,
    what: impl fmt::Display,
) -> Outcome<Error> {
    match result {
        Ok(_) => {
            Err(Stop::failed(format!("{what}: the call must fail with `{kind}`, but succeeded")))
        }
        Err(error) if error.kind() == kind => Ok(error),
        Err(error) => {
            let message = format!("{what}: the call must fail with `{kind}`, but failed with");
            Err(Stop::unexpected(error, message))
        }
    }
}

/// Fails the case with a message, unless the condition holds.
macro_rules! check {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(crate::outcome::Stop::failed(format!($($message)+)));
        }
    };
}

/// Fails the case, unless the actual value equals the expected one. The message names the value.
macro_rules! check_eq {
    ($actual:expr, $expected:expr, $($message:tt)+) => {
        match (&$actual, &$expected) {
            (actual, expected) => {
                if *actual != *expected {
                    return Err(crate::outcome::Stop::failed(format!(
                        "{}\n  expected: {expected:?}\n    actual: {actual:?}",
                        format_args!($($message)+)
                    )));
                }
            }
        }
    };
}

pub(crate) use {check, check_eq};
