//! What goes: expired entries, erased prefixes, the names of namespaces in which nothing is left.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use cubbyhole_core::{Error, ExecutionContext, NamespacePrefix, Result, Usage};
use futures_util::{StreamExt, stream};

use crate::call::Request;
use crate::error::Effect::{Read, Registration, Write};
use crate::index::{IndexPart, Walk};
use crate::keys::{Place, bound};
use crate::keyspace::Keyspace;
use crate::registry::{CALLS_AT_ONCE, Listed, NAMES_AT_ONCE, all};
use crate::{replies, scripts};

/// How many entries a script removes before the server serves others.
const SWEEP_STEP: usize = 500;
/// How many tenants are swept at the same time.
const TENANTS_AT_ONCE: usize = 8;
/// How many namespaces an erasure empties at the same time.
const ERASED_AT_ONCE: usize = 32;
/// How many namespaces a step of erasing looks at, which may all be empty already.
const NAMES_A_STEP: usize = 1024;

/// What failed on the way. A removal goes on with what is left, so that one namespace that cannot
/// be worked on keeps no other from being tidied, and then tells the first failure.
#[derive(Default)]
struct Failures {
    first: Mutex<Option<Error>>,
    /// Some call may have removed what it did not count.
    unknown: AtomicBool,
}

impl Failures {
    /// Takes note of a failure. What ends the whole call is passed on.
    fn note<T>(&self, ctx: &ExecutionContext, result: Result<T>) -> Result<Option<T>> {
        let error = match result {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        self.unknown.fetch_or(error.may_have_been_applied(), Ordering::Relaxed);
        ctx.check()?;
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
        Ok(None)
    }

    /// What a removal comes to in the end.
    fn conclude<T>(self, removal: Result<T>) -> Result<T> {
        let first = self.first.into_inner().unwrap_or_else(PoisonError::into_inner);
        let result = match (removal, first) {
            (Ok(_), Some(error)) => Err(error),
            (removal, _) => removal,
        };
        let unknown = self.unknown.into_inner();
        result.map_err(|error| if unknown { error.with_unknown_outcome() } else { error })
    }
}

/// Makes calls that remove, some at a time, each to its end, also when another fails: what was
/// sent is counted. Nothing for those that failed.
async fn each<T>(
    ctx: &ExecutionContext,
    failures: &Failures,
    at_once: usize,
    calls: Vec<impl Future<Output = Result<T>>>,
) -> Result<Vec<Option<T>>> {
    let results: Vec<Result<T>> = stream::iter(calls).buffered(at_once).collect().await;
    let mut noted = Vec::with_capacity(results.len());
    let mut ended = Ok(());
    for result in results {
        match failures.note(ctx, result) {
            Ok(value) => noted.push(value),
            Err(error) => ended = Err(error),
        }
    }
    ended.map(|()| noted)
}

impl Keyspace {
    /// Sweeps every namespace and adds what it removed to `removed`, so that it is known also when
    /// it fails.
    pub(crate) async fn sweep(&self, ctx: &ExecutionContext, removed: &AtomicU64) -> Result<()> {
        let failures = Failures::default();
        let swept = self.sweep_tenants(ctx, &failures, removed).await;
        failures.conclude(swept)
    }

    async fn sweep_tenants(
        &self,
        ctx: &ExecutionContext,
        failures: &Failures,
        removed: &AtomicU64,
    ) -> Result<()> {
        let mut after = None;
        loop {
            let tenants = self.listed_tenants(ctx, after.as_deref(), NAMES_AT_ONCE).await?;
            let sweep = |tenant| self.sweep_tenant(ctx, tenant, failures, removed);
            each(ctx, failures, TENANTS_AT_ONCE, tenants.iter().map(sweep).collect()).await?;
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
        failures: &Failures,
        removed: &AtomicU64,
    ) -> Result<()> {
        let prefix = NamespacePrefix::from(listed.tenant()?);
        let mut after = None;
        let mut some_left = false;
        loop {
            let names =
                self.listed_namespaces(ctx, &prefix, after.as_deref(), NAMES_AT_ONCE).await?;
            let sweep = |name| self.sweep_namespace(ctx, name, removed);
            let are_empty =
                each(ctx, failures, CALLS_AT_ONCE, names.iter().map(sweep).collect()).await?;
            let emptied = those(&names.iter().collect::<Vec<_>>(), &are_empty);
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
        let failures = Failures::default();
        let erased = self.erase_step(ctx, prefix, limit, &failures, removed).await;
        let erased = failures.conclude(erased);
        let went_on = removed.load(Ordering::Relaxed) > 0 && ctx.check().is_ok();
        match erased {
            // There was something to do beside: the step that has nothing else tells it.
            Err(error) if went_on && !error.may_have_been_applied() => Ok(false),
            erased => erased,
        }
    }

    async fn erase_step(
        &self,
        ctx: &ExecutionContext,
        prefix: &NamespacePrefix,
        limit: usize,
        failures: &Failures,
        removed: &AtomicU64,
    ) -> Result<bool> {
        let mut left = limit;
        let mut looked_at = 0;
        let mut after: Option<String> = None;
        let mut some_left = false;
        loop {
            let names =
                self.listed_namespaces(ctx, prefix, after.as_deref(), ERASED_AT_ONCE).await?;
            let all_emptied =
                self.erase_some(ctx, prefix, &names, &mut left, failures, removed).await?;
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
        failures: &Failures,
        removed: &AtomicU64,
    ) -> Result<bool> {
        let mut names: Vec<&Listed> = names.iter().collect();
        loop {
            let most = *left;
            let first = |name| self.first_keys(ctx, name, most);
            let keys = names.iter().copied().map(first).collect();
            let keys = each(ctx, failures, CALLS_AT_ONCE, keys).await?;
            let mut shares = Vec::with_capacity(names.len());
            let erase = |(name, keys): (_, Option<_>)| {
                let mut keys: Vec<Vec<u8>> = keys.unwrap_or_default();
                keys.truncate(*left);
                *left -= keys.len();
                shares.push(keys.len());
                self.erase_keys(ctx, name, keys, removed)
            };
            let erasing = names.iter().copied().zip(keys).map(erase).collect();
            let are_empty = each(ctx, failures, CALLS_AT_ONCE, erasing).await?;
            let emptied = those(&names, &are_empty);
            self.unlist(ctx, &self.tenant_place(&prefix.tenant()), &emptied).await?;
            // What failed has taken its share from others, which get it now.
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

    /// Some keys of a namespace, by the first part of its index that has any: another part may be
    /// lost.
    async fn first_keys(
        &self,
        ctx: &ExecutionContext,
        listed: &Listed,
        count: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let place = self.place(&listed.namespace()?);
        let keys = self.first_members(ctx, &place, place.keys(), count).await?;
        if !keys.is_empty() {
            return Ok(keys);
        }
        let request = Request::command(&place, Read, "HLEN").arg(place.metas());
        if replies::integer(&self.caller.ask(ctx, &request).await?)? > 0 {
            let mut walk = Walk::new(IndexPart::Metas);
            while let Some(keys) = self.walk_on(ctx, &place, &mut walk).await? {
                if !keys.is_empty() {
                    return Ok(keys);
                }
            }
        }
        let expiring = self.first_members(ctx, &place, place.expiries(), count).await?;
        Ok(expiring.into_iter().filter(|key| key != Place::MARKER.as_bytes()).collect())
    }

    async fn first_members(
        &self,
        ctx: &ExecutionContext,
        place: &Place,
        name: String,
        count: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let request = Request::command(place, Read, "ZRANGE").arg(name).arg(0).arg(count);
        replies::members(self.caller.ask(ctx, &request).await?)
    }

    /// Whether the namespace's name may go.
    async fn erase_keys(
        &self,
        ctx: &ExecutionContext,
        listed: &Listed,
        keys: Vec<Vec<u8>>,
        removed: &AtomicU64,
    ) -> Result<bool> {
        let place = self.place(&listed.namespace()?);
        let mut names = vec![place.keys(), place.metas(), place.expiries(), place.fence()];
        // A member that is no text was written by another program and has no value.
        let texts = keys.iter().filter_map(|key| std::str::from_utf8(key).ok());
        names.extend(texts.map(|key| place.value(key)));
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
            let next = replies::bytes(answer.swap_remove(0))?;
            replies::goes_on(&from, next.as_deref())?;
            match next {
                Some(next) => from = next,
                None => return Ok(sum),
            }
        }
    }
}

/// Those of the names of which it is true.
fn those<'a>(names: &[&'a Listed], of: &[Option<bool>]) -> Vec<&'a Listed> {
    names.iter().zip(of).filter(|(_, is)| **is == Some(true)).map(|(name, _)| *name).collect()
}

/// What an interrupted removal did is not known to the caller.
pub(crate) fn interrupted(error: Error, removed: bool) -> Error {
    if removed { error.with_unknown_outcome() } else { error }
}
