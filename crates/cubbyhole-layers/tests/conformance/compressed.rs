//! `Compressed`.

use std::sync::Arc;

use cubbyhole_conformance::Capabilities;
use cubbyhole_core::limits::DEFAULT_MAX_VALUE_BYTES;
use cubbyhole_core::{Bytes, EntryStore, ManualClock};

use crate::layer::{Inner, Layer};

pub(crate) struct Compressed;

impl Layer for Compressed {
    fn around(inner: Inner, _: &ManualClock) -> Arc<dyn EntryStore<Bytes>> {
        Arc::new(cubbyhole_layers::Compressed::new(inner))
    }

    fn capabilities(inner: Capabilities) -> Capabilities {
        inner.with_max_value_bytes(DEFAULT_MAX_VALUE_BYTES - 1).with_stored_sizes()
    }
}
