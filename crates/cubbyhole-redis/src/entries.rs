//! Reads and writes of entries whose keys the caller names.

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

/// How many bytes of values a script reads with others before the server serves others.
const VALUE_BYTES_AT_ONCE: usize = 16 * 1024 * 1024;
/// Each attempt follows a write to what is being read.
const READING_ATTEMPTS: u32 = 16;
/// Each attempt follows another's tidying of the same namespace, which is rare once.
const REGISTRATION_ATTEMPTS: u32 = 32;

/// The entries of a store.
#[derive(Clone, Copy)]
pub(crate) struct Entries<'a> {
    caller: &'a Caller,
}

impl<'a> Entries<'a> {
    pub(crate) const fn new(caller: &'a Caller) -> Self {
        Self { caller }
    }

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

    /// The clock of the server that has the namespace's slot.
    pub(crate) async fn current_time(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
    ) -> Result<Timestamp> {
        let request = Request::command(&self.caller.namespace_tag(ns), Read, "TIME");
        replies::time(self.caller.ask(ctx, &request).await?)
    }

    /// As of one instant, in the order asked. What is too much for one script is read by several:
    /// all is as it was for the first of them while no meta data has changed since, and otherwise
    /// it is read again.
    pub(crate) async fn read(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<EntryReply>> {
        for _ in 0..READING_ATTEMPTS {
            let mut found = self.read_first(ctx, ns, keys).await?;
            loop {
                let Some(rest) = found.iter().position(EntryReply::is_left_out) else {
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
            "the entries changed again and again while they were read: ask for fewer at a time",
        ))
    }

    /// In the order asked, each as it is when it is read.
    pub(crate) async fn read_each(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<EntryReply>> {
        let mut found = self.read_first(ctx, ns, keys).await?;
        while let Some(rest) = found.iter().position(EntryReply::is_left_out) {
            let now = self.read_first(ctx, ns, &keys[rest..]).await?;
            found.splice(rest.., now);
        }
        Ok(found)
    }

    /// One script's worth: the first, and as many more as are not too much.
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
            .arg(VALUE_BYTES_AT_ONCE)
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
        EntryReply::only_entry(self.caller.ask(ctx, &request).await?)
    }

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
        // It is gone, whatever it was.
        EntryReply::only_entry(answer).map_err(Error::with_unknown_outcome)
    }

    /// Applies all changes or none, and answers how many live entries were deleted. The namespace
    /// is registered first if it is not.
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
                    // Apart, because most writes need none and would carry the room for it along.
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
            "the namespace was emptied and tidied again and again while it was written to",
        ))
    }
}
