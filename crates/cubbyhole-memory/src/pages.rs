//! Pages of entries: of one namespace, and of all namespaces under a prefix.

use cubbyhole_core::limits::MAX_PAGE_BYTES;
use cubbyhole_core::{
    Namespace, NamespacePrefix, Page, Position, RecursiveScanOptions, Result, ScanItem,
    ScanOptions, Timestamp,
};

use crate::operations::{Operations, prefetch};
use crate::space::{Slot, Space};

/// The number of namespaces that a recursive scan looks up in the directory at a time.
const NAMESPACES_AT_A_TIME: usize = 64;

/// The room that is left in a page.
struct Room {
    items: usize,
    bytes: usize,
    is_empty: bool,
}

impl Room {
    fn new(limit: usize) -> Self {
        Self { items: limit, bytes: MAX_PAGE_BYTES, is_empty: true }
    }

    /// Collects the slots of a namespace that may fit, and one more.
    fn wanted<'a, V>(
        &self,
        space: &Space<V>,
        slots: impl Iterator<Item = &'a Slot<V>>,
    ) -> Vec<&'a Slot<V>> {
        let limit = self.items + 1;
        let mut wanted = Vec::with_capacity(limit.min(space.len()));
        wanted.extend(slots.take(limit));
        wanted
    }

    /// Takes the room of one item. Returns false if it does not fit. The first item always fits.
    fn take(&mut self, bytes: usize) -> bool {
        if self.items == 0 || (!self.is_empty && bytes > self.bytes) {
            return false;
        }
        self.items -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.is_empty = false;
        true
    }
}

impl<V: Clone + Send + Sync + 'static> Operations<V> {
    pub(crate) fn scan_page(
        &self,
        ns: &Namespace,
        options: &ScanOptions,
    ) -> Result<Page<ScanItem<V>, String>> {
        options.check()?;
        let (page, is_due) = self.shards.read(ns, |space| {
            let now = self.now();
            let page = match space {
                Some(space) => self.page(space, options, now),
                None => Page { items: Vec::new(), next: None },
            };
            let is_due = options.is_refreshing()
                && page.items.iter().any(|item| item.meta.refreshed(now).is_some());
            (page, is_due)
        })?;
        if !is_due {
            return Ok(page);
        }
        self.shards.change(ns, |space| {
            let now = self.now();
            let mut page = self.page(space, options, now);
            for item in &mut page.items {
                if let Some(refreshed) = item.meta.refreshed(now) {
                    space.extend(&item.key, refreshed);
                    item.meta.expires_at = Some(refreshed);
                }
            }
            page
        })
    }

    fn page(
        &self,
        space: &Space<V>,
        options: &ScanOptions,
        now: Timestamp,
    ) -> Page<ScanItem<V>, String> {
        let prefix = options.prefix().unwrap_or("");
        let mut room = Room::new(options.limit());
        let is_live = |slot: &&Slot<V>| slot.is_live(now);
        let slots = if options.is_reversed() {
            room.wanted(space, space.slots_descending(prefix, options.after()).filter(is_live))
        } else {
            room.wanted(space, space.slots(prefix, options.after()).filter(is_live))
        };
        let mut items = Vec::with_capacity(slots.len().min(options.limit()));
        let is_full = self.fill(&mut room, slots, options.values(), |item| items.push(item));
        let next = items.last().filter(|_| is_full).map(|item| item.key.clone());
        Page { items, next }
    }

    pub(crate) fn scan_recursive_page(
        &self,
        prefix: &NamespacePrefix,
        options: &RecursiveScanOptions,
    ) -> Result<Page<(Namespace, ScanItem<V>), Position>> {
        options.check(prefix)?;
        let mut room = Room::new(options.limit());
        let mut items: Vec<(Namespace, ScanItem<V>)> = Vec::new();
        let mut is_full = false;
        // The first namespace is the one of the cursor, from its key on.
        let mut resumed = options.after();
        let mut last = None;
        while !is_full {
            let names = match resumed {
                Some(position) => vec![position.namespace.clone()],
                None => self.namespaces(prefix, last.as_ref(), NAMESPACES_AT_A_TIME)?,
            };
            let Some(end) = names.last() else { break };
            last = Some(end.clone());
            let after = resumed.take().map(|position| position.key.as_str());
            for ns in names {
                is_full = self.shards.read(&ns, |space| {
                    let Some(space) = space else { return false };
                    let now = self.now();
                    let slots = space.slots("", after).filter(|slot| slot.is_live(now));
                    let slots = room.wanted(space, slots);
                    self.fill(&mut room, slots, options.values(), |item| {
                        items.push((ns.clone(), item));
                    })
                })?;
                if is_full {
                    break;
                }
            }
        }
        let next = items.last().filter(|_| is_full);
        let next = next.map(|(ns, item)| Position { namespace: ns.clone(), key: item.key.clone() });
        Ok(Page { items, next })
    }

    /// Adds slots to a page while there is room. Returns true if a slot was left.
    fn fill(
        &self,
        room: &mut Room,
        slots: Vec<&Slot<V>>,
        values: bool,
        mut add: impl FnMut(ScanItem<V>),
    ) -> bool {
        if values {
            slots.iter().for_each(|slot| prefetch(slot.value()));
        }
        for slot in slots {
            let size = self.value_bytes(slot.value());
            let value_bytes = size.filter(|_| values).unwrap_or(0);
            if !room.take(slot.key().len().saturating_add(value_bytes)) {
                return true;
            }
            add(ScanItem {
                key: slot.key().to_owned(),
                meta: slot.meta(),
                value_bytes: size.map(|size| size as u64),
                value: values.then(|| Ok(slot.value().clone())),
            });
        }
        false
    }
}
