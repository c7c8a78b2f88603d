//! The slot map: the master of each slot.

use std::collections::HashMap;
use std::sync::Arc;

use super::connector::Connector;
use super::node::Node;
use super::slot_ranges::SlotRanges;
use crate::config::Address;
use crate::keys::SLOTS;

/// The master of each slot, as far as known, and every known server.
pub(super) struct SlotMap {
    /// The number of times that the map was read.
    generation: u64,
    /// The masters by slot.
    masters: Vec<Option<Arc<Node>>>,
    nodes: HashMap<Address, Arc<Node>>,
}

impl Default for SlotMap {
    fn default() -> Self {
        let masters = vec![None; usize::from(SLOTS)];
        Self { generation: 0, masters, nodes: HashMap::new() }
    }
}

impl SlotMap {
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn master(&self, slot: u16) -> Option<Arc<Node>> {
        self.masters.get(usize::from(slot)).cloned().flatten()
    }

    /// Returns every master once.
    pub(super) fn masters(&self) -> Vec<Arc<Node>> {
        let mut masters: Vec<Arc<Node>> = Vec::new();
        for node in self.masters.iter().flatten() {
            if !masters.iter().any(|known| Arc::ptr_eq(known, node)) {
                masters.push(Arc::clone(node));
            }
        }
        masters
    }

    /// Returns every known server, and some of them several times.
    pub(super) fn all_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().chain(self.masters.iter().flatten()).map(Arc::as_ref)
    }

    pub(super) fn known_node(&self, address: &Address) -> Option<Arc<Node>> {
        self.nodes.get(address).cloned()
    }

    pub(super) fn node(&mut self, address: &Address, connector: &Arc<Connector>) -> Arc<Node> {
        let node = self.nodes.entry(address.clone());
        Arc::clone(
            node.or_insert_with(|| Arc::new(Node::new(address.clone(), Arc::clone(connector)))),
        )
    }

    pub(super) fn give_all_to(&mut self, node: Arc<Node>) {
        self.masters.fill(Some(node));
    }

    pub(super) fn give(&mut self, slot: u16, address: &Address, connector: &Arc<Connector>) {
        let node = self.node(address, connector);
        if let Some(master) = self.masters.get_mut(usize::from(slot)) {
            *master = Some(node);
        }
    }

    /// Replaces the masters by those in `ranges`. Returns the number of slots whose master changed,
    /// and the former masters that own no slot any more.
    pub(super) fn install(
        &mut self,
        ranges: &SlotRanges,
        connector: &Arc<Connector>,
    ) -> (usize, Vec<Arc<Node>>) {
        let mut masters = vec![None; usize::from(SLOTS)];
        for range in ranges.iter() {
            let node = self.node(&range.master, connector);
            for slot in range.first..=range.last {
                if let Some(master) = masters.get_mut(usize::from(slot)) {
                    *master = Some(Arc::clone(&node));
                }
            }
        }
        let before = std::mem::replace(&mut self.masters, masters);
        self.generation += 1;
        let is_same = |(one, other): (&Option<Arc<Node>>, &Option<Arc<Node>>)| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        let changed = before.iter().zip(&self.masters).filter(|pair| !is_same(*pair)).count();
        self.nodes.retain(|address, _| ranges.iter().any(|range| range.master == *address));
        let mut replaced: Vec<Arc<Node>> = before.into_iter().flatten().collect();
        replaced.dedup_by(|one, other| Arc::ptr_eq(one, other));
        replaced.retain(|node| !self.nodes.contains_key(&node.address));
        (changed, replaced)
    }
}
