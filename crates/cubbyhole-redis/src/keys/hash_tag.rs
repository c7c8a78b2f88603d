//! The hash tag of a namespace, a tenant or the root index, and the names of its keys.

use std::fmt::Write;

use crc::{CRC_16_XMODEM, Crc};
use cubbyhole_core::{Namespace, TenantId};

/// The number of hash slots of a cluster.
pub(crate) const SLOTS: u16 = 16384;

pub(super) const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// A name that holds a tag: all keys of one place are in one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HashTag {
    /// Prefix and tag.
    stem: String,
    slot: u16,
}

impl HashTag {
    /// The member that says that a place is registered.
    pub(crate) const MARKER: &'static str = "\0";

    pub(crate) fn of_namespace(prefix: &str, ns: &Namespace) -> Self {
        Self::tagged(prefix, ns.as_str())
    }

    pub(crate) fn of_tenant(prefix: &str, tenant: &TenantId) -> Self {
        Self::tagged(prefix, tenant.as_rendered())
    }

    /// Of the index of tenants.
    pub(crate) fn root(prefix: &str) -> Self {
        Self::new(prefix, "\\*")
    }

    fn tagged(prefix: &str, name: &str) -> Self {
        if !name.contains(['{', '}']) {
            return Self::new(prefix, name);
        }
        Self::new(prefix, &name.replace('{', "\\(").replace('}', "\\)"))
    }

    pub(super) fn new(prefix: &str, tag: &str) -> Self {
        let mut stem = String::with_capacity(prefix.len() + tag.len() + 2);
        // Writing to a string cannot fail.
        let _ = write!(stem, "{prefix}{{{tag}}}");
        Self { stem, slot: CRC.checksum(tag.as_bytes()) % SLOTS }
    }

    pub(crate) const fn slot(&self) -> u16 {
        self.slot
    }

    pub(crate) fn value(&self, key: &str) -> String {
        let mut name = String::with_capacity(self.stem.len() + 1 + key.len());
        name.push_str(&self.stem);
        name.push('v');
        name.push_str(key);
        name
    }

    pub(crate) fn keys(&self) -> String {
        self.kind('k')
    }

    pub(crate) fn metas(&self) -> String {
        self.kind('m')
    }

    pub(crate) fn expiries(&self) -> String {
        self.kind('x')
    }

    pub(crate) fn fence(&self) -> String {
        self.kind('f')
    }

    pub(crate) fn name_index(&self) -> String {
        self.kind('n')
    }

    pub(crate) fn name_index_fence(&self) -> String {
        self.kind('g')
    }

    fn kind(&self, kind: char) -> String {
        let mut name = String::with_capacity(self.stem.len() + 1);
        name.push_str(&self.stem);
        name.push(kind);
        name
    }
}
