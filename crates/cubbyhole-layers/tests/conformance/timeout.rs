//! `Timeout` with a timeout for every class.

#![expect(clippy::unwrap_used, reason = "a panic fails the suite")]

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{Bytes, EntryStore, ManualClock};
use cubbyhole_layers::{Timeout, Timeouts};

use crate::layer::{Inner, Layer};

pub(crate) struct EveryClass;

impl Layer for EveryClass {
    fn around(inner: Inner, _: &ManualClock) -> Arc<dyn EntryStore<Bytes>> {
        let hour = Duration::from_secs(3_600);
        let timeouts = Timeouts::new().with_read(hour).with_write(hour).with_walk(hour);
        Arc::new(Timeout::new(inner, timeouts).unwrap())
    }
}
