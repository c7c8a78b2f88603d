//! A case of the suite: its name, its contract, its needs, and its body.

use std::fmt;

use futures_util::future::BoxFuture;

use crate::Sample;
use crate::outcome::Outcome;
use crate::world::World;

/// The isolation that a case needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// A fresh tenant in a store that all such cases share.
    Tenant,
    /// A fresh tenant, and a clock that the case can move. With a manual clock, the case gets its
    /// own store, because moving the clock would disturb other cases.
    Time,
    /// A separate store, for operations that cross tenants.
    Store,
}

/// The trait that a case tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// `Store`. The case runs on every store.
    Core,
    /// `EntryStore`. The case is ignored on a store that lacks the method.
    Entry,
}

/// A named case for stores of `V`.
pub struct Case<V: Sample> {
    pub(crate) name: String,
    pub(crate) needs: Needs,
    pub(crate) level: Level,
    pub(crate) contract: &'static str,
    pub(crate) run: for<'a> fn(&'a World<V>) -> BoxFuture<'a, Outcome>,
}

impl<V: Sample> Case<V> {
    /// Returns the topic and the name, for example `scan::empty_namespace_is_one_empty_page`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the isolation that the case needs.
    #[must_use]
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// Returns the trait that the case tests.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// Returns the rule that the case tests, in words. A failure prints it.
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

/// Defines the cases of a topic, and registers them in its function `cases`.
///
/// The body is ordinary Rust. The doc comment of a case is its contract, and the attribute
/// `#[case(tenant | time | store, core | entry)]` declares its [`Needs`] and its [`Level`].
macro_rules! cases {
    ($(
        $(#[doc = $doc:literal])+
        #[case($needs:ident, $level:ident)]
        async fn $name:ident<V: Sample>($world:ident: &World<V>) -> Outcome $body:block
    )*) => {
        $($(#[doc = $doc])+
        async fn $name<V: Sample>($world: &World<V>) -> Outcome $body)*

        /// Returns the cases of this topic.
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

pub(crate) use cases;
