//! Which server has which slot: one server all of them, or the masters of a cluster.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cubbyhole_core::{Error, ExecutionContext, Result};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::Value;

use crate::config::{Address, Config};
use crate::connection::{Connector, Node};
use crate::keys::SLOTS;
use crate::{replies, servers};

/// A server that does not tell its map within this time is passed over.
const MAP_TIMEOUT: Duration = Duration::from_secs(2);
/// After this time without an answer the next one is asked as well, and when all were asked, one
/// that does not answer is no longer waited for if another did.
const HEAD_START: Duration = Duration::from_millis(250);
/// How many servers are asked for a map that differs from the one in doubt.
const OPINIONS: usize = 8;
/// What a server still answers that has lost its last slot, it answers within this time.
const PARTING_TIME: Duration = Duration::from_secs(2);

/// The map of slots, as far as it is known. Redirections correct it for a slot; it is read anew
/// when a master cannot be reached or is none any more.
pub(crate) struct Topology {
    connector: Arc<Connector>,
    seeds: Vec<Address>,
    cluster: bool,
    map: RwLock<Map>,
    /// How often reading the map has ended, well or not.
    readings: AtomicU64,
    /// Held while the map is read; why that failed last.
    reading: tokio::sync::Mutex<Option<Error>>,
}

#[derive(Default)]
struct Map {
    /// How often it was read.
    generation: u64,
    /// By slot.
    masters: Vec<Option<Arc<Node>>>,
    nodes: HashMap<Address, Arc<Node>>,
}

impl Topology {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let connector = Arc::new(Connector::new(config)?);
        let mut map = Map { masters: vec![None; usize::from(SLOTS)], ..Map::default() };
        if !config.cluster
            && let Some(address) = config.addresses.first()
        {
            let node = Arc::new(Node::new(address.clone(), Arc::clone(&connector)));
            map.masters.fill(Some(node));
        }
        Ok(Self {
            connector,
            seeds: config.addresses.clone(),
            cluster: config.cluster,
            map: RwLock::new(map),
            readings: AtomicU64::new(0),
            reading: tokio::sync::Mutex::new(None),
        })
    }

    pub(crate) const fn is_cluster(&self) -> bool {
        self.cluster
    }

    pub(crate) fn generation(&self) -> u64 {
        self.read().generation
    }

    pub(crate) fn master(&self, slot: u16) -> Option<Arc<Node>> {
        self.read().masters.get(usize::from(slot)).cloned().flatten()
    }

    /// Every master once.
    pub(crate) fn masters(&self) -> Vec<Arc<Node>> {
        let mut masters: Vec<Arc<Node>> = Vec::new();
        for node in self.read().masters.iter().flatten() {
            if !masters.iter().any(|known| Arc::ptr_eq(known, node)) {
                masters.push(Arc::clone(node));
            }
        }
        masters
    }

    /// A server by its address.
    pub(crate) fn node(&self, address: &Address) -> Arc<Node> {
        if let Some(node) = self.read().nodes.get(address) {
            return Arc::clone(node);
        }
        self.write().node(address, &self.connector)
    }

    /// A redirection told where a slot is.
    pub(crate) fn moved(&self, slot: u16, address: &Address) {
        tracing::debug!(slot, %address, "a slot has another master");
        let mut map = self.write();
        let node = map.node(address, &self.connector);
        if let Some(master) = map.masters.get_mut(usize::from(slot)) {
            *master = Some(node);
        }
    }

    /// Reads the map anew, unless that was done since it had the generation `seen`. Whoever waits
    /// while another reads takes what comes of it.
    pub(crate) async fn refresh(&self, seen: u64, doubt: Option<(u16, &Address)>) -> Result<()> {
        if !self.cluster {
            return Ok(());
        }
        let readings = self.readings.load(Ordering::Acquire);
        let mut last_failure = self.reading.lock().await;
        if self.generation() != seen {
            return Ok(());
        }
        if self.readings.load(Ordering::Acquire) != readings
            && let Some(error) = last_failure.as_ref()
        {
            return Err(error.clone());
        }
        let found = self.ask_around(doubt).await;
        *last_failure = found.as_ref().err().cloned();
        self.readings.fetch_add(1, Ordering::AcqRel);
        self.install(&found?);
        Ok(())
    }

    /// The map of the first server that tells it, and that does not give the slot in doubt to the
    /// same master as before, for a server that was cut off or is late tells an old one.
    async fn ask_around(&self, doubt: Option<(u16, &Address)>) -> Result<Slots> {
        let mut found = Err(Error::unavailable("the Redis Cluster has no node to ask"));
        let mut candidates = self.candidates().into_iter().take(OPINIONS);
        let mut asked = FuturesUnordered::new();
        loop {
            let next = candidates.next();
            let is_last = next.is_none();
            asked.extend(next.map(slots_in_time));
            let nobody_told = is_last && found.is_err();
            let patience = if nobody_told { MAP_TIMEOUT } else { HEAD_START };
            let patience = ExecutionContext::new().with_timeout(patience);
            match patience.race(asked.next()).await {
                Ok(Some(Ok(slots))) => {
                    let is_in_doubt = doubt.is_some_and(|doubt| gives(&slots, doubt));
                    found = Ok(slots);
                    if !is_in_doubt {
                        return found;
                    }
                }
                Ok(Some(Err(error))) if found.is_err() => found = Err(error),
                Ok(None) | Err(_) if is_last => return found,
                // Another may tell more.
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Whom to ask: the masters in any order, then those that the URL names.
    fn candidates(&self) -> Vec<Arc<Node>> {
        let mut candidates = self.masters();
        fastrand::shuffle(&mut candidates);
        for address in &self.seeds {
            if !candidates.iter().any(|node| node.address == *address) {
                candidates.push(self.node(address));
            }
        }
        candidates
    }

    fn install(&self, slots: &[(u16, u16, Address)]) {
        let mut map = self.write();
        let mut masters = vec![None; usize::from(SLOTS)];
        for (first, last, address) in slots {
            let node = map.node(address, &self.connector);
            for slot in *first..=*last {
                if let Some(master) = masters.get_mut(usize::from(slot)) {
                    *master = Some(Arc::clone(&node));
                }
            }
        }
        let before = std::mem::replace(&mut map.masters, masters);
        map.generation += 1;
        // Read every few seconds, it is seldom another. The first is no news.
        let is_first = map.generation == 1;
        let is_same = |(one, other): (&Option<Arc<Node>>, &Option<Arc<Node>>)| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        let changed = before.iter().zip(&map.masters).filter(|pair| !is_same(*pair)).count();
        map.nodes.retain(|address, _| slots.iter().any(|(_, _, owner)| owner == address));
        let mut replaced: Vec<Arc<Node>> = before.into_iter().flatten().collect();
        replaced.dedup_by(|one, other| Arc::ptr_eq(one, other));
        replaced.retain(|node| !map.nodes.contains_key(&node.address));
        drop(map);
        if changed > 0 && !is_first {
            tracing::info!(slots = changed, "the map of slots is another than before");
        }
        for node in replaced {
            // One that hangs would keep its callers for as long as it does.
            tokio::spawn(async move {
                let slept = ExecutionContext::new().sleep(PARTING_TIME).await;
                debug_assert!(slept.is_ok(), "a context that never ends has ended");
                node.hang_up();
            });
        }
    }

    pub(crate) fn disconnect(&self) {
        let map = self.read();
        for node in map.nodes.values().chain(map.masters.iter().flatten()) {
            node.disconnect();
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Map> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    fn node(&mut self, address: &Address, connector: &Arc<Connector>) -> Arc<Node> {
        let node = self.nodes.entry(address.clone());
        Arc::clone(
            node.or_insert_with(|| Arc::new(Node::new(address.clone(), Arc::clone(connector)))),
        )
    }
}

/// What a node of a cluster knows of the whole.
pub(crate) struct Health {
    state: String,
    assigned: u64,
    /// Slots of this node that are being moved, as it shows them.
    pub(crate) moving: String,
}

impl Health {
    pub(crate) fn trouble(&self) -> Option<String> {
        if self.state != "ok" {
            return Some(format!("`cluster_state` is `{}`: calls fail", self.state));
        }
        let missing = u64::from(SLOTS).saturating_sub(self.assigned);
        (missing > 0).then(|| format!("{missing} slots have no master: calls on them fail"))
    }
}

pub(crate) async fn health(node: &Node) -> Result<Health> {
    let mut command = redis::cmd("CLUSTER");
    let info = servers::ask(node, command.arg("INFO")).await.and_then(replies::text)?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
    let mut command = redis::cmd("CLUSTER");
    let nodes = servers::ask(node, command.arg("NODES")).await.and_then(replies::text)?;
    let own = nodes.lines().find(|line| line.contains("myself")).unwrap_or("");
    let moving: Vec<&str> = own.split(' ').filter(|word| word.starts_with('[')).collect();
    Ok(Health {
        state: field("cluster_state:").to_owned(),
        assigned: field("cluster_slots_assigned:").parse().unwrap_or(0),
        moving: moving.join(" "),
    })
}

/// Whether a map gives a slot to a master.
fn gives(slots: &[(u16, u16, Address)], (slot, master): (u16, &Address)) -> bool {
    let owner = slots.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
    owner.is_none_or(|(_, _, owner)| owner == master)
}

/// Slots as a node knows them: first, last, master.
type Slots = Vec<(u16, u16, Address)>;

async fn slots_in_time(node: Arc<Node>) -> Result<Slots> {
    let limit = ExecutionContext::new().with_timeout(MAP_TIMEOUT);
    let silent = |_| Error::unavailable(format!("the node {} does not answer", node.address));
    limit.race(slots_of(&node)).await.map_err(silent)?
}

async fn slots_of(node: &Node) -> Result<Slots> {
    let answer = servers::ask(node, redis::cmd("CLUSTER").arg("SLOTS")).await?;
    let slots = slot_ranges(&answer, &node.address);
    slots.filter(|slots| !slots.is_empty()).ok_or_else(|| {
        Error::unavailable(format!("the node {} knows no master of any slot", node.address))
    })
}

fn slot_ranges(answer: &Value, asked: &Address) -> Option<Slots> {
    let Value::Array(ranges) = answer else {
        return None;
    };
    ranges.iter().map(|range| slot_range(range, asked)).collect()
}

fn slot_range(range: &Value, asked: &Address) -> Option<(u16, u16, Address)> {
    let Value::Array(parts) = range else {
        return None;
    };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice() else {
        return None;
    };
    let host = match master.first()? {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        // The node does not know its own name.
        _ => "",
    };
    let host = if host.is_empty() || host == "?" { &asked.host } else { host };
    let Value::Int(port) = master.get(1)? else {
        return None;
    };
    let address = Address { host: host.to_owned(), port: u16::try_from(*port).ok()? };
    Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, address))
}
