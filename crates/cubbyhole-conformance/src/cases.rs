//! The cases, by topic.

use crate::Sample;
use crate::case::Case;

/// Declares the topics and gathers their cases, so that no topic can be forgotten.
macro_rules! topics {
    ($($topic:ident)*) => {
        $(mod $topic;)*

        /// Every case, in order.
        pub(crate) fn all<V: Sample>() -> Vec<Case<V>> {
            let mut all = Vec::new();
            $(all.extend($topic::cases());)*
            all.extend(crate::model::cases());
            all.extend(crate::history::cases());
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
    batches
    scan
    namespaces
    tenants
    touch
    sliding
    take
    erase
    usage
    sweep
    sweep_races
    concurrency
    update
    pointers
    errors
    limits
    ttl_limit
    context
    closed
    scheduling
    no_runtime
}
