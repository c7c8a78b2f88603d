//! A private Redis Cluster.

mod form;
mod view;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Clock;
use super::{LIMIT, RedisServer};
use crate::process::wait;
use view::Line;

const SLOTS: u16 = 16384;

const MASTERS: usize = 3;

/// How long a node must be silent until the others take it for dead. A busy machine may well halt
/// a node for a second.
const NODE_TIMEOUT: &str = "cluster-node-timeout 2000";

/// On a busy machine none of the nodes is taken for dead.
const PATIENT_NODE_TIMEOUT: &str = "cluster-node-timeout 60000";

/// The nodes judge each other's silence by the clock that a test moves by years.
const ENDLESS_NODE_TIMEOUT: &str = "cluster-node-timeout 10000000000000";

/// Milliseconds, for as many keys as a test moves at once.
const MIGRATE_LIMIT: &str = "5000";

/// A Redis Cluster of one test's own, on loopback alone and without a password; dropping it kills
/// its nodes and removes their data.
///
/// There are three masters, and a replica of each where the cluster has the system's clock: nodes
/// 0, 1 and 2 begin as masters, node `n + 3` as the replica of `n`.
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    /// By which the nodes know each other, in their order.
    ids: Vec<String>,
    url: String,
    clock: Option<Arc<Clock>>,
}

impl RedisCluster {
    /// Starts three masters and a replica of each, with the settings of
    /// [`RedisServer::start`]; returns when all slots are served and the replicas follow. A master
    /// that is gone is replaced by its replica after about four seconds.
    ///
    /// # Errors
    ///
    /// What to install, the end of a node's log, or what the nodes did not agree on.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&[])
    }

    /// [`start`](Self::start) for tests that do not harm the cluster: a master that the machine
    /// halts for some seconds is not replaced.
    ///
    /// # Errors
    ///
    /// What to install, the end of a node's log, or what the nodes did not agree on.
    pub fn start_patient() -> Result<Self, String> {
        Self::start_with(&[PATIENT_NODE_TIMEOUT])
    }

    /// [`start`](Self::start) with lines of `redis.conf` for every node.
    ///
    /// # Errors
    ///
    /// What to install, the end of a node's log, or what the nodes did not agree on.
    pub fn start_with(lines: &[&str]) -> Result<Self, String> {
        let lines = [&[NODE_TIMEOUT], lines].concat();
        Self::of(form::start_nodes(2 * MASTERS, &lines, false)?)
    }

    /// Starts three masters without replicas that have one clock, which stands still until
    /// [`advance`](Self::advance) moves it. It begins at the present, some seconds
    /// ahead of it. No node ever takes another for dead. Linux alone.
    ///
    /// # Errors
    ///
    /// What to install, the end of a node's log, or what the nodes did not agree on.
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

    /// `redis+cluster://127.0.0.1:PORT,127.0.0.1:PORT…` with all nodes.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All nodes, also those that do not run; their order never changes.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// A node, to stop, kill or start it.
    ///
    /// # Panics
    ///
    /// Where there are not that many nodes.
    #[must_use]
    pub fn node_mut(&mut self, index: usize) -> &mut RedisServer {
        &mut self.nodes[index]
    }

    /// Moves the clock of a cluster that was started with one, for all nodes at once.
    ///
    /// # Errors
    ///
    /// The cluster lives by the system's clock.
    pub fn advance(&self, by: Duration) -> Result<(), String> {
        self.nodes[0].advance(by)
    }

    /// The time since 1970 by the clock of a cluster that was started with one.
    ///
    /// # Errors
    ///
    /// The cluster lives by the system's clock.
    pub fn now(&self) -> Result<Duration, String> {
        self.nodes[0].now()
    }

    /// The nodes that take themselves for masters with slots, which two do for a moment when the
    /// old one comes back.
    ///
    /// # Errors
    ///
    /// An answer that is not understood. A node that gives none is left out.
    pub fn masters(&self) -> Result<Vec<usize>, String> {
        let lines = self.own_lines()?;
        let masters = lines.iter().filter(|(_, line)| line.is_master() && line.has_slots());
        Ok(masters.map(|(index, _)| *index).collect())
    }

    /// The node that serves `slot`, by the nodes' own words.
    ///
    /// # Errors
    ///
    /// No node that answers does, as while a replica has not yet taken over.
    pub fn owner_of(&self, slot: u16) -> Result<usize, String> {
        let lines = self.own_lines()?;
        // A master that comes back does not know yet that it has been replaced.
        let owners = lines.into_iter().filter(|(_, line)| line.owns(slot));
        let newest = owners.max_by_key(|(_, line)| line.epoch);
        newest.map(|(index, _)| index).ok_or_else(|| format!("no node serves slot {slot}"))
    }

    /// The replica of a node.
    ///
    /// # Errors
    ///
    /// No node that answers is one.
    pub fn replica_of(&self, index: usize) -> Result<usize, String> {
        let lines = self.own_lines()?;
        let id = Some(&self.ids[index]);
        let replica = lines.iter().find(|(_, line)| line.master.as_ref() == id);
        let replica = replica.map(|(replica, _)| *replica);
        replica.ok_or_else(|| format!("node {index} has no replica"))
    }

    /// Waits until another node than `old` serves `slot` and the others that run have agreed on
    /// it; that node.
    ///
    /// # Errors
    ///
    /// It did not happen within a minute.
    pub fn wait_for_successor(&self, slot: u16, old: usize) -> Result<usize, String> {
        let mut found = Err(String::new());
        wait::until(LIMIT, || {
            found = self.successor(slot, old);
            Ok(found.is_ok())
        })?;
        found.map_err(|error| format!("nobody took over from node {old}: {error}"))
    }

    fn successor(&self, slot: u16, old: usize) -> Result<usize, String> {
        let owner = self.owner_of(slot)?;
        if owner == old {
            return Err(format!("slot {slot} is still its"));
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

    /// Waits until all nodes are there, agree, and serve all slots, and all replicas follow: as
    /// after the start, only that the masters may be others.
    ///
    /// # Errors
    ///
    /// What is missing after a minute.
    pub fn wait_until_whole(&self) -> Result<(), String> {
        let mut result = Ok(());
        wait::until(LIMIT, || {
            result = self.check();
            Ok(result.is_ok())
        })?;
        result.map_err(|error| format!("the cluster is not whole: {error}"))
    }

    /// Declares that `slot` moves from its owner to node `to`: the one sends clients on for keys
    /// that it has not got, the other serves those who ask for them.
    ///
    /// # Errors
    ///
    /// A node's error, or that no node serves the slot.
    pub fn begin_move(&self, slot: u16, to: usize) -> Result<(), String> {
        let from = self.owner_of(slot)?;
        // In this order: a client that is sent on must find the slot awaited.
        self.set_slot(to, slot, "IMPORTING", from)?;
        self.set_slot(from, slot, "MIGRATING", to)
    }

    /// Moves up to `count` keys of a slot whose move has begun; how many it moved, 0 when there
    /// are none left.
    ///
    /// # Errors
    ///
    /// A node's error, or that the slot does not move.
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

    /// Ends a move: the new owner learns it first, so that no client is sent to and fro.
    ///
    /// # Errors
    ///
    /// A node's error, that the old owner still has keys of the slot, or that it does not move.
    pub fn end_move(&self, slot: u16) -> Result<(), String> {
        let (from, to) = self.movement(slot)?;
        // The source itself refuses, but only when the target has already taken the slot.
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

    /// Moves `slot` with its keys to node `to`, from beginning to end.
    ///
    /// # Errors
    ///
    /// A node's error, or that no node serves the slot.
    pub fn move_slot(&self, slot: u16, to: usize) -> Result<(), String> {
        self.begin_move(slot, to)?;
        while self.move_keys(slot, 100)? > 0 {}
        self.end_move(slot)
    }

    fn set_slot(&self, index: usize, slot: u16, what: &str, node: usize) -> Result<(), String> {
        let command = ["CLUSTER", "SETSLOT", &slot.to_string(), what, &self.ids[node]];
        self.nodes[index].call(&command).map(drop)
    }

    /// Source and target of a slot that moves.
    fn movement(&self, slot: u16) -> Result<(usize, usize), String> {
        for (from, line) in self.own_lines()? {
            let to = line.target_of(slot).and_then(|to| self.ids.iter().position(|id| id == to));
            if let Some(to) = to {
                return Ok((from, to));
            }
        }
        Err(format!("slot {slot} does not move"))
    }

    /// What each node that answers says about itself.
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

    /// What [`wait_until_whole`](Self::wait_until_whole) waits for.
    fn check(&self) -> Result<(), String> {
        for index in 0..self.nodes.len() {
            let lines = self.check_terms(index)?;
            let masters = || lines.iter().filter(|line| line.is_master());
            if masters().count() != MASTERS || !masters().all(Line::has_slots) {
                return Err(format!("node {index} does not know who is a master: {lines:?}"));
            }
            self.check_state(index)?;
            self.check_replication(index)?;
        }
        Ok(())
    }

    /// A node's view, in which it knows all others and reaches them.
    fn check_terms(&self, index: usize) -> Result<Vec<Line>, String> {
        let lines = self.view(index)?;
        if lines.len() == self.nodes.len() && lines.iter().all(Line::is_well) {
            return Ok(lines);
        }
        Err(format!("node {index} is not on good terms with all: {lines:?}"))
    }

    fn check_state(&self, index: usize) -> Result<(), String> {
        let info = self.nodes[index].cli(&["CLUSTER", "INFO"])?;
        let has = |line: &str| info.lines().any(|found| found == line);
        if has("cluster_state:ok") && has(&format!("cluster_slots_ok:{SLOTS}")) {
            return Ok(());
        }
        Err(format!("node {index} is not at one with the state: {info}"))
    }

    /// A replica has its master's data; a master has its replica.
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
