//! Tests on private single Redis servers: round trips, cancellation, restarts, server errors, raw
//! keys, exact expiry, and registration under faults.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic fails the test, also in shared helpers"
)]

mod helpers;
mod proxy;

mod cancellation;
mod cancelled_load;
mod delete_prefix;
mod disk_faults;
mod doctor;
mod encryption;
mod erase;
mod errors;
mod expiry;
mod faults;
mod hostile;
mod idle_ttl;
mod isolation;
mod large_reads;
mod orphans;
mod recursive_scan;
mod registration;
mod removal;
mod restart;
mod round_trips;
mod runtimes;
mod unreachable;
mod wrong_types;
