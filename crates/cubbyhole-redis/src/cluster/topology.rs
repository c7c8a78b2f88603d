//! The topology: which server owns which slot.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cubbyhole_core::{Error, ExecutionContext, Result};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::connector::Connector;
use super::node::Node;
use super::slot_map::SlotMap;
use super::slot_ranges::{MAP_TIMEOUT, SlotRanges};
use crate::config::{Address, Config};

/// The time without a reply after which the next node is asked as well. After the last node, it is
/// the time to wait for further replies if one has arrived.
const HEDGE_DELAY: Duration = Duration::from_millis(250);
/// The number of nodes that are asked for a map that differs from the one in doubt.
const MAX_NODES_ASKED: usize = 8;
/// The time for which a server that lost its last slot can finish requests in flight.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// The target of log events. It is documented, so it does not follow the module path.
const TARGET: &str = "cubbyhole_redis::topology";

/// The servers and the slot map. A single server owns all slots.
///
/// In a cluster, a redirection corrects the map for one slot. The whole map is re-read if a master
/// cannot be reached or has been demoted.
pub(crate) struct Topology {
    connector: Arc<Connector>,
    seeds: Vec<Address>,
    cluster: bool,
    map: RwLock<SlotMap>,
    /// The number of attempts to read the map that have ended.
    readings: AtomicU64,
    /// Locked while the map is read; contains the last failure.
    reading: tokio::sync::Mutex<Option<Error>>,
}

impl Topology {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let connector = Arc::new(Connector::new(config)?);
        let mut map = SlotMap::default();
        if !config.cluster
            && let Some(address) = config.addresses.first()
        {
            let node = Arc::new(Node::new(address.clone(), Arc::clone(&connector)));
            map.give_all_to(node);
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
        self.read().generation()
    }

    pub(crate) fn master(&self, slot: u16) -> Option<Arc<Node>> {
        self.read().master(slot)
    }

    /// Returns every master once.
    pub(crate) fn masters(&self) -> Vec<Arc<Node>> {
        self.read().masters()
    }

    /// Returns the server with this address.
    pub(crate) fn node(&self, address: &Address) -> Arc<Node> {
        if let Some(node) = self.read().known_node(address) {
            return node;
        }
        self.write().node(address, &self.connector)
    }

    /// Corrects the master of a slot after a redirection.
    pub(crate) fn set_master(&self, slot: u16, address: &Address) {
        tracing::debug!(target: TARGET, slot, %address, "redirected: the slot has a new master");
        self.write().give(slot, address, &self.connector);
    }

    /// Re-reads the map, unless its generation has changed since `seen`. Callers that wait while
    /// another caller reads the map share the result. `doubt` is a slot and the master that failed
    /// for it.
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
        let found = self.fetch_ranges(doubt).await;
        *last_failure = found.as_ref().err().cloned();
        self.readings.fetch_add(1, Ordering::AcqRel);
        self.install(&found?);
        Ok(())
    }

    /// Returns the first map that does not assign the slot in doubt to the same master as before,
    /// or else the last map received. A node that was partitioned or lags behind returns an old
    /// map.
    async fn fetch_ranges(&self, doubt: Option<(u16, &Address)>) -> Result<SlotRanges> {
        let mut found = Err(Error::unavailable("the Redis Cluster has no known node"));
        let mut candidates = self.candidates().into_iter().take(MAX_NODES_ASKED);
        let mut asked = FuturesUnordered::new();
        loop {
            let next = candidates.next();
            let is_last = next.is_none();
            asked.extend(next.map(SlotRanges::of));
            let has_no_map = is_last && found.is_err();
            let timeout = if has_no_map { MAP_TIMEOUT } else { HEDGE_DELAY };
            let timeout = ExecutionContext::new().with_timeout(timeout);
            match timeout.race(asked.next()).await {
                Ok(Some(Ok(ranges))) => {
                    let is_in_doubt = doubt.is_some_and(|doubt| ranges.assigns(doubt));
                    found = Ok(ranges);
                    if !is_in_doubt {
                        return found;
                    }
                }
                Ok(Some(Err(error))) if found.is_err() => found = Err(error),
                Ok(None) | Err(_) if is_last => return found,
                // Another node may have a newer map.
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Returns the nodes to ask: the masters in random order, then the nodes in the URL.
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

    fn install(&self, ranges: &SlotRanges) {
        let mut map = self.write();
        let (changed, replaced) = map.install(ranges, &self.connector);
        // The map is re-read every few seconds. Only changes are logged, and not the first map.
        let is_first = map.generation() == 1;
        drop(map);
        if changed > 0 && !is_first {
            tracing::info!(target: TARGET, slots = changed, "the slot map has changed");
        }
        for node in replaced {
            // Frees callers that wait for a hung server.
            tokio::spawn(async move {
                let slept = ExecutionContext::new().sleep(DRAIN_TIME).await;
                debug_assert!(slept.is_ok(), "a context without a deadline ended");
                node.abort_connections();
            });
        }
    }

    pub(crate) fn release_connections(&self) {
        self.read().all_nodes().for_each(Node::release_connections);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, SlotMap> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, SlotMap> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}
