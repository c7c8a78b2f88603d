//! The store on real clusters that change under it: masters die or hang, slots move, replicas take
//! over, clients go away in the middle.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test, in what tests share too"
)]

mod clusters;
#[path = "../histories/mod.rs"]
mod histories;
mod shared;

mod failover;
mod faults;
mod half_moved;
mod hung;
mod moving;
mod orphans;
mod redirections;
mod registration;
mod spread;
