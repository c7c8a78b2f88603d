//! The state of a cluster as one of its nodes reports it.

use cubbyhole_core::Result;

use super::node::Node;
use crate::keys::SLOTS;
use crate::replies;

/// The state of a cluster as one of its nodes reports it.
pub(crate) struct ClusterHealth {
    state: String,
    assigned: u64,
    /// The slots of this node that are being migrated, as `CLUSTER NODES` shows them.
    pub(crate) moving: String,
}

impl ClusterHealth {
    pub(crate) async fn of(node: &Node) -> Result<Self> {
        let mut command = redis::cmd("CLUSTER");
        let info = node.ask(command.arg("INFO")).await.and_then(replies::text)?;
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
        let mut command = redis::cmd("CLUSTER");
        let nodes = node.ask(command.arg("NODES")).await.and_then(replies::text)?;
        let own = nodes.lines().find(|line| line.contains("myself")).unwrap_or("");
        let moving: Vec<&str> = own.split(' ').filter(|word| word.starts_with('[')).collect();
        Ok(Self {
            state: field("cluster_state:").to_owned(),
            assigned: field("cluster_slots_assigned:").parse().unwrap_or(0),
            moving: moving.join(" "),
        })
    }

    /// Returns the problem of a cluster that does not serve all slots.
    pub(crate) fn trouble(&self) -> Option<String> {
        if self.state != "ok" {
            return Some(format!("`cluster_state` is `{}`: calls fail", self.state));
        }
        let missing = u64::from(SLOTS).saturating_sub(self.assigned);
        (missing > 0).then(|| format!("{missing} slots have no master: calls on them fail"))
    }
}
