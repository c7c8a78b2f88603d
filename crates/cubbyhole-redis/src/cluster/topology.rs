//! Which server has which slot: one server all of them, or the masters of a cluster.

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

/// After this time without an answer the next one is asked as well, and when all were asked, one
/// that does not answer is no longer waited for if another did.
const HEAD_START: Duration = Duration::from_millis(250);
/// How many servers are asked for a map that differs from the one in doubt.
const OPINIONS: usize = 8;
/// What a server still answers that has lost its last slot, it answers within this time.
const PARTING_TIME: Duration = Duration::from_secs(2);

/// The target of log events, which is public and independent of the module.
const TARGET: &str = "cubbyhole_redis::topology";

/// The map of slots, as far as it is known. Redirections correct it for a slot; it is read anew
/// when a master cannot be reached or is none any more.
pub(crate) struct Topology {
    connector: Arc<Connector>,
    seeds: Vec<Address>,
    cluster: bool,
    map: RwLock<SlotMap>,
    /// How often reading the map has ended, well or not.
    readings: AtomicU64,
    /// Held while the map is read; why that failed last.
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

    /// Every master once.
    pub(crate) fn masters(&self) -> Vec<Arc<Node>> {
        self.read().masters()
    }

    /// A server by its address.
    pub(crate) fn node(&self, address: &Address) -> Arc<Node> {
        if let Some(node) = self.read().known_node(address) {
            return node;
        }
        self.write().node(address, &self.connector)
    }

    /// A redirection told where a slot is.
    pub(crate) fn moved(&self, slot: u16, address: &Address) {
        tracing::debug!(target: TARGET, slot, %address, "a slot has another master");
        self.write().give(slot, address, &self.connector);
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
    async fn ask_around(&self, doubt: Option<(u16, &Address)>) -> Result<SlotRanges> {
        let mut found = Err(Error::unavailable("the Redis Cluster has no node to ask"));
        let mut candidates = self.candidates().into_iter().take(OPINIONS);
        let mut asked = FuturesUnordered::new();
        loop {
            let next = candidates.next();
            let is_last = next.is_none();
            asked.extend(next.map(SlotRanges::of));
            let nobody_told = is_last && found.is_err();
            let patience = if nobody_told { MAP_TIMEOUT } else { HEAD_START };
            let patience = ExecutionContext::new().with_timeout(patience);
            match patience.race(asked.next()).await {
                Ok(Some(Ok(ranges))) => {
                    let is_in_doubt = doubt.is_some_and(|doubt| ranges.gives(doubt));
                    found = Ok(ranges);
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

    fn install(&self, ranges: &SlotRanges) {
        let mut map = self.write();
        let (changed, replaced) = map.install(ranges, &self.connector);
        // Read every few seconds, it is seldom another. The first is no news.
        let is_first = map.generation() == 1;
        drop(map);
        if changed > 0 && !is_first {
            tracing::info!(target: TARGET, slots = changed, "the map of slots is another than before");
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
        self.read().all_nodes().for_each(Node::disconnect);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, SlotMap> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, SlotMap> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}
