//! The cases: one file for each topic.

use crate::Sample;
use crate::case::Case;

/// Declares the modules of the topics, and collects their cases.
macro_rules! topics {
    ($($topic:ident)*) => {
        $(mod $topic;)*

        /// Returns all cases, in order.
        pub(crate) fn all<V: Sample>() -> Vec<Case<V>> {
            let mut all = Vec::new();
            $(all.extend($topic::cases());)*
            all
        }
    };
}

topics! {
    basics
    values
    names
    isolation
    listing
    ttl
    expiry
    entries
    versions
    conditions
    get_many
    if_present
    stat
    batches
    scan
    reverse
    recursive
    namespaces
    tenants
    touch
    leases
    sliding
    idle
    refresh
    take
    delete_prefix
    erase
    usage
    sweep
    sweep_races
    concurrency
    update
    sequences
    pointers
    errors
    limits
    ttl_limit
    context
    closed
    scheduling
    no_runtime
    model
    history
}
