//! The index of a namespace beside its values: walking its parts, and comparing keys in it with what
//! is there.

mod comparison;
mod cursor;
mod finding;
mod part;

use cubbyhole_core::limits::check_key;
use cubbyhole_core::{Error, ExecutionContext, Namespace, Result, Version};

use crate::cluster::{Caller, Request};
use crate::effect::Effect::{Read, Write};
use crate::keys::HashTag;
use crate::refusal::Refusal;
use crate::{replies, scripts};
pub(crate) use comparison::Comparison;
pub(crate) use cursor::IndexCursor;
pub(crate) use finding::IndexFinding;
pub(crate) use part::IndexPart;

/// How many keys are compared, or read of an index, before the server serves others.
pub(crate) const KEYS_AT_ONCE: usize = 500;

/// The index of one namespace.
pub(crate) struct NamespaceIndex<'a> {
    caller: &'a Caller,
    tag: HashTag,
}

impl<'a> NamespaceIndex<'a> {
    pub(crate) fn new(caller: &'a Caller, ns: &Namespace) -> Self {
        Self { caller, tag: caller.namespace_tag(ns) }
    }

    /// The next keys of a part of an index, which may be none; `None` at the end. What is there from
    /// the first call to the last is among them, and what comes or goes meanwhile may be.
    pub(crate) async fn next_keys(
        &self,
        ctx: &ExecutionContext,
        cursor: &mut IndexCursor,
    ) -> Result<Option<Vec<Vec<u8>>>> {
        let Some(position) = cursor.position.take() else { return Ok(None) };
        let (command, name) = match cursor.part {
            IndexPart::Keys => ("ZSCAN", self.tag.keys()),
            IndexPart::Metas => ("HSCAN", self.tag.metas()),
            IndexPart::Expiries => ("ZSCAN", self.tag.expiries()),
        };
        let request = Request::command(&self.tag, Read, command)
            .arg(name)
            .arg(position)
            .arg("COUNT")
            .arg(KEYS_AT_ONCE);
        let answer = replies::array(self.caller.ask(ctx, &request).await?)?;
        let [next, found] = answer.try_into().map_err(|_| replies::unexpected())?;
        cursor.position = Some(replies::text(next)?).filter(|next| next != "0");
        // Each with its score or its meta data.
        let keys = replies::members(found)?.into_iter().step_by(2);
        Ok(Some(keys.filter(|key| key != HashTag::MARKER.as_bytes()).collect()))
    }

    /// Some keys of a namespace, by the first part of its index that has any: another part may be
    /// lost.
    pub(crate) async fn first_keys(
        &self,
        ctx: &ExecutionContext,
        count: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let keys = self.first_members(ctx, self.tag.keys(), count).await?;
        if !keys.is_empty() {
            return Ok(keys);
        }
        let request = Request::command(&self.tag, Read, "HLEN").arg(self.tag.metas());
        if replies::integer(&self.caller.ask(ctx, &request).await?)? > 0 {
            let mut cursor = IndexCursor::new(IndexPart::Metas);
            while let Some(keys) = self.next_keys(ctx, &mut cursor).await? {
                if !keys.is_empty() {
                    return Ok(keys);
                }
            }
        }
        let expiring = self.first_members(ctx, self.tag.expiries(), count).await?;
        Ok(expiring.into_iter().filter(|key| key != HashTag::MARKER.as_bytes()).collect())
    }

    async fn first_members(
        &self,
        ctx: &ExecutionContext,
        name: String,
        count: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let request = Request::command(&self.tag, Read, "ZRANGE").arg(name).arg(0).arg(count);
        replies::members(self.caller.ask(ctx, &request).await?)
    }

    /// Compares keys of a namespace in its index with their values, all at one instant.
    ///
    /// # Errors
    /// What the call meets. `None` if the namespace must be registered before a value is: nothing was
    /// changed.
    pub(crate) async fn compare<K: AsRef<str>>(
        &self,
        ctx: &ExecutionContext,
        keys: &[K],
        comparison: Comparison,
    ) -> Result<Option<Vec<IndexFinding>>> {
        let tag = &self.tag;
        let mut names = vec![tag.keys(), tag.metas(), tag.expiries()];
        names.extend(keys.iter().map(|key| tag.value(key.as_ref())));
        let effect = if comparison == Comparison::Check { Read } else { Write };
        let mut request =
            Request::script(tag, effect, &scripts::RECONCILE, &names).arg(comparison.word());
        for key in keys {
            request = request.arg(key.as_ref());
        }
        if comparison.needs_versions() {
            for _ in keys {
                request = request.arg(&Version::draw().to_bytes()[..]);
            }
        }
        let answer = match self.caller.call(ctx, &request, &mut self.caller.retry()).await? {
            Ok(answer) => replies::array(answer)?,
            Err(Refusal::Unregistered { .. }) => return Ok(None),
            Err(_) => return Err(replies::unexpected()),
        };
        let numbers: Vec<u64> = answer.iter().map(replies::integer).collect::<Result<_>>()?;
        let findings: Vec<IndexFinding> =
            numbers.chunks_exact(3).map(IndexFinding::decode).collect::<Result<_>>()?;
        if findings.len() != keys.len() {
            return Err(replies::unexpected());
        }
        Ok(Some(findings))
    }
}

/// A member of an index as the key that it names.
pub(crate) fn key_of(member: Vec<u8>) -> Result<String> {
    let key = String::from_utf8(member).map_err(|error| no_key().with_source(error))?;
    check_key(&key).map_err(|error| no_key().with_source(error))?;
    Ok(key)
}

fn no_key() -> Error {
    Error::corrupt("a name in an index is no key: another program wrote it")
}
