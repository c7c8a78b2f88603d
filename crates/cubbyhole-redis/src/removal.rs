//! Removals: sweeps of expired entries and erasure of prefixes. Both also remove the names of
//! namespaces and tenants that are empty.

mod erasure;
mod failures;
mod run;
mod sweep;

pub(crate) use erasure::Erasure;
pub(crate) use sweep::Sweep;
