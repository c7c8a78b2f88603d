//! Repair of the index of one namespace.

use std::collections::BTreeSet;

use cubbyhole_core::{ExecutionContext, Namespace, OrphanAction, Result};

use super::contents::NamespaceContents;
use super::counts::not_a_string;
use super::part_findings::PartFindings;
use crate::cluster::{Caller, Request};
use crate::effect::Effect::Read;
use crate::index::{
    Comparison, IndexCursor, IndexFinding, IndexPart, KEYS_PER_SCRIPT, NamespaceIndex, key_of,
};
use crate::replies;

/// Repairs the index of one namespace.
pub(super) struct IndexRepair<'a> {
    caller: &'a Caller,
    ns: &'a Namespace,
}

impl<'a> IndexRepair<'a> {
    pub(super) const fn new(caller: &'a Caller, ns: &'a Namespace) -> Self {
        Self { caller, ns }
    }

    /// Compares keys with their values, and repairs the index.
    pub(super) async fn compare(
        &self,
        ctx: &ExecutionContext,
        keys: &[String],
        action: OrphanAction,
    ) -> Result<Vec<IndexFinding>> {
        let index = NamespaceIndex::new(self.caller, self.ns);
        let compared = index.compare(ctx, keys, Comparison::Repair(action)).await?;
        compared.ok_or_else(replies::unexpected)
    }

    /// Compares all keys of a part of the index with their values, and repairs the index. It skips
    /// orphaned values, because `SCAN` finds them by their own keys.
    pub(super) async fn repair_part(
        &self,
        ctx: &ExecutionContext,
        part: IndexPart,
    ) -> Result<PartFindings> {
        let index = NamespaceIndex::new(self.caller, self.ns);
        let mut found = PartFindings::default();
        let mut cursor = IndexCursor::new(part);
        while let Some(members) = index.next_keys(ctx, &mut cursor).await? {
            // A page may contain a key twice.
            let mut keys = BTreeSet::new();
            for member in members {
                match key_of(member) {
                    Ok(key) => drop(keys.insert(key)),
                    Err(error) => drop(found.failure.get_or_insert(error)),
                }
            }
            for keys in Vec::from_iter(keys).chunks(KEYS_PER_SCRIPT) {
                for finding in self.compare(ctx, keys, OrphanAction::List).await? {
                    match finding {
                        IndexFinding::Consistent | IndexFinding::Orphaned { .. } => {}
                        IndexFinding::WrongExpiry => found.expiries += 1,
                        IndexFinding::MissingValue => found.without_value += 1,
                        IndexFinding::Unlisted => found.unlisted += 1,
                        IndexFinding::NotAString => {
                            found.failure.get_or_insert_with(not_a_string);
                        }
                    }
                }
            }
        }
        let tag = self.caller.namespace_tag(self.ns);
        let has_members = async |name: String| {
            let request = Request::command(&tag, Read, "ZCARD").arg(name);
            Ok(replies::integer(&self.caller.ask(ctx, &request).await?)? > 0)
        };
        if has_members(tag.keys()).await? {
            found.contents = NamespaceContents::Entries;
        } else if has_members(tag.expiries()).await? {
            found.contents = NamespaceContents::MarkerOnly;
        }
        Ok(found)
    }
}
