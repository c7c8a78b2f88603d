//! Listings of the keys of a namespace, in order.

use bytes::Bytes;
use cubbyhole_core::limits::MAX_PAGE_BYTES;
use cubbyhole_core::{ExecutionContext, Namespace, Page, Result, ScanItem, ScanOptions};
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
            let (next, found) = self.step(ctx, ns, &range, LIST_STEP, false).await?;
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
    pub(crate) async fn scan(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: &ScanOptions,
    ) -> Result<Page<ScanItem<Bytes>, String>> {
        let mut found = self.keys_and_metas(ctx, ns, options).await?;
        let mut more = found.len() > options.limit();
        found.truncate(options.limit());
        if options.values() {
            let fitting = fitting(&found);
            more |= fitting < found.len();
            found.truncate(fitting);
        }
        let next = found.last().filter(|_| more).map(|(key, _)| key.clone());
        let items = if options.values() {
            self.with_values(ctx, ns, found).await?
        } else {
            let item = |(key, stored): (String, StoredMeta)| ScanItem {
                key,
                meta: stored.meta,
                value_bytes: Some(stored.value_bytes),
                value: None,
            };
            found.into_iter().map(item).collect()
        };
        Ok(Page { items, next })
    }

    /// Reads one entry more than the page has, which shows whether another page follows.
    async fn keys_and_metas(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        options: &ScanOptions,
    ) -> Result<Vec<(String, StoredMeta)>> {
        let mut range = KeyRange::new(options.prefix().unwrap_or(""), options.after());
        let mut items = Vec::with_capacity(options.limit() + 1);
        loop {
            let wanted = options.limit() + 1 - items.len();
            let (next, found) = self.step(ctx, ns, &range, wanted, true).await?;
            let mut found = found.into_iter();
            while let (Some(key), Some(meta)) = (found.next(), found.next()) {
                let meta = replies::bytes(meta)?.ok_or_else(replies::unexpected)?;
                items.push((replies::text(key)?, StoredMeta::decode(&meta)?));
            }
            match next {
                Some(next) if items.len() <= options.limit() => range.from = next,
                _ => return Ok(items),
            }
        }
    }

    /// Reads the values of `found`, and drops entries that no longer exist. Each entry is as of the
    /// instant at which its value is read.
    async fn with_values(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        found: Vec<(String, StoredMeta)>,
    ) -> Result<Vec<ScanItem<Bytes>>> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        let entries = Entries::new(self.caller).read_each(ctx, ns, &keys).await?;
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

    /// Runs one script. Returns the bound at which to continue if it stopped early, and its items.
    async fn step(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        range: &KeyRange,
        wanted: usize,
        metas: bool,
    ) -> Result<(Option<Vec<u8>>, Vec<Value>)> {
        let tag = self.caller.namespace_tag(ns);
        let names = [tag.keys(), tag.metas(), tag.expiries()];
        let request = Request::script(&tag, Read, &scripts::PAGE, &names)
            .arg(&range.from)
            .arg(&range.to)
            .arg(wanted)
            .arg(if metas { "metas" } else { "" });
        let mut answer = replies::array(self.caller.ask(ctx, &request).await?)?;
        if answer.is_empty() {
            return Err(replies::unexpected());
        }
        let next = replies::bytes(answer.remove(0))?;
        replies::check_order(&range.from, answer.iter().step_by(if metas { 2 } else { 1 }))?;
        replies::check_progress(&range.from, next.as_deref())?;
        Ok((next, answer))
    }
}

/// Returns how many of the entries fit into a page; at least one.
fn fitting(found: &[(String, StoredMeta)]) -> usize {
    let mut bytes = 0_u64;
    for (position, (key, stored)) in found.iter().enumerate() {
        bytes += key.len() as u64 + stored.value_bytes;
        if bytes > MAX_PAGE_BYTES as u64 && position > 0 {
            return position;
        }
    }
    found.len()
}
