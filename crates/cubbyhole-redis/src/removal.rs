//! Removals: sweeps of expired entries, erasure of prefixes, and deletion of keys with a prefix.
//! Sweeps and erasures also remove the names of namespaces and tenants that are empty.

mod erasure;
mod failures;
mod prefix_deletion;
mod run;
mod sweep;

pub(crate) use erasure::Erasure;
pub(crate) use prefix_deletion::PrefixDeletion;
pub(crate) use sweep::Sweep;
