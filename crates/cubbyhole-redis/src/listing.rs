//! Listings of the keys of a namespace, in order.

use bytes::Bytes;
use cubbyhole_core::limits::MAX_PAGE_BYTES;
use cubbyhole_core::{ExecutionContext, Namespace, Page, Result, ScanItem, ScanOptions, Timestamp};
use redis::Value;

use crate::cluster::{Caller, Request};
use crate::effect::Effect::Read;
use crate::entries::Entries;
use crate::key_range::KeyRange;
use crate::keys::lex_bound;
use crate::stored_meta::StoredMeta;
use crate::{replies, scripts};

/// The number of keys that a listing without pages reads per script. The server serves no other
/// client while the script runs.
const LIST_STEP: usize = 5000;

/// Lists the keys of namespaces.
#[derive(Clone, Copy)]
pub(crate) struct Listing<'a> {
    caller: &'a Caller,
}

impl<'a> Listing<'a> {
    pub(crate) const fn new(caller: &'a Caller) -> Self {
        Self { caller }
    }

    /// Returns all keys that start with `prefix`.
    pub(crate) async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: &str,
    ) -> Result<Vec<String>> {
        let mut range = KeyRange::new(prefix, None);
        let mut keys = Vec::new();
        loop {
            let Step { next, found, .. } = self.step(ctx, ns, &range, LIST_STEP, false).await?;
            let full = found.len() == LIST_STEP;
            keys.reserve(found.len());
            for key in found {
                keys.push(replies::text(key)?);
            }
            range.from = match (next, keys.last()) {
                (Some(next), _) => next,
                (None, Some(last)) if full => lex_bound::past(last),
                _ => return Ok(keys),
            };
        }
    }

    /// Returns a page of entries.
    ///
    /// A refreshing page takes a second script only if an entry that it returns is due. That script
    /// also reads the values, so a page with values is two round trips in any case.
    pub(crate) async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: &ScanOptions,
    ) -> Result<Page<ScanItem<Bytes>, String>> {
        let prefix = options.prefix().unwrap_or("");
        let range = match options.is_reversed() {
            false => KeyRange::new(prefix, options.after()),
            true => KeyRange::reversed(prefix, options.after()),
        };
        // One entry more than the page has shows whether another page follows.
        let FoundKeys { mut found, now } =
            self.keys_and_metas(ctx, ns, range, options.limit() + 1).await?;
        let mut more = found.len() > options.limit();
        found.truncate(options.limit());
        if options.values() {
            let fitting = fitting(found.iter());
            more |= fitting < found.len();
            found.truncate(fitting);
        }
        let next = found.last().filter(|_| more).map(|(key, _)| key.clone());
        let is_due = |stored: &StoredMeta| stored.meta.refreshed(now).is_some();
        let refresh = options.is_refreshing() && found.iter().any(|(_, stored)| is_due(stored));
        let items = if options.values() {
            self.with_values(ctx, ns, found, refresh).await?
        } else {
            if refresh {
                found = Box::pin(self.refreshed(ctx, ns, found, is_due)).await?;
            }
            found.into_iter().map(without_value).collect()
        };
        Ok(Page { items, next })
    }

    /// Reads up to `wanted` keys in the range, with their metadata.
    pub(crate) async fn keys_and_metas(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        mut range: KeyRange,
        wanted: usize,
    ) -> Result<FoundKeys> {
        let mut items = Vec::with_capacity(wanted);
        loop {
            let left = wanted - items.len();
            let Step { next, now, found } = self.step(ctx, ns, &range, left, true).await?;
            let mut found = found.into_iter();
            while let (Some(key), Some(meta)) = (found.next(), found.next()) {
                let meta = replies::bytes(meta)?.ok_or_else(replies::unexpected)?;
                items.push((replies::text(key)?, StoredMeta::decode(&meta)?));
            }
            match next {
                Some(next) if items.len() < wanted => range.from = next,
                _ => return Ok(FoundKeys { found: items, now }),
            }
        }
    }

    /// Restarts the idle TTLs of the entries that are due, and drops those of them that no longer
    /// exist.
    async fn refreshed(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        found: Vec<(String, StoredMeta)>,
        is_due: impl Fn(&StoredMeta) -> bool,
    ) -> Result<Vec<(String, StoredMeta)>> {
        let due = found.iter().filter(|(_, stored)| is_due(stored));
        let keys: Vec<&str> = due.map(|(key, _)| key.as_str()).collect();
        let refreshed = Entries::new(self.caller).refresh(ctx, ns, &keys).await?;
        let mut refreshed = refreshed.into_iter();
        let renew = |(key, stored): (String, StoredMeta)| {
            if is_due(&stored) { Some((key, refreshed.next()??)) } else { Some((key, stored)) }
        };
        Ok(found.into_iter().filter_map(renew).collect())
    }

    /// Reads the values of `found`, and drops entries that no longer exist. Each entry is as of the
    /// instant at which its value is read.
    pub(crate) async fn with_values(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        found: Vec<(String, StoredMeta)>,
        refresh: bool,
    ) -> Result<Vec<ScanItem<Bytes>>> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        let entries = Entries::new(self.caller).read_each(ctx, ns, &keys, refresh).await?;
        let mut items = Vec::with_capacity(found.len());
        for ((key, stored), entry) in found.into_iter().zip(entries) {
            let (meta, value) = match entry.into_entry() {
                Ok(None) => continue,
                Ok(Some(entry)) => (entry.meta, Ok(entry.value)),
                Err(error) => (stored.meta, Err(error)),
            };
            let value_bytes = value.as_ref().ok().map(|value| value.len() as u64);
            items.push(ScanItem { key, meta, value_bytes, value: Some(value) });
        }
        Ok(items)
    }

    /// Runs one script.
    async fn step(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        range: &KeyRange,
        wanted: usize,
        metas: bool,
    ) -> Result<Step> {
        let tag = self.caller.namespace_tag(ns);
        let names = [tag.keys(), tag.metas(), tag.expiries()];
        let request = Request::script(&tag, Read, &scripts::PAGE, &names)
            .arg(&range.from)
            .arg(&range.to)
            .arg(wanted)
            .arg(if metas { "metas" } else { "" })
            .arg(if range.is_reversed() { "reversed" } else { "" });
        let mut answer = replies::array(self.caller.ask(ctx, &request).await?)?;
        if answer.len() < 2 {
            return Err(replies::unexpected());
        }
        let found = answer.split_off(2);
        let now = replies::instant(&answer[1])?;
        let next = replies::bytes(answer.swap_remove(0))?;
        let keys = found.iter().step_by(if metas { 2 } else { 1 });
        replies::check_order(&range.from, range.onward, keys)?;
        replies::check_progress(&range.from, range.onward, next.as_deref())?;
        Ok(Step { next, now, found })
    }
}

/// The reply of one script.
struct Step {
    /// The bound at which to continue if the script stopped early.
    next: Option<Vec<u8>>,
    /// The time at which the script ran.
    now: Timestamp,
    /// The keys, each followed by its metadata if requested.
    found: Vec<Value>,
}

/// Keys with their metadata.
pub(crate) struct FoundKeys {
    pub(crate) found: Vec<(String, StoredMeta)>,
    /// The time at which the last of them was read.
    now: Timestamp,
}

/// Returns the item of a page without values.
pub(crate) fn without_value((key, stored): (String, StoredMeta)) -> ScanItem<Bytes> {
    ScanItem { key, meta: stored.meta, value_bytes: Some(stored.value_bytes), value: None }
}

/// Returns how many of the entries fit into a page with values; at least one.
pub(crate) fn fitting<'a>(found: impl Iterator<Item = &'a (String, StoredMeta)>) -> usize {
    let (mut bytes, mut count) = (0_u64, 0);
    for (key, stored) in found {
        bytes += key.len() as u64 + stored.value_bytes;
        if bytes > MAX_PAGE_BYTES as u64 && count > 0 {
            break;
        }
        count += 1;
    }
    count
}
