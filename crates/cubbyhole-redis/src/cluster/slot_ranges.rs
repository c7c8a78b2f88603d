//! The slot map as a node of the cluster reports it.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{Error, ExecutionContext, Result};
use redis::Value;

use super::node::Node;
use crate::config::Address;

/// The time limit for a node to return its slot map.
pub(super) const MAP_TIMEOUT: Duration = Duration::from_secs(2);

/// A range of slots and its master.
pub(super) struct SlotRange {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) master: Address,
}

/// The reply of a node to `CLUSTER SLOTS`.
pub(super) struct SlotRanges(Vec<SlotRange>);

impl SlotRanges {
    pub(super) fn iter(&self) -> std::slice::Iter<'_, SlotRange> {
        self.0.iter()
    }

    /// Returns whether a slot belongs to this master, or to no master.
    pub(super) fn assigns(&self, (slot, master): (u16, &Address)) -> bool {
        let owner = self.iter().find(|range| (range.first..=range.last).contains(&slot));
        owner.is_none_or(|owner| owner.master == *master)
    }

    /// Requests the ranges from a node, for at most [`MAP_TIMEOUT`].
    pub(super) async fn of(node: Arc<Node>) -> Result<Self> {
        let limit = ExecutionContext::new().with_timeout(MAP_TIMEOUT);
        let silent = |_| Error::unavailable(format!("the node {} does not respond", node.address));
        limit.race(Self::ask(&node)).await.map_err(silent)?
    }

    async fn ask(node: &Node) -> Result<Self> {
        let answer = node.ask(redis::cmd("CLUSTER").arg("SLOTS")).await?;
        let ranges = Self::decode(&answer, &node.address);
        ranges.filter(|ranges| !ranges.0.is_empty()).ok_or_else(|| {
            Error::unavailable(format!("the node {} knows no masters", node.address))
        })
    }

    fn decode(answer: &Value, asked: &Address) -> Option<Self> {
        let Value::Array(ranges) = answer else {
            return None;
        };
        let ranges = ranges.iter().map(|range| SlotRange::decode(range, asked));
        ranges.collect::<Option<_>>().map(Self)
    }
}

impl SlotRange {
    fn decode(range: &Value, asked: &Address) -> Option<Self> {
        let Value::Array(parts) = range else {
            return None;
        };
        let [Value::Int(first), Value::Int(last), Value::Array(owner), ..] = parts.as_slice()
        else {
            return None;
        };
        let host = match owner.first()? {
            Value::BulkString(host) => std::str::from_utf8(host).ok()?,
            // The node does not know its host name.
            _ => "",
        };
        let host = if host.is_empty() || host == "?" { &asked.host } else { host };
        let Value::Int(port) = owner.get(1)? else {
            return None;
        };
        let master = Address { host: host.to_owned(), port: u16::try_from(*port).ok()? };
        Some(Self { first: u16::try_from(*first).ok()?, last: u16::try_from(*last).ok()?, master })
    }
}
