//! Tests on real clusters that change: masters die or hang, slots move, replicas are promoted, and
//! clients disappear in the middle of a call.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic fails the test, also in shared helpers"
)]

mod clusters;
mod helpers;

mod failover;
mod faults;
mod hung;
mod key_distribution;
mod moving;
mod orphans;
mod redirections;
mod registration;
mod removal_during_move;
