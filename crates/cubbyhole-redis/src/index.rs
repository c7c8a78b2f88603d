//! The index of a namespace: its sorted sets and its hash of metadata.

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

/// The number of keys that one script compares or one request reads. It bounds how long the server
/// is blocked.
pub(crate) const KEYS_PER_SCRIPT: usize = 500;

/// Reads the index of one namespace and compares it with the values.
pub(crate) struct NamespaceIndex<'a> {
    caller: &'a Caller,
    tag: HashTag,
}

impl<'a> NamespaceIndex<'a> {
    pub(crate) fn new(caller: &'a Caller, ns: &Namespace) -> Self {
        Self { caller, tag: caller.namespace_tag(ns) }
    }

    /// Returns the next keys of a part of the index, possibly none, or `None` at the end.
    ///
    /// The pages contain every key that exists from the first call to the last. Keys that are added
    /// or removed in between may be missing.
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
            .arg(KEYS_PER_SCRIPT);
        let answer = replies::array(self.caller.ask(ctx, &request).await?)?;
        let [next, found] = answer.try_into().map_err(|_| replies::unexpected())?;
        cursor.position = Some(replies::text(next)?).filter(|next| next != "0");
        // Every second member is a score or metadata.
        let keys = replies::members(found)?.into_iter().step_by(2);
        Ok(Some(keys.filter(|key| key != HashTag::MARKER.as_bytes()).collect()))
    }

    /// Returns some keys of the namespace, from the first part of the index that has any. The other
    /// parts may be lost.
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

    /// Compares keys in the index with their values, as of one instant, and repairs the index if
    /// `comparison` says so.
    ///
    /// Returns `None` without changes if the namespace must be registered first.
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

/// Parses a member of the index as a key.
pub(crate) fn key_of(member: Vec<u8>) -> Result<String> {
    let key = String::from_utf8(member).map_err(|error| no_key().with_source(error))?;
    check_key(&key).map_err(|error| no_key().with_source(error))?;
    Ok(key)
}

fn no_key() -> Error {
    Error::corrupt("a member of an index is not a valid key: another program wrote it")
}
