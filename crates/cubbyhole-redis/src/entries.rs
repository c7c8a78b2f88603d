//! Reads and writes of entries by key.

use std::time::Duration;

use bytes::Bytes;
use cubbyhole_core::{Entry, Error, ExecutionContext, Expiry, Namespace, Result, Timestamp};

use crate::change::{Change, expiry_argument, write_request};
use crate::cluster::{Caller, Request};
use crate::effect::Effect::{Read, Write};
use crate::entry_reply::EntryReply;
use crate::refusal::Refusal;
use crate::registry::{RegistrationToken, Registry};
use crate::{replies, scripts};

/// The limit for the values that one script reads. The server serves no other client while it runs.
const MAX_VALUE_BYTES_PER_SCRIPT: usize = 16 * 1024 * 1024;
/// The number of attempts to read entries that other clients keep changing.
const READ_ATTEMPTS: u32 = 16;
/// The number of attempts to register a namespace that sweeps keep removing.
const REGISTRATION_ATTEMPTS: u32 = 32;

/// Reads and writes entries by key.
#[derive(Clone, Copy)]
pub(crate) struct Entries<'a> {
    caller: &'a Caller,
}

impl<'a> Entries<'a> {
    pub(crate) const fn new(caller: &'a Caller) -> Self {
        Self { caller }
    }

    /// Reads a value with a plain `GET`.
    pub(crate) async fn get(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Bytes>> {
        let tag = self.caller.namespace_tag(ns);
        let request = Request::command(&tag, Read, "GET").arg(tag.value(key));
        let value = self.caller.ask(ctx, &request).await?;
        Ok(replies::bytes(value)?.map(Bytes::from))
    }

    /// Returns the time of the server that owns the namespace's slot.
    pub(crate) async fn current_time(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
    ) -> Result<Timestamp> {
        let request = Request::command(&self.caller.namespace_tag(ns), Read, "TIME");
        replies::time(self.caller.ask(ctx, &request).await?)
    }

    /// Reads entries as of one instant, in the order of `keys`.
    ///
    /// If the values exceed the limit of one script, several scripts read them. The result is
    /// consistent if no metadata has changed since the first script; otherwise the read starts
    /// again.
    pub(crate) async fn read(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<EntryReply>> {
        for _ in 0..READ_ATTEMPTS {
            let mut found = self.read_first(ctx, ns, keys).await?;
            loop {
                let Some(rest) = found.iter().position(EntryReply::is_value_omitted) else {
                    return Ok(found);
                };
                let now = self.read_first(ctx, ns, &keys[rest..]).await?;
                if found[rest..].iter().zip(&now).any(|(then, now)| now.meta != then.meta) {
                    break;
                }
                found.splice(rest.., now);
            }
        }
        Err(Error::unavailable(
            "the entries kept changing while they were read: read fewer at a time",
        ))
    }

    /// Reads entries in the order of `keys`, each as of the instant at which it is read.
    pub(crate) async fn read_each(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<EntryReply>> {
        let mut found = self.read_first(ctx, ns, keys).await?;
        while let Some(rest) = found.iter().position(EntryReply::is_value_omitted) {
            let now = self.read_first(ctx, ns, &keys[rest..]).await?;
            found.splice(rest.., now);
        }
        Ok(found)
    }

    /// Reads entries with one script: the first one, and as many others as fit the limit.
    async fn read_first(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<EntryReply>> {
        let tag = self.caller.namespace_tag(ns);
        let mut names = Vec::with_capacity(keys.len() + 1);
        names.push(tag.metas());
        names.extend(keys.iter().map(|key| tag.value(key)));
        let request = Request::script(&tag, Read, &scripts::ENTRIES, &names)
            .arg(MAX_VALUE_BYTES_PER_SCRIPT)
            .arg(keys);
        let answer = replies::array(self.caller.ask(ctx, &request).await?)?;
        if answer.len() != 2 * keys.len() {
            return Err(replies::unexpected());
        }
        let mut answer = answer.into_iter();
        let mut entries = Vec::with_capacity(keys.len());
        while let (Some(meta), Some(value)) = (answer.next(), answer.next()) {
            entries.push(EntryReply { meta: replies::bytes(meta)?, value: replies::bytes(value)? });
        }
        Ok(entries)
    }

    /// Reads an entry and extends its expiry.
    pub(crate) async fn extend(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        ttl: Duration,
    ) -> Result<Option<Entry<Bytes>>> {
        let tag = self.caller.namespace_tag(ns);
        let names = [tag.metas(), tag.expiries(), tag.value(key)];
        let request = Request::script(&tag, Write, &scripts::EXTEND, &names)
            .arg(key)
            .arg(expiry_argument(Expiry::After(ttl)));
        EntryReply::decode_one(self.caller.ask(ctx, &request).await?)
    }

    /// Changes the expiry of an entry, and returns whether the entry was live.
    pub(crate) async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        new_expiry: Expiry,
    ) -> Result<bool> {
        let tag = self.caller.namespace_tag(ns);
        let names = [tag.keys(), tag.metas(), tag.expiries(), tag.value(key)];
        let request = Request::script(&tag, Write, &scripts::TOUCH, &names)
            .arg(key)
            .arg(expiry_argument(new_expiry));
        Ok(replies::integer(&self.caller.ask(ctx, &request).await?)? > 0)
    }

    /// Reads and removes an entry.
    pub(crate) async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<Bytes>>> {
        let tag = self.caller.namespace_tag(ns);
        let names = [tag.keys(), tag.metas(), tag.expiries(), tag.value(key)];
        let request = Request::script(&tag, Write, &scripts::TAKE, &names).arg(key);
        let answer = self.caller.ask(ctx, &request).await?;
        // The entry is removed even if the reply cannot be decoded.
        EntryReply::decode_one(answer).map_err(Error::with_unknown_outcome)
    }

    /// Applies a batch atomically, and returns the number of live entries that were deleted.
    /// Registers the namespace first if necessary.
    pub(crate) async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        changes: &[Change<'_>],
    ) -> Result<u64> {
        let tag = self.caller.namespace_tag(ns);
        let mut token: Option<RegistrationToken> = None;
        let mut retry = self.caller.retry();
        for _ in 0..REGISTRATION_ATTEMPTS {
            let request = match (changes, &token) {
                ([only], None) if only.is_plain_put() => only.plain_put_request(&tag),
                _ => write_request(&tag, changes, token.as_ref()),
            };
            match self.caller.call(ctx, &request, &mut retry).await? {
                Ok(deleted) => return replies::integer(&deleted),
                Err(Refusal::Unregistered { issued, fence }) => {
                    // Boxed, so the future of a write without registration stays small.
                    let registry = Registry::new(self.caller);
                    let drawn = Box::pin(registry.register(ctx, ns, &fence, &mut retry)).await?;
                    token = Some(RegistrationToken { drawn, issued });
                }
                Err(refusal @ Refusal::TooLate) => return Err(refusal.into_error()),
                Err(Refusal::Conflict { index, current }) => {
                    let conflict = Error::conflict(current);
                    return Err(if changes.len() == 1 {
                        conflict
                    } else {
                        conflict.at_batch_index(index)
                    });
                }
            }
        }
        Err(Error::unavailable(
            "sweeps kept removing the registration of the namespace during the write",
        ))
    }
}
