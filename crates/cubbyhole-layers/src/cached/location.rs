//! The keys of the cache: a namespace and a key, with their hash.

use std::borrow::Borrow;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use cubbyhole_core::Namespace;

/// Where an entry is stored, borrowed from the caller. The hash is computed once for the stripe and
/// for the lookup.
#[derive(Clone, Copy)]
pub(super) struct Location<'a> {
    pub(super) hash: u64,
    pub(super) ns: &'a Namespace,
    pub(super) key: &'a str,
}

impl Location<'_> {
    pub(super) fn to_owned(self) -> OwnedLocation {
        OwnedLocation { hash: self.hash, ns: self.ns.clone(), key: self.key.into() }
    }

    /// The bytes of both names.
    pub(super) fn name_bytes(&self) -> usize {
        self.ns.as_str().len() + self.key.len()
    }
}

/// Where an entry is stored: the key type of the cache.
pub(super) struct OwnedLocation {
    hash: u64,
    ns: Namespace,
    key: Box<str>,
}

impl OwnedLocation {
    fn borrowed(&self) -> Location<'_> {
        Location { hash: self.hash, ns: &self.ns, key: &self.key }
    }

    pub(super) fn name_bytes(&self) -> usize {
        self.borrowed().name_bytes()
    }
}

/// A common form of both types: a lookup then allocates no [`OwnedLocation`].
pub(super) trait AsLocation {
    fn location(&self) -> Location<'_>;
}

impl AsLocation for Location<'_> {
    fn location(&self) -> Location<'_> {
        *self
    }
}

impl AsLocation for OwnedLocation {
    fn location(&self) -> Location<'_> {
        self.borrowed()
    }
}

impl<'a> Borrow<dyn AsLocation + 'a> for OwnedLocation {
    fn borrow(&self) -> &(dyn AsLocation + 'a) {
        self
    }
}

impl Hash for dyn AsLocation + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.location().hash);
    }
}

impl PartialEq for dyn AsLocation + '_ {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.location(), other.location());
        a.hash == b.hash && a.key == b.key && a.ns == b.ns
    }
}

impl Eq for dyn AsLocation + '_ {}

impl Hash for OwnedLocation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialEq for OwnedLocation {
    fn eq(&self, other: &Self) -> bool {
        let (a, b): (&dyn AsLocation, &dyn AsLocation) = (self, other);
        a == b
    }
}

impl Eq for OwnedLocation {}

/// Passes on the hash that a location already has.
#[derive(Default)]
pub(super) struct StoredHash(u64);

pub(super) type BuildStoredHash = BuildHasherDefault<StoredHash>;

impl Hasher for StoredHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        // No location gets here. A poor hash would cost time only.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}
