//! The suite on `Encrypted`, with the data keys in the same store and apart.

use std::sync::Arc;

use cubbyhole_conformance::Capabilities;
use cubbyhole_core::limits::DEFAULT_MAX_VALUE_BYTES;
use cubbyhole_core::{Bytes, EntryStore, ManualClock};
use cubbyhole_layers::{Encrypted, KeyRing, KeyStore};
use cubbyhole_memory::InMemoryStore;

use crate::layer::{Inner, Layer};

/// The bytes that encryption adds to a value.
const OVERHEAD: usize = 54;

pub(crate) struct KeysInStore;

pub(crate) struct KeysApart;

impl Layer for KeysInStore {
    fn around(inner: Inner, clock: &ManualClock) -> Arc<dyn EntryStore<Bytes>> {
        Arc::new(encrypted(inner, clock))
    }

    fn capabilities(inner: Capabilities) -> Capabilities {
        stored_sizes(inner)
    }
}

impl Layer for KeysApart {
    fn around(inner: Inner, clock: &ManualClock) -> Arc<dyn EntryStore<Bytes>> {
        let keys = KeyStore::apart(Arc::new(InMemoryStore::new()));
        Arc::new(encrypted(inner, clock).with_key_store(keys))
    }

    fn capabilities(inner: Capabilities) -> Capabilities {
        stored_sizes(inner)
    }
}

fn encrypted(inner: Inner, clock: &ManualClock) -> Encrypted<Inner> {
    let ring = KeyRing::generate().unwrap_or_else(|error| unreachable!("{error}"));
    Encrypted::new(inner, Arc::new(ring)).with_clock(clock.clone())
}

fn stored_sizes(inner: Capabilities) -> Capabilities {
    inner.with_max_value_bytes(DEFAULT_MAX_VALUE_BYTES - OVERHEAD).with_stored_sizes()
}
