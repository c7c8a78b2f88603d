//! What is Redis's own, on private single servers: round trips, cancellation, restarts, refusals,
//! the raw keys, expiry to the millisecond, and registration under attack.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test, in what tests share too"
)]

mod by_hand;
#[path = "../histories/mod.rs"]
mod histories;
mod proxy;

mod cancellation;
mod cancelled_load;
mod disk_faults;
mod doctor;
mod encryption;
mod erase;
mod errors;
mod expiry;
mod faults;
mod hostile;
mod isolation;
mod large;
mod orphans;
mod registration;
mod removal;
mod restart;
mod round_trips;
mod runtimes;
mod unreachable;
mod wrong_types;
