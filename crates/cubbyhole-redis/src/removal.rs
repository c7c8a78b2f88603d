//! What goes: expired entries, erased prefixes, the names of namespaces in which nothing is left.

use std::sync::atomic::{AtomicU64, Ordering};

use cubbyhole_core::{Error, ExecutionContext, NamespacePrefix, Result, Usage};

use crate::call::Request;
use crate::error::Effect::{Read, Registration, Write};
use crate::keys::{Place, bound};
use crate::keyspace::Keyspace;
use crate::registry::{Listed, NAMES_AT_ONCE, all};
use crate::{replies, scripts};

/// How many entries a script removes before the server serves others.
const SWEEP_STEP: usize = 500;
/// How many namespaces an erasure empties at the same time.
const ERASED_AT_ONCE: usize = 32;
/// How many namespaces a step of erasing looks at, which may all be empty already.
const NAMES_A_STEP: usize = 1024;

impl Keyspace {
    /// Sweeps every namespace, tenant by tenant, and adds what it removed to `removed`, so that it
    /// is known also when it fails.
    pub(crate) async fn sweep(&self, ctx: &ExecutionContext, removed: &AtomicU64) -> Result<()> {
        let mut after = None;
        loop {
            let tenants = self.listed_tenants(ctx, after.as_deref(), NAMES_AT_ONCE).await?;
            for tenant in &tenants {
                self.sweep_tenant(ctx, tenant, removed).await?;
            }
            if tenants.len() < NAMES_AT_ONCE {
                return Ok(());
            }
            after = tenants.into_iter().last().map(|tenant| tenant.name);
        }
    }

    async fn sweep_tenant(
        &self,
        ctx: &ExecutionContext,
        listed: &Listed,
        removed: &AtomicU64,
    ) -> Result<()> {
        let prefix = NamespacePrefix::from(listed.tenant()?);
        let mut after = None;
        let mut some_left = false;
        loop {
            let names =
                self.listed_namespaces(ctx, &prefix, after.as_deref(), NAMES_AT_ONCE).await?;
            let sweep = |name| self.sweep_namespace(ctx, name, removed);
            let are_empty = all(names.iter().map(sweep).collect()).await?;
            let emptied: Vec<&Listed> = those(&names, &are_empty);
            some_left |= emptied.len() < names.len();
            self.unlist(ctx, &self.tenant_place(&prefix.tenant()), &emptied).await?;
            if names.len() < NAMES_AT_ONCE {
                break;
            }
            after = names.into_iter().last().map(|name| name.name);
        }
        if some_left { Ok(()) } else { self.unlist_tenant(ctx, listed).await }
    }

    /// Whether the namespace's name may go.
    async fn sweep_namespace(
        &self,
        ctx: &ExecutionContext,
        listed: &Listed,
        removed: &AtomicU64,
    ) -> Result<bool> {
        let place = self.place(&listed.namespace()?);
        let names = [place.keys(), place.metas(), place.expiries(), place.fence()];
        loop {
            let request = Request::script(&place, Write, &scripts::SWEEP, &names)
                .arg(&listed.token)
                .arg(SWEEP_STEP);
            let answer = self.caller.ask(ctx, &request).await?;
            let [count, emptied, more] = replies::integers(answer)?;
            removed.fetch_add(count, Ordering::Relaxed);
            if more == 0 {
                return Ok(emptied > 0);
            }
        }
    }

    /// Removes names from the index that lists them, unless they were listed anew since.
    async fn unlist(&self, ctx: &ExecutionContext, index: &Place, names: &[&Listed]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let members: Vec<String> = names.iter().map(|name| name.member()).collect();
        let request = Request::command(index, Registration, "ZREM").arg(index.index()).arg(members);
        self.caller.ask(ctx, &request).await.map(drop)
    }

    /// Removes a tenant that has no namespaces left from the index of tenants.
    async fn unlist_tenant(&self, ctx: &ExecutionContext, listed: &Listed) -> Result<()> {
        let index = self.tenant_place(&listed.tenant()?);
        let names = [index.index(), index.index_fence()];
        let request =
            Request::script(&index, Registration, &scripts::UNLIST, &names).arg(&listed.token);
        if replies::integer(&self.caller.ask(ctx, &request).await?)? > 0 {
            self.unlist(ctx, &Place::root(self.prefix()), &[listed]).await?;
        }
        Ok(())
    }

    /// One step of erasing: at most `limit` entries.
    pub(crate) async fn erase(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
        removed: &AtomicU64,
    ) -> Result<bool> {
        let mut left = limit;
        let mut looked_at = 0;
        let mut after: Option<String> = None;
        let mut some_left = false;
        loop {
            let names =
                self.listed_namespaces(ctx, prefix, after.as_deref(), ERASED_AT_ONCE).await?;
            let all_emptied = self.erase_some(ctx, prefix, &names, &mut left, removed).await?;
            some_left |= !all_emptied;
            looked_at += names.len();
            if names.len() < ERASED_AT_ONCE {
                break;
            }
            after = names.into_iter().last().map(|name| name.name);
            if left == 0 || looked_at >= NAMES_A_STEP {
                some_left |=
                    !self.listed_namespaces(ctx, prefix, after.as_deref(), 1).await?.is_empty();
                break;
            }
        }
        if some_left {
            return Ok(false);
        }
        self.unlist_if_empty(ctx, prefix).await?;
        Ok(true)
    }

    /// Removes up to `left` entries of these namespaces. Whether all of them are empty now.
    async fn erase_some(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        names: &[Listed],
        left: &mut usize,
        removed: &AtomicU64,
    ) -> Result<bool> {
        let most = *left;
        let first = |name| self.first_keys(ctx, name, most);
        let keys = all(names.iter().map(first).collect()).await?;
        let erase = |(name, mut keys): (_, Vec<String>)| {
            keys.truncate(*left);
            *left -= keys.len();
            self.erase_keys(ctx, name, keys, removed)
        };
        let are_empty = all(names.iter().zip(keys).map(erase).collect()).await?;
        let emptied = those(names, &are_empty);
        self.unlist(ctx, &self.tenant_place(&prefix.tenant()), &emptied).await?;
        Ok(emptied.len() == names.len())
    }

    async fn first_keys(
        &self,
        ctx: &ExecutionContext,
        listed: &Listed,
        count: usize,
    ) -> Result<Vec<String>> {
        let place = self.place(&listed.namespace()?);
        let request = Request::command(&place, Read, "ZRANGE").arg(place.keys()).arg(0).arg(count);
        let keys = replies::array(self.caller.ask(ctx, &request).await?)?;
        keys.into_iter().map(replies::text).collect()
    }

    /// Whether the namespace's name may go.
    async fn erase_keys(
        &self,
        ctx: &ExecutionContext,
        listed: &Listed,
        keys: Vec<String>,
        removed: &AtomicU64,
    ) -> Result<bool> {
        let place = self.place(&listed.namespace()?);
        let mut names = vec![place.keys(), place.metas(), place.expiries(), place.fence()];
        names.extend(keys.iter().map(|key| place.value(key)));
        let request =
            Request::script(&place, Write, &scripts::ERASE, &names).arg(&listed.token).arg(keys);
        let [live, emptied] = replies::integers(self.caller.ask(ctx, &request).await?)?;
        removed.fetch_add(live, Ordering::Relaxed);
        Ok(emptied > 0)
    }

    /// After all under a prefix was erased its tenant may have nothing left.
    async fn unlist_if_empty(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<()> {
        let tenant = prefix.tenant();
        let others = NamespacePrefix::from(tenant.clone());
        if !self.listed_namespaces(ctx, &others, None, 1).await?.is_empty() {
            return Ok(());
        }
        let listed = self.listed_tenant(ctx, &tenant).await?;
        match listed {
            Some(listed) => self.unlist_tenant(ctx, &listed).await,
            None => Ok(()),
        }
    }

    /// What is stored under a prefix.
    pub(crate) async fn usage(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
    ) -> Result<Usage> {
        let mut usage = Usage { bytes: Some(0), ..Usage::default() };
        let mut after: Option<String> = None;
        loop {
            let names =
                self.listed_namespaces(ctx, prefix, after.as_deref(), NAMES_AT_ONCE).await?;
            let count = |name| self.usage_of(ctx, name);
            for [live, bytes, dead] in all(names.iter().map(count).collect()).await? {
                usage.namespaces += u64::from(live > 0);
                usage.entries += live;
                usage.bytes = usage.bytes.map(|sum| sum + bytes);
                usage.expired += dead;
            }
            if names.len() < NAMES_AT_ONCE {
                return Ok(usage);
            }
            after = names.into_iter().last().map(|name| name.name);
        }
    }

    /// Live entries, the bytes of their keys and values, expired entries.
    async fn usage_of(&self, ctx: &ExecutionContext, listed: &Listed) -> Result<[u64; 3]> {
        let place = self.place(&listed.namespace()?);
        let names = [place.keys(), place.metas()];
        let mut from = bound::from("");
        let mut sum = [0; 3];
        loop {
            let request = Request::script(&place, Read, &scripts::USAGE, &names).arg(&from);
            let mut answer = replies::array(self.caller.ask(ctx, &request).await?)?;
            if answer.len() != 4 {
                return Err(replies::unexpected());
            }
            for (sum, number) in sum.iter_mut().zip(&answer[1..]) {
                *sum += replies::integer(number)?;
            }
            match replies::bytes(answer.swap_remove(0))? {
                Some(next) => from = next,
                None => return Ok(sum),
            }
        }
    }
}

/// Those of the names of which it is true.
fn those<'a>(names: &'a [Listed], of: &[bool]) -> Vec<&'a Listed> {
    names.iter().zip(of).filter(|(_, is)| **is).map(|(name, _)| name).collect()
}

/// What an interrupted removal did is not known to the caller.
pub(crate) fn interrupted(error: Error, removed: bool) -> Error {
    if removed { error.with_unknown_outcome() } else { error }
}
