//! Erasure of all entries under a prefix.

use cubbyhole_core::{Erased, ExecutionContext, NamespacePrefix, Result};

use super::run::{RemovalRun, emptied};
use crate::cluster::{Caller, Request};
use crate::concurrent::MAX_CONCURRENT_CALLS;
use crate::effect::Effect::Write;
use crate::index::NamespaceIndex;
use crate::registry::{ListedName, Registry};
use crate::{replies, scripts};

/// The number of namespaces that are erased concurrently.
const CONCURRENT_ERASURES: usize = 32;
/// The number of namespaces that one step visits, even if all of them are empty.
const MAX_NAMES_PER_STEP: usize = 1024;

/// One step of erasing a prefix.
pub(crate) struct Erasure<'a> {
    run: RemovalRun<'a>,
    registry: Registry<'a>,
    prefix: &'a NamespacePrefix,
}

impl<'a> Erasure<'a> {
    pub(crate) fn new(
        ctx: &'a ExecutionContext,
        caller: &'a Caller,
        prefix: &'a NamespacePrefix,
    ) -> Self {
        Self { run: RemovalRun::new(ctx, caller), registry: Registry::new(caller), prefix }
    }

    /// Removes at most `limit` entries.
    pub(crate) async fn run(self, limit: usize) -> Result<Erased> {
        let ctx = self.run.ctx;
        let erased = self.erase(limit).await;
        let (erased, removed) = self.run.conclude(erased);
        let error = match erased {
            Ok(done) => return Ok(Erased { removed, done }),
            Err(error) => error,
        };
        if removed == 0 {
            return Err(error);
        }
        // The step made progress. A later step that makes none reports the failure.
        if ctx.check().is_ok() && !error.may_have_been_applied() {
            return Ok(Erased { removed, done: false });
        }
        Err(error.with_unknown_outcome())
    }

    /// Returns whether no entry is left.
    async fn erase(&self, limit: usize) -> Result<bool> {
        let (ctx, registry, prefix) = (self.run.ctx, &self.registry, self.prefix);
        let mut left = limit;
        let mut looked_at = 0;
        let mut after: Option<String> = None;
        let mut some_left = false;
        loop {
            let names = registry
                .listed_namespaces(ctx, prefix, after.as_deref(), CONCURRENT_ERASURES)
                .await?;
            some_left |= !self.erase_some(&names, &mut left).await?;
            looked_at += names.len();
            if names.len() < CONCURRENT_ERASURES {
                break;
            }
            after = names.into_iter().last().map(|name| name.name);
            if left == 0 || looked_at >= MAX_NAMES_PER_STEP {
                some_left |=
                    !registry.listed_namespaces(ctx, prefix, after.as_deref(), 1).await?.is_empty();
                break;
            }
        }
        if some_left {
            return Ok(false);
        }
        self.unlist_if_empty().await?;
        Ok(true)
    }

    /// Removes up to `left` entries of these namespaces. Returns whether all of them are empty.
    async fn erase_some(&self, names: &[ListedName], left: &mut usize) -> Result<bool> {
        let index = self.run.caller.tenant_tag(&self.prefix.tenant());
        let mut names: Vec<&ListedName> = names.iter().collect();
        loop {
            let most = *left;
            let first = |name| self.first_keys(name, most);
            let keys = names.iter().copied().map(first).collect();
            let keys = self.run.each(MAX_CONCURRENT_CALLS, keys).await?;
            let mut shares = Vec::with_capacity(names.len());
            let erase = |(name, keys): (_, Option<_>)| {
                let mut keys: Vec<Vec<u8>> = keys.unwrap_or_default();
                keys.truncate(*left);
                *left -= keys.len();
                shares.push(keys.len());
                self.erase_keys(name, keys)
            };
            let erasing = names.iter().copied().zip(keys).map(erase).collect();
            let are_empty = self.run.each(MAX_CONCURRENT_CALLS, erasing).await?;
            let emptied = emptied(&names, &are_empty);
            self.registry.unlist(self.run.ctx, &index, &emptied).await?;
            // Other namespaces get the share of those that failed.
            let failed = are_empty.iter().zip(shares).filter(|(is_empty, _)| is_empty.is_none());
            let back: usize = failed.map(|(_, share)| share).sum();
            let is_used_up = *left == 0;
            *left += back;
            if !is_used_up || back == 0 {
                return Ok(emptied.len() == names.len());
            }
            let mut are_empty = are_empty.iter();
            names.retain(|_| are_empty.next() == Some(&Some(false)));
        }
    }

    async fn first_keys(&self, listed: &ListedName, count: usize) -> Result<Vec<Vec<u8>>> {
        let index = NamespaceIndex::new(self.run.caller, &listed.namespace()?);
        index.first_keys(self.run.ctx, count).await
    }

    /// Removes keys of a namespace and returns whether its name can be removed.
    async fn erase_keys(&self, listed: &ListedName, keys: Vec<Vec<u8>>) -> Result<bool> {
        let RemovalRun { ctx, caller, .. } = &self.run;
        let tag = caller.namespace_tag(&listed.namespace()?);
        let mut names = vec![tag.keys(), tag.metas(), tag.expiries(), tag.fence()];
        // A member that is not UTF-8 was written by another program and has no value.
        let texts = keys.iter().filter_map(|key| std::str::from_utf8(key).ok());
        names.extend(texts.map(|key| tag.value(key)));
        let request =
            Request::script(&tag, Write, &scripts::ERASE, &names).arg(&listed.token).arg(keys);
        let [live, emptied] = replies::integers(caller.ask(ctx, &request).await?)?;
        self.run.count(live);
        Ok(emptied > 0)
    }

    /// Removes the tenant's name if the tenant has no namespace left.
    async fn unlist_if_empty(&self) -> Result<()> {
        let ctx = self.run.ctx;
        let tenant = self.prefix.tenant();
        let all = NamespacePrefix::from(tenant.clone());
        if !self.registry.listed_namespaces(ctx, &all, None, 1).await?.is_empty() {
            return Ok(());
        }
        match self.registry.listed_tenant(ctx, &tenant).await? {
            Some(listed) => self.registry.unlist_tenant(ctx, &listed).await,
            None => Ok(()),
        }
    }
}
