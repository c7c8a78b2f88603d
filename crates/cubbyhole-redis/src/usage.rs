//! Usage: entries and bytes under a prefix.

use std::cmp::Ordering;

use cubbyhole_core::{ExecutionContext, NamespacePrefix, Result, Usage};

use crate::cluster::{Caller, Request};
use crate::concurrent::try_all;
use crate::effect::Effect::Read;
use crate::keys::lex_bound;
use crate::registry::{ListedName, NAMES_PER_PAGE, Registry};
use crate::{replies, scripts};

/// Counts entries and bytes under a prefix.
pub(crate) struct UsageCounter<'a> {
    caller: &'a Caller,
}

impl<'a> UsageCounter<'a> {
    pub(crate) const fn new(caller: &'a Caller) -> Self {
        Self { caller }
    }

    /// Returns the usage of a prefix.
    pub(crate) async fn of_prefix(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Usage> {
        let registry = Registry::new(self.caller);
        let mut usage = Usage { bytes: Some(0), ..Usage::default() };
        let mut after: Option<String> = None;
        loop {
            let names =
                registry.listed_namespaces(ctx, prefix, after.as_deref(), NAMES_PER_PAGE).await?;
            let count = |name| self.of_namespace(ctx, name);
            for [live, bytes, dead] in try_all(names.iter().map(count).collect()).await? {
                usage.namespaces += u64::from(live > 0);
                usage.entries += live;
                usage.bytes = usage.bytes.map(|sum| sum + bytes);
                usage.expired += dead;
            }
            if names.len() < NAMES_PER_PAGE {
                return Ok(usage);
            }
            after = names.into_iter().last().map(|name| name.name);
        }
    }

    /// Returns the number of live entries, the bytes of their keys and values, and the number of
    /// expired entries.
    async fn of_namespace(&self, ctx: &ExecutionContext, listed: &ListedName) -> Result<[u64; 3]> {
        let tag = self.caller.namespace_tag(&listed.namespace()?);
        let names = [tag.keys(), tag.metas()];
        let mut from = lex_bound::from("");
        let mut sum = [0; 3];
        loop {
            let request = Request::script(&tag, Read, &scripts::USAGE, &names).arg(&from);
            let mut answer = replies::array(self.caller.ask(ctx, &request).await?)?;
            if answer.len() != 4 {
                return Err(replies::unexpected());
            }
            for (sum, number) in sum.iter_mut().zip(&answer[1..]) {
                *sum += replies::integer(number)?;
            }
            let next = replies::bytes(answer.swap_remove(0))?;
            replies::check_progress(&from, Ordering::Greater, next.as_deref())?;
            match next {
                Some(next) => from = next,
                None => return Ok(sum),
            }
        }
    }
}
