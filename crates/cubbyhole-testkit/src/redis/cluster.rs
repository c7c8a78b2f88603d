//! A private Redis Cluster.

mod form;
mod view;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::RedisServer;
use super::clock::Clock;
use crate::process::server::LIMIT;
use crate::process::wait;
use view::Line;

const SLOTS: u16 = 16384;

const MASTERS: usize = 3;

/// How long a node must be silent before the others consider it dead. A busy machine may halt a node
/// for a second.
const NODE_TIMEOUT: &str = "cluster-node-timeout 2000";

/// Long enough that no node is considered dead on a busy machine.
const PATIENT_NODE_TIMEOUT: &str = "cluster-node-timeout 60000";

/// The nodes measure silence by the manual clock, which a test advances by years.
const ENDLESS_NODE_TIMEOUT: &str = "cluster-node-timeout 10000000000000";

/// The timeout in milliseconds for the keys that a test moves in one command.
const MIGRATE_LIMIT: &str = "5000";

/// A private Redis Cluster on 127.0.0.1, without a password. Dropping it kills its nodes and removes
/// their data.
///
/// It has three masters. With the system's clock each master has a replica: nodes 0, 1 and 2 start as
/// masters, and node `n + 3` as the replica of node `n`.
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    /// The ids of the nodes, in their order.
    ids: Vec<String>,
    url: String,
    clock: Option<Arc<Clock>>,
}

impl RedisCluster {
    /// Starts three masters and a replica of each, with the settings of [`RedisServer::start`].
    /// Returns when all slots are served and the replicas follow. A replica takes over from a dead
    /// master after about four seconds.
    ///
    /// # Errors
    ///
    /// A node did not start, or the cluster did not form. The message has the reason.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&[])
    }

    /// [`start`](Self::start) for tests that cause no failover: no replica takes over if the machine
    /// halts a master for some seconds.
    ///
    /// # Errors
    ///
    /// The same errors as [`start`](Self::start).
    pub fn start_patient() -> Result<Self, String> {
        Self::start_with(&[PATIENT_NODE_TIMEOUT])
    }

    /// [`start`](Self::start) with lines of `redis.conf` for every node.
    ///
    /// # Errors
    ///
    /// The same errors as [`start`](Self::start).
    pub fn start_with(lines: &[&str]) -> Result<Self, String> {
        let lines = [&[NODE_TIMEOUT], lines].concat();
        Self::of(form::start_nodes(2 * MASTERS, &lines, false)?)
    }

    /// Starts three masters without replicas that share a manual clock, which only
    /// [`advance`](Self::advance) moves. It starts some seconds after the current time. No node ever
    /// considers another dead. Linux only.
    ///
    /// # Errors
    ///
    /// The same errors as [`start`](Self::start).
    pub fn start_with_clock() -> Result<Self, String> {
        Self::of(form::start_nodes(MASTERS, &[ENDLESS_NODE_TIMEOUT], true)?)
    }

    fn of(nodes: Vec<RedisServer>) -> Result<Self, String> {
        let id = |node: &RedisServer| node.cli(&["CLUSTER", "MYID"]);
        let ids = nodes.iter().map(id).collect::<Result<_, _>>()?;
        let addresses: Vec<_> =
            nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        let url = format!("redis+cluster://{}", addresses.join(","));
        let clock = nodes.first().and_then(|node| node.clock.clone());
        let cluster = Self { nodes, ids, url, clock };
        form::form(&cluster)?;
        Ok(cluster)
    }

    /// Returns `redis+cluster://127.0.0.1:PORT,127.0.0.1:PORT…` with all nodes.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns all nodes, also those that do not run. Their order never changes.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// Returns a node, to stop, kill or start it.
    ///
    /// # Panics
    ///
    /// There is no node of that index.
    #[must_use]
    pub fn node_mut(&mut self, index: usize) -> &mut RedisServer {
        &mut self.nodes[index]
    }

    /// Advances the manual clock of all nodes.
    ///
    /// # Errors
    ///
    /// The cluster uses the system's clock.
    pub fn advance(&self, by: Duration) -> Result<(), String> {
        self.nodes[0].advance(by)
    }

    /// Returns the time since 1970 on the manual clock.
    ///
    /// # Errors
    ///
    /// The cluster uses the system's clock.
    pub fn now(&self) -> Result<Duration, String> {
        self.nodes[0].now()
    }

    /// Returns the nodes that consider themselves masters with slots. When an old master comes back,
    /// two nodes do so for a moment.
    ///
    /// # Errors
    ///
    /// A reply is invalid. Nodes that do not reply are left out.
    pub fn masters(&self) -> Result<Vec<usize>, String> {
        let lines = self.own_lines()?;
        let masters = lines.iter().filter(|(_, line)| line.is_master() && line.has_slots());
        Ok(masters.map(|(index, _)| *index).collect())
    }

    /// Returns the node that says that it serves `slot`.
    ///
    /// # Errors
    ///
    /// No node says so, as before a replica has taken over.
    pub fn owner_of(&self, slot: u16) -> Result<usize, String> {
        let lines = self.own_lines()?;
        // A master that comes back does not know yet that a replica has taken over.
        let owners = lines.into_iter().filter(|(_, line)| line.owns(slot));
        let newest = owners.max_by_key(|(_, line)| line.epoch);
        newest.map(|(index, _)| index).ok_or_else(|| format!("no node serves slot {slot}"))
    }

    /// Returns the replica of a node.
    ///
    /// # Errors
    ///
    /// No node says that it is one.
    pub fn replica_of(&self, index: usize) -> Result<usize, String> {
        let lines = self.own_lines()?;
        let id = Some(&self.ids[index]);
        let replica = lines.iter().find(|(_, line)| line.master.as_ref() == id);
        let replica = replica.map(|(replica, _)| *replica);
        replica.ok_or_else(|| format!("node {index} has no replica"))
    }

    /// Waits until a node other than `old` serves `slot` and all running nodes agree. Returns that
    /// node.
    ///
    /// # Errors
    ///
    /// No node took over within a minute.
    pub fn wait_for_successor(&self, slot: u16, old: usize) -> Result<usize, String> {
        let mut found = Err(String::new());
        wait::until(LIMIT, || {
            found = self.successor(slot, old);
            Ok(found.is_ok())
        })?;
        found.map_err(|error| format!("no node took over from node {old}: {error}"))
    }

    fn successor(&self, slot: u16, old: usize) -> Result<usize, String> {
        let owner = self.owner_of(slot)?;
        if owner == old {
            return Err(format!("node {old} still serves slot {slot}"));
        }
        for index in
            (0..self.nodes.len()).filter(|index| *index != old && self.nodes[*index].answers())
        {
            let lines = self.view(index)?;
            if !lines.iter().any(|line| line.id == self.ids[owner] && line.owns(slot)) {
                return Err(format!("node {index} does not know it of node {owner}"));
            }
            self.check_state(index)?;
        }
        Ok(owner)
    }

    /// Waits until all nodes run and agree, all slots are served, and all replicas follow. This is the
    /// state after the start, except that other nodes may be masters.
    ///
    /// # Errors
    ///
    /// The cluster is not in this state after a minute. The message has the reason.
    pub fn wait_until_whole(&self) -> Result<(), String> {
        let mut result = Ok(());
        wait::until(LIMIT, || {
            result = self.check();
            Ok(result.is_ok())
        })?;
        result.map_err(|error| format!("the cluster is not whole: {error}"))
    }

    /// Begins to move `slot` from its owner to node `to`. The owner redirects clients with `ASK` for
    /// keys that it does not have, and the other node serves redirected clients.
    ///
    /// # Errors
    ///
    /// A node replied with an error, or no node serves the slot.
    pub fn begin_move(&self, slot: u16, to: usize) -> Result<(), String> {
        let from = self.owner_of(slot)?;
        // In this order, so a redirected client finds a node that imports the slot.
        self.set_slot(to, slot, "IMPORTING", from)?;
        self.set_slot(from, slot, "MIGRATING", to)
    }

    /// Moves up to `count` keys of a slot whose move has begun. Returns how many it moved, which is 0
    /// if none are left.
    ///
    /// # Errors
    ///
    /// A node replied with an error, or the slot does not move.
    pub fn move_keys(&self, slot: u16, count: usize) -> Result<usize, String> {
        let (from, to) = self.movement(slot)?;
        let (slot, count) = (slot.to_string(), count.to_string());
        let source = &self.nodes[from];
        let keys = source.call(&["CLUSTER", "GETKEYSINSLOT", &slot, &count])?.into_texts();
        if keys.is_empty() {
            return Ok(0);
        }
        let port = self.nodes[to].port().to_string();
        let command = ["MIGRATE", "127.0.0.1", &port, "", "0", MIGRATE_LIMIT, "KEYS"];
        let command = command.iter().map(|word| word.as_bytes());
        let command: Vec<&[u8]> = command.chain(keys.iter().map(Vec::as_slice)).collect();
        source.call(&command)?;
        Ok(keys.len())
    }

    /// Ends a move. The new owner learns it first, so no client is redirected back and forth.
    ///
    /// # Errors
    ///
    /// A node replied with an error, the old owner still has keys of the slot, or the slot does not
    /// move.
    pub fn end_move(&self, slot: u16) -> Result<(), String> {
        let (from, to) = self.movement(slot)?;
        // The source refuses too, but only after the target has taken the slot.
        let count = self.nodes[from].cli(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()])?;
        if count != "0" {
            return Err(format!("node {from} still has {count} keys of slot {slot}"));
        }
        self.set_slot(to, slot, "NODE", to)?;
        self.set_slot(from, slot, "NODE", to)?;
        for index in self.masters()? {
            if index != from && index != to {
                self.set_slot(index, slot, "NODE", to)?;
            }
        }
        Ok(())
    }

    /// Moves `slot` with all its keys to node `to`.
    ///
    /// # Errors
    ///
    /// A node replied with an error, or no node serves the slot.
    pub fn move_slot(&self, slot: u16, to: usize) -> Result<(), String> {
        self.begin_move(slot, to)?;
        while self.move_keys(slot, 100)? > 0 {}
        self.end_move(slot)
    }

    fn set_slot(&self, index: usize, slot: u16, what: &str, node: usize) -> Result<(), String> {
        let command = ["CLUSTER", "SETSLOT", &slot.to_string(), what, &self.ids[node]];
        self.nodes[index].call(&command).map(drop)
    }

    /// Returns the source and the target of a slot that moves.
    fn movement(&self, slot: u16) -> Result<(usize, usize), String> {
        for (from, line) in self.own_lines()? {
            let to = line.target_of(slot).and_then(|to| self.ids.iter().position(|id| id == to));
            if let Some(to) = to {
                return Ok((from, to));
            }
        }
        Err(format!("slot {slot} does not move"))
    }

    /// Returns what each running node says about itself.
    fn own_lines(&self) -> Result<Vec<(usize, Line)>, String> {
        let mut lines = Vec::new();
        for index in (0..self.nodes.len()).filter(|index| self.nodes[*index].answers()) {
            let Ok(text) = self.nodes[index].cli(&["CLUSTER", "NODES"]) else { continue };
            let own = view::parse(&text)?.into_iter().find(Line::is_own);
            lines.push((index, own.ok_or_else(|| format!("node {index} is not in its cluster"))?));
        }
        Ok(lines)
    }

    fn view(&self, index: usize) -> Result<Vec<Line>, String> {
        view::parse(&self.nodes[index].cli(&["CLUSTER", "NODES"])?)
    }

    /// Checks the state that [`wait_until_whole`](Self::wait_until_whole) waits for.
    fn check(&self) -> Result<(), String> {
        for index in 0..self.nodes.len() {
            let lines = self.check_links(index)?;
            let masters = || lines.iter().filter(|line| line.is_master());
            if masters().count() != MASTERS || !masters().all(Line::has_slots) {
                return Err(format!("node {index} does not see three masters: {lines:?}"));
            }
            self.check_state(index)?;
            self.check_replication(index)?;
        }
        Ok(())
    }

    /// Returns a node's view if the node knows and reaches all others.
    fn check_links(&self, index: usize) -> Result<Vec<Line>, String> {
        let lines = self.view(index)?;
        if lines.len() == self.nodes.len() && lines.iter().all(Line::is_reached) {
            return Ok(lines);
        }
        Err(format!("node {index} does not reach all nodes: {lines:?}"))
    }

    fn check_state(&self, index: usize) -> Result<(), String> {
        let info = self.nodes[index].cli(&["CLUSTER", "INFO"])?;
        let has = |line: &str| info.lines().any(|found| found == line);
        if has("cluster_state:ok") && has(&format!("cluster_slots_ok:{SLOTS}")) {
            return Ok(());
        }
        Err(format!("node {index} does not see all slots served: {info}"))
    }

    /// Checks that a replica has its master's data, and that a master has its replica.
    fn check_replication(&self, index: usize) -> Result<(), String> {
        let info = self.nodes[index].cli(&["INFO", "replication"])?;
        let has = |line: &str| info.lines().any(|found| found == line);
        let replicas = self.nodes.len() / MASTERS - 1;
        let online = info.lines().filter(|line| line.contains(",state=online,")).count();
        if has("master_link_status:up") || (has("role:master") && online == replicas) {
            return Ok(());
        }
        Err(format!("the replication of node {index} is not complete: {info}"))
    }
}

impl fmt::Debug for RedisCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCluster").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}
