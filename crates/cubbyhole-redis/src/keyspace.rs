//! What is stored under a prefix: single entries and batches. [`listing`](crate::listing),
//! [`registry`](crate::registry) and [`removal`](crate::removal) add the rest.

use std::time::Duration;

use crate::call::{Caller, Request, too_late};
use crate::error::Effect::{Read, Write};
use crate::error::Refusal;
use crate::keys::Place;
use crate::registry::Token;
use crate::replies::{self, Found};
use crate::scripts;
use bytes::Bytes;
use cubbyhole_core::{
    Condition, Entry, Error, ExecutionContext, Expiry, Namespace, Result, TenantId, Timestamp,
    Version,
};

/// How many bytes of values a script reads with others before the server serves others.
const VALUE_BYTES_AT_ONCE: usize = 16 * 1024 * 1024;
/// Each attempt follows a write to what is being read.
const READING_ATTEMPTS: u32 = 16;
/// Each attempt follows another's tidying of the same namespace, which is rare once.
const REGISTRATION_ATTEMPTS: u32 = 32;

/// The entries of a store.
#[derive(Clone)]
pub(crate) struct Keyspace {
    pub(crate) caller: Caller,
}

/// One operation of a batch.
pub(crate) struct Change<'a> {
    pub(crate) key: &'a str,
    pub(crate) condition: Condition,
    /// What to put; `None` deletes.
    pub(crate) put: Option<Put<'a>>,
}

pub(crate) struct Put<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) version: Version,
    pub(crate) expiry: Expiry,
}

impl Keyspace {
    pub(crate) fn prefix(&self) -> &str {
        self.caller.config().prefix()
    }

    pub(crate) fn place(&self, ns: &Namespace) -> Place {
        Place::of_namespace(self.prefix(), ns)
    }

    pub(crate) fn tenant_place(&self, tenant: &TenantId) -> Place {
        Place::of_tenant(self.prefix(), tenant)
    }

    pub(crate) async fn get(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Bytes>> {
        let place = self.place(ns);
        let request = Request::command(&place, Read, "GET").arg(place.value(key));
        let value = self.caller.ask(ctx, &request).await?;
        Ok(replies::bytes(value)?.map(Bytes::from))
    }

    /// The clock of the server that has the namespace's slot.
    pub(crate) async fn current_time(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
    ) -> Result<Timestamp> {
        let request = Request::command(&self.place(ns), Read, "TIME");
        replies::time(self.caller.ask(ctx, &request).await?)
    }

    /// As of one instant, in the order asked. What is too much for one script is read by several:
    /// all is as it was for the first of them while no meta data has changed since, and otherwise
    /// it is read again.
    pub(crate) async fn entries(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Found>> {
        for _ in 0..READING_ATTEMPTS {
            let mut found = self.some_entries(ctx, ns, keys).await?;
            loop {
                let Some(rest) = found.iter().position(Found::is_left_out) else {
                    return Ok(found);
                };
                let now = self.some_entries(ctx, ns, &keys[rest..]).await?;
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
    pub(crate) async fn entries_one_by_one(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Found>> {
        let mut found = self.some_entries(ctx, ns, keys).await?;
        while let Some(rest) = found.iter().position(Found::is_left_out) {
            let now = self.some_entries(ctx, ns, &keys[rest..]).await?;
            found.splice(rest.., now);
        }
        Ok(found)
    }

    /// One script's worth: the first, and as many more as are not too much.
    async fn some_entries(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Found>> {
        let place = self.place(ns);
        let mut names = Vec::with_capacity(keys.len() + 1);
        names.push(place.metas());
        names.extend(keys.iter().map(|key| place.value(key)));
        let request = Request::script(&place, Read, &scripts::ENTRIES, &names)
            .arg(VALUE_BYTES_AT_ONCE)
            .arg(keys);
        let answer = replies::array(self.caller.ask(ctx, &request).await?)?;
        if answer.len() != 2 * keys.len() {
            return Err(replies::unexpected());
        }
        let mut answer = answer.into_iter();
        let mut entries = Vec::with_capacity(keys.len());
        while let (Some(meta), Some(value)) = (answer.next(), answer.next()) {
            entries.push(Found { meta: replies::bytes(meta)?, value: replies::bytes(value)? });
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
        let place = self.place(ns);
        let names = [place.metas(), place.expiries(), place.value(key)];
        let request = Request::script(&place, Write, &scripts::EXTEND, &names)
            .arg(key)
            .arg(expiry(Expiry::After(ttl)));
        replies::only_entry(self.caller.ask(ctx, &request).await?)
    }

    pub(crate) async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        new_expiry: Expiry,
    ) -> Result<bool> {
        let place = self.place(ns);
        let names = [place.keys(), place.metas(), place.expiries(), place.value(key)];
        let request = Request::script(&place, Write, &scripts::TOUCH, &names)
            .arg(key)
            .arg(expiry(new_expiry));
        Ok(replies::integer(&self.caller.ask(ctx, &request).await?)? > 0)
    }

    pub(crate) async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<Bytes>>> {
        let place = self.place(ns);
        let names = [place.keys(), place.metas(), place.expiries(), place.value(key)];
        let request = Request::script(&place, Write, &scripts::TAKE, &names).arg(key);
        let answer = self.caller.ask(ctx, &request).await?;
        // It is gone, whatever it was.
        replies::only_entry(answer).map_err(Error::with_unknown_outcome)
    }

    /// Applies all changes or none, and answers how many live entries were deleted. The namespace
    /// is registered first if it is not.
    pub(crate) async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        changes: &[Change<'_>],
    ) -> Result<u64> {
        let place = self.place(ns);
        let mut token: Option<Token> = None;
        let mut repeat = self.caller.repeat();
        for _ in 0..REGISTRATION_ATTEMPTS {
            let request = match (changes, &token) {
                ([only], None) if only.is_plain_put() => put_request(&place, only),
                _ => write_request(&place, changes, token.as_ref()),
            };
            match self.caller.call(ctx, &request, &mut repeat).await? {
                Ok(deleted) => return replies::integer(&deleted),
                Err(Refusal::Unregistered { issued, fence }) => {
                    // Apart, because most writes need none and would carry the room for it along.
                    let drawn = Box::pin(self.register(ctx, ns, &fence, &mut repeat)).await?;
                    token = Some(Token { drawn, issued });
                }
                Err(Refusal::TooLate) => return Err(too_late()),
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

impl Change<'_> {
    /// Whether it is what most writes are: put, whatever is there, for good.
    fn is_plain_put(&self) -> bool {
        let for_good = self.put.as_ref().is_some_and(|put| put.expiry == Expiry::Never);
        for_good && self.condition == Condition::Always
    }
}

fn put_request(place: &Place, change: &Change<'_>) -> Request {
    let names = [place.keys(), place.metas(), place.expiries(), place.value(change.key)];
    let value = change.put.as_ref().map_or(&[][..], |put| put.value);
    let version = change.put.as_ref().map_or([0; 16], |put| put.version.to_bytes());
    Request::script_of(place, Write, &scripts::PUT, &names, value.len())
        .arg(change.key)
        .arg(&version[..])
        .arg(value)
}

fn write_request(place: &Place, changes: &[Change<'_>], token: Option<&Token>) -> Request {
    let mut names = Vec::with_capacity(changes.len() + 4);
    names.extend([place.keys(), place.metas(), place.expiries()]);
    names.extend(changes.iter().map(|change| place.value(change.key)));
    names.extend(token.map(|_| place.fence()));
    let (drawn, issued) = token.map_or(("", ""), |token| (&token.drawn, &token.issued));
    let mut request = Request::script(place, Write, &scripts::WRITE, &names).arg(drawn).arg(issued);
    for change in changes {
        request = request.arg(change.key);
        request = match change.condition {
            Condition::Always => request.arg(""),
            Condition::IfAbsent => request.arg("absent"),
            Condition::IfVersion(version) => request.arg(&version.to_bytes()[..]),
        };
        request = match &change.put {
            Some(put) => {
                request.arg(&put.version.to_bytes()[..]).arg(expiry(put.expiry)).arg(put.value)
            }
            None => request.arg("").arg("").arg(""),
        };
    }
    request
}

/// An expiry as the scripts take it. What is too much for the server's clock, it says itself.
fn expiry(expiry: Expiry) -> String {
    match expiry {
        Expiry::Never => String::new(),
        Expiry::After(ttl) => format!("+{}", ttl.as_nanos().div_ceil(1_000_000)),
        Expiry::At(instant) => format!("@{}", instant.as_millis()),
    }
}
