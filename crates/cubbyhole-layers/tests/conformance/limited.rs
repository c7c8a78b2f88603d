//! `Limited`, with limits that no case reaches.

use std::sync::Arc;

use cubbyhole_core::limits::DEFAULT_MAX_VALUE_BYTES;
use cubbyhole_core::{Bytes, EntryStore, ManualClock};
use cubbyhole_layers::{Limited, Limits};

use crate::layer::{Inner, Layer};

pub(crate) struct LargeLimits;

impl Layer for LargeLimits {
    #[expect(clippy::unwrap_used, reason = "a failed unwrap fails the suite")]
    fn around(inner: Inner, clock: &ManualClock) -> Arc<dyn EntryStore<Bytes>> {
        let limits = Limits::new()
            .with_value_bytes(DEFAULT_MAX_VALUE_BYTES)
            .with_rate(u32::MAX, None)
            .with_concurrency(1_000_000);
        Arc::new(Limited::with_clock(inner, limits, clock.clone()).unwrap())
    }
}
