//! The hash tag of a namespace, of a tenant or of the index of tenants.

use std::fmt::Write;

use crc::{CRC_16_XMODEM, Crc};
use cubbyhole_core::{Namespace, TenantId};

/// The number of hash slots of a cluster.
pub(crate) const SLOTS: u16 = 16384;

pub(super) const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// The prefix and hash tag of keys that share a slot; builds the names of these keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HashTag {
    /// The prefix and the tag in braces.
    stem: String,
    slot: u16,
}

impl HashTag {
    /// The sorted-set member that marks a namespace or a tenant as registered.
    pub(crate) const MARKER: &'static str = "\0";

    pub(crate) fn of_namespace(prefix: &str, ns: &Namespace) -> Self {
        Self::tagged(prefix, ns.as_str())
    }

    pub(crate) fn of_tenant(prefix: &str, tenant: &TenantId) -> Self {
        Self::tagged(prefix, tenant.as_rendered())
    }

    /// The hash tag of the index of tenants.
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

    /// The name of the string that contains the value of an entry.
    pub(crate) fn value(&self, key: &str) -> String {
        let mut name = String::with_capacity(self.stem.len() + 1 + key.len());
        name.push_str(&self.stem);
        name.push('v');
        name.push_str(key);
        name
    }

    /// The name of the sorted set of keys.
    pub(crate) fn keys(&self) -> String {
        self.kind('k')
    }

    /// The name of the hash of metadata.
    pub(crate) fn metas(&self) -> String {
        self.kind('m')
    }

    /// The name of the sorted set of expiries.
    pub(crate) fn expiries(&self) -> String {
        self.kind('x')
    }

    /// The name of the fence of a namespace.
    pub(crate) fn fence(&self) -> String {
        self.kind('f')
    }

    /// The name of the index of a tenant's namespaces, or of tenants.
    pub(crate) fn name_index(&self) -> String {
        self.kind('n')
    }

    /// The name of the fence of a tenant.
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
