//! A case of the suite: what it needs, how it runs, and how it ends.

use std::fmt;
use std::panic::Location;

use cubbyhole_core::{Error, ErrorKind};
use futures_util::future::BoxFuture;

use crate::{Sample, World};

/// What a case needs of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// A fresh tenant, in a store that all such cases share.
    Tenant,
    /// A fresh tenant whose time the case moves: on a manual clock a store of its own, so that it
    /// moves nobody else's.
    Time,
    /// A store of its own, for operations that cross tenants.
    Store,
}

/// Which trait a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// `Store`: it must pass on every store.
    Core,
    /// `EntryStore`: ignored where the store lacks the method.
    Entry,
}

/// One named case over stores of `V`.
pub struct Case<V: Sample> {
    pub(crate) name: String,
    pub(crate) needs: Needs,
    pub(crate) level: Level,
    pub(crate) contract: &'static str,
    pub(crate) run: for<'a> fn(&'a World<V>) -> BoxFuture<'a, Outcome>,
}

impl<V: Sample> Case<V> {
    /// Topic and name, such as `isolation::a_prefix_is_literal_text`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it needs of the store.
    #[must_use]
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// Which trait it is about.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// What must hold, in words.
    #[must_use]
    pub fn contract(&self) -> &'static str {
        self.contract.trim()
    }
}

impl<V: Sample> fmt::Debug for Case<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The store does what the case asks.
    Passed,
    /// The store says that it cannot do it, for this reason.
    Ignored(String),
    /// The store does not do what the case asks.
    Failed(String),
}

/// How the body of a case ends.
pub(crate) type Outcome<T = ()> = Result<T, Stop>;

/// Why the body of a case ends early.
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

    /// An error where none, or another one, was due.
    #[track_caller]
    pub(crate) fn unexpected(error: Error, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Reason::Unexpected { error, message, at: Location::caller() }))
    }

    pub(crate) fn ignored(reason: impl Into<String>) -> Self {
        Self(Box::new(Reason::Ignored(reason.into())))
    }

    /// The verdict, where the store lacks these methods of `EntryStore`.
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
        Self::unexpected(error, "the call fails")
    }
}

/// Asserts that a call is refused with that kind of error, which it returns.
#[track_caller]
pub(crate) fn refused<T>(
    result: cubbyhole_core::Result<T>,
    kind: ErrorKind,
    what: impl fmt::Display,
) -> Outcome<Error> {
    match result {
        Ok(_) => Err(Stop::failed(format!("{what}: accepted, but `{kind}` is due"))),
        Err(error) if error.kind() == kind => Ok(error),
        Err(error) => Err(Stop::unexpected(error, format!("{what}: not `{kind}`"))),
    }
}

/// Defines cases and registers them: whatever is written inside it runs.
///
/// What stands inside is ordinary Rust, so that a body reads, and can be formatted, as such. Each
/// case carries its contract as a doc comment, and `#[case(tenant | time | store, core | entry)]`.
macro_rules! cases {
    ($(
        $(#[doc = $doc:literal])+
        #[case($needs:ident, $level:ident)]
        async fn $name:ident<V: Sample>($world:ident: &World<V>) -> Outcome $body:block
    )*) => {
        $($(#[doc = $doc])+
        async fn $name<V: Sample>($world: &World<V>) -> Outcome $body)*

        /// The cases of this topic.
        pub(super) fn cases<V: Sample>() -> Vec<crate::case::Case<V>> {
            let topic = module_path!().rsplit("::").next().unwrap_or_default();
            vec![$(crate::case::Case {
                name: format!("{topic}::{}", stringify!($name)),
                needs: cases!(@needs $needs),
                level: cases!(@level $level),
                contract: concat!($($doc, "\n"),+),
                run: |world| Box::pin($name(world)),
            }),*]
        }
    };
    (@needs tenant) => { crate::case::Needs::Tenant };
    (@needs time) => { crate::case::Needs::Time };
    (@needs store) => { crate::case::Needs::Store };
    (@level core) => { crate::case::Level::Core };
    (@level entry) => { crate::case::Level::Entry };
}

/// Ends the case as failed, with a message, unless the condition holds.
macro_rules! check {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(crate::case::Stop::failed(format!($($message)+)));
        }
    };
}

/// Ends the case as failed unless what was read equals what was expected.
macro_rules! check_eq {
    ($actual:expr, $expected:expr, $($message:tt)+) => {
        match (&$actual, &$expected) {
            (actual, expected) => {
                if *actual != *expected {
                    return Err(crate::case::Stop::failed(format!(
                        "{}\n  expected: {expected:?}\n    actual: {actual:?}",
                        format_args!($($message)+)
                    )));
                }
            }
        }
    };
}

pub(crate) use {cases, check, check_eq};
