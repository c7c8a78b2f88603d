//! Reads and writes of entries by key.

use bytes::Bytes;
use cubbyhole_core::{
    Condition, Entry, EntryStat, Error, ExecutionContext, Expiry, GetOptions, Namespace, Result,
    Timestamp,
};
use redis::Value;

use crate::change::{Change, expiry_argument, with_condition, write_request};
use crate::cluster::{Caller, Request};
use crate::effect::Effect::{self, Read, Write};
use crate::entry_reply::EntryReply;
use crate::refusal::Refusal;
use crate::registry::{RegistrationToken, Registry};
use crate::stored_meta::StoredMeta;
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

    /// Reads entries as of one instant, in the order of `keys`, and extends their expiries as the
    /// options say.
    ///
    /// If the values exceed the limit of one script, several scripts read them. The first one
    /// extends all expiries. The result is consistent if no metadata has changed since the first
    /// script; otherwise the read starts again.
    pub(crate) async fn read(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<EntryReply>> {
        for _ in 0..READ_ATTEMPTS {
            let mut found = if options.may_write() {
                // Boxed, so the future of a plain read stays small.
                Box::pin(self.read_first_and_extend(ctx, ns, keys, options)).await?
            } else {
                self.read_first(ctx, ns, keys).await?
            };
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

    /// Reads entries in the order of `keys`, each as of the instant at which it is read. If `refresh`
    /// is set, the first script restarts the idle TTLs.
    pub(crate) async fn read_each(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        refresh: bool,
    ) -> Result<Vec<EntryReply>> {
        let mut found = if refresh {
            let extension = Extension::refreshing(Some(MAX_VALUE_BYTES_PER_SCRIPT));
            self.extend(ctx, ns, keys, extension, Write).await?.1
        } else {
            self.read_first(ctx, ns, keys).await?
        };
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
        EntryReply::decode_all(self.caller.ask(ctx, &request).await?, keys.len())
    }

    /// The same as [`read_first`](Self::read_first), and extends the expiries of all entries.
    async fn read_first_and_extend(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        options: GetOptions,
    ) -> Result<Vec<EntryReply>> {
        let limit = Some(MAX_VALUE_BYTES_PER_SCRIPT);
        let ttl = options.extended_ttl().map_or(Expiry::Never, Expiry::After);
        let extension = Extension { limit, ttl, refresh: options.is_refreshing() };
        // A read that extends nothing must not wait for replicas. Most refreshes are not due, so one
        // more round trip for those that are costs less.
        if options.extended_ttl().is_none() && self.caller.config().wait_replicas > 0 {
            let (due, found) = self.extend(ctx, ns, keys, extension, Read).await?;
            if due == 0 {
                return Ok(found);
            }
        }
        Ok(self.extend(ctx, ns, keys, extension, Write).await?.1)
    }

    /// Restarts the idle TTLs of entries without reading their values, and returns their new
    /// metadata. It is `None` for an entry that no longer exists.
    pub(crate) async fn refresh(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<StoredMeta>>> {
        let (_, found) = self.extend(ctx, ns, keys, Extension::refreshing(None), Write).await?;
        let decode = |entry: EntryReply| entry.meta.as_deref().map(StoredMeta::decode).transpose();
        found.into_iter().map(decode).collect()
    }

    /// Reads entries and extends their expiries with one script, which writes nothing if none is
    /// due. With the effect [`Read`] it never writes. Returns the number of entries that are due, and
    /// the entries.
    async fn extend(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
        extension: Extension,
        effect: Effect,
    ) -> Result<(u64, Vec<EntryReply>)> {
        let tag = self.caller.namespace_tag(ns);
        let mut names = Vec::with_capacity(keys.len() + 2);
        names.push(tag.metas());
        names.extend(keys.iter().map(|key| tag.value(key)));
        names.push(tag.expiries());
        let limit = extension.limit.map_or_else(String::new, |limit| limit.to_string());
        let request = Request::script(&tag, effect, &scripts::EXTEND, &names)
            .arg(limit)
            .arg(expiry_argument(extension.ttl))
            .arg(if extension.refresh { "refresh" } else { "" })
            .arg(if effect == Read { "check" } else { "" })
            .arg(keys);
        let answer = replies::array(self.caller.ask(ctx, &request).await?)?;
        let [due, found]: [Value; 2] = answer.try_into().map_err(|_| replies::unexpected())?;
        Ok((replies::integer(&due)?, EntryReply::decode_all(found, keys.len())?))
    }

    /// Returns the metadata and the sizes of live entries, in the order of `keys`. It reads no value.
    pub(crate) async fn stat(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<EntryStat>>> {
        let tag = self.caller.namespace_tag(ns);
        let request = Request::script(&tag, Read, &scripts::STAT, &[tag.metas()]).arg(keys);
        let answer = replies::array(self.caller.ask(ctx, &request).await?)?;
        if answer.len() != keys.len() {
            return Err(replies::unexpected());
        }
        let stat = |meta| {
            let meta = replies::bytes(meta)?;
            meta.map(|meta| StoredMeta::decode(&meta).map(StoredMeta::into_stat)).transpose()
        };
        answer.into_iter().map(stat).collect()
    }

    /// Replaces the expiry of an entry if the condition holds, and returns whether the entry was live.
    pub(crate) async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        new_expiry: Expiry,
        condition: Condition,
    ) -> Result<bool> {
        let tag = self.caller.namespace_tag(ns);
        let names = [tag.keys(), tag.metas(), tag.expiries(), tag.value(key)];
        let request = Request::script(&tag, Write, &scripts::TOUCH, &names)
            .arg(key)
            .arg(expiry_argument(new_expiry));
        let request = with_condition(request, condition);
        match self.caller.call(ctx, &request, &mut self.caller.retry()).await? {
            Ok(was_live) => Ok(replies::integer(&was_live)? > 0),
            Err(Refusal::Conflict { current, .. }) => Err(Error::conflict(current)),
            Err(refusal) => Err(refusal.into_error()),
        }
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

    /// Applies a batch atomically, and returns the indexes of the deletes that removed a live entry.
    /// Registers the namespace first if necessary.
    pub(crate) async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        changes: &[Change<'_>],
    ) -> Result<Vec<u64>> {
        let tag = self.caller.namespace_tag(ns);
        let mut token: Option<RegistrationToken> = None;
        let mut retry = self.caller.retry();
        for _ in 0..REGISTRATION_ATTEMPTS {
            let request = match (changes, &token) {
                ([only], None) if only.is_plain_put() => only.plain_put_request(&tag),
                _ => write_request(&tag, changes, token.as_ref()),
            };
            match self.caller.call(ctx, &request, &mut retry).await? {
                // The script of a plain put returns a number.
                Ok(Value::Int(_)) => return Ok(Vec::new()),
                // The batch is applied even if the reply cannot be decoded.
                Ok(deleted) => return deletes(deleted).map_err(Error::with_unknown_outcome),
                Err(Refusal::Unregistered { issued, fence }) => {
                    // Boxed, so the future of a write without registration stays small.
                    let registry = Registry::new(self.caller);
                    let drawn = Box::pin(registry.register(ctx, ns, &fence, &mut retry)).await?;
                    token = Some(RegistrationToken { drawn, issued });
                }
                Err(Refusal::Conflict { index, current }) => {
                    let conflict = Error::conflict(current);
                    return Err(if changes.len() == 1 {
                        conflict
                    } else {
                        conflict.at_batch_index(index)
                    });
                }
                Err(refusal) => return Err(refusal.into_error()),
            }
        }
        Err(Error::unavailable(
            "sweeps kept removing the registration of the namespace during the write",
        ))
    }
}

/// An extension of expiries during a read.
#[derive(Clone, Copy)]
struct Extension {
    /// The maximum number of bytes of values to read; `None` reads no values.
    limit: Option<usize>,
    /// The expiry to extend to; `Never` extends nothing.
    ttl: Expiry,
    /// Whether idle TTLs are restarted.
    refresh: bool,
}

impl Extension {
    const fn refreshing(limit: Option<usize>) -> Self {
        Self { limit, ttl: Expiry::Never, refresh: true }
    }
}

/// Decodes the indexes of the deletes that removed a live entry.
fn deletes(answer: Value) -> Result<Vec<u64>> {
    replies::array(answer)?.iter().map(replies::integer).collect()
}
