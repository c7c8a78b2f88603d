//! Deletion of the entries of one namespace whose keys start with a prefix.

use cubbyhole_core::{Erased, ExecutionContext, Namespace, Result};

use crate::cluster::{Caller, Request};
use crate::effect::Effect::{Read, Write};
use crate::key_range::KeyRange;
use crate::refusal::Refusal;
use crate::{replies, scripts};

/// The number of attempts to remove keys to which other clients keep adding.
const ATTEMPTS: u32 = 16;

/// One step of deleting the entries with a key prefix.
///
/// The step finds the keys first, because a script must declare the values that it removes. One script
/// then removes them, unless another client has added a key that it would have to remove too. The
/// step then starts again, so it is atomic. The last attempt removes the keys that it found in any
/// case and reports that others are left: the deletion makes progress.
///
/// A namespace that the step empties stays listed until a sweep, as after a delete. Entries that the
/// sorted set of keys has lost are not found until a repair.
pub(crate) struct PrefixDeletion<'a> {
    caller: &'a Caller,
    ns: &'a Namespace,
    key_prefix: &'a str,
    range: KeyRange,
}

impl<'a> PrefixDeletion<'a> {
    pub(crate) fn new(caller: &'a Caller, ns: &'a Namespace, key_prefix: &'a str) -> Self {
        Self { caller, ns, key_prefix, range: KeyRange::new(key_prefix, None) }
    }

    /// Removes at most `limit` entries.
    pub(crate) async fn run(self, ctx: &ExecutionContext, limit: usize) -> Result<Erased> {
        let mut retry = self.caller.retry();
        let mut attempt = 1;
        loop {
            let keys = self.first_keys(ctx, limit).await?;
            if keys.is_empty() {
                return Ok(Erased { removed: 0, done: true });
            }
            let request = self.request(keys, limit, attempt == ATTEMPTS);
            match self.caller.call(ctx, &request, &mut retry).await? {
                Ok(answer) => {
                    let [removed, done] = replies::integers(answer)?;
                    return Ok(Erased { removed, done: done > 0 });
                }
                Err(Refusal::Changed) => attempt += 1,
                Err(refusal) => return Err(refusal.into_error()),
            }
        }
    }

    fn request(&self, keys: Vec<Vec<u8>>, limit: usize, partial: bool) -> Request {
        let tag = self.caller.namespace_tag(self.ns);
        let mut names = vec![tag.keys(), tag.metas(), tag.expiries()];
        // A member that is not UTF-8 was written by another program and has no value.
        let texts = keys.iter().filter_map(|key| std::str::from_utf8(key).ok());
        names.extend(texts.map(|key| tag.value(key)));
        Request::script(&tag, Write, &scripts::DELETE_PREFIX, &names)
            .arg(&self.range.from)
            .arg(&self.range.to)
            .arg(limit)
            .arg(if partial { "partial" } else { "" })
            .arg(keys)
    }

    async fn first_keys(&self, ctx: &ExecutionContext, count: usize) -> Result<Vec<Vec<u8>>> {
        let tag = self.caller.namespace_tag(self.ns);
        let request = Request::command(&tag, Read, "ZRANGE")
            .arg(tag.keys())
            .arg(&self.range.from)
            .arg(&self.range.to)
            .arg(&["BYLEX", "LIMIT", "0"])
            .arg(count);
        let members = replies::members(self.caller.ask(ctx, &request).await?)?;
        // Another program may have added members with other scores, which are not in order.
        if members.iter().all(|member| member.starts_with(self.key_prefix.as_bytes())) {
            return Ok(members);
        }
        Err(replies::out_of_order())
    }
}
