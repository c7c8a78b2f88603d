//! The layers of storage between the file and the engine, from the file upwards: early fsync or a
//! read-only overlay, the regions, checksums, latency.

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
