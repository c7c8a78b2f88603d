//! The storage layers between the file and redb. From the file upwards: early fsync or the
//! read-only overlay, the regions, checksums, and the measurement of read latency.

mod checksums;
mod early_sync;
mod latency;
mod locks;
mod overlay;
mod regions;

pub(crate) use checksums::{ChecksummedStorage, UncertainGroups};
pub(crate) use early_sync::EarlySync;
pub(crate) use latency::{ReadLatency, TimedStorage};
pub(crate) use overlay::Overlay;
pub(crate) use regions::{EngineRegion, SharedFile};

use locks::delegate_locks;
