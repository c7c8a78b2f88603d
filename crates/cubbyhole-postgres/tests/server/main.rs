//! Tests of PostgreSQL-specific behaviour on real servers: isolation, migrations, round trips,
//! cancellation and restarts.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed unwrap fails the test, also in shared helpers"
)]

#[path = "../support/mod.rs"]
mod support;

mod application;
mod sql;

mod batches;
mod cancel_requests;
mod cancellation;
mod cancelled_load;
mod client_certificate;
mod disk_faults;
mod doctor;
mod encryption;
mod errors;
mod faults;
mod hostile;
mod hosts;
mod isolation;
mod migrations;
mod names;
mod plans;
mod pool;
mod pooler;
mod proxy;
mod refresh;
mod restart;
mod roles;
mod round_trips;
mod runtimes;
mod sweep;
mod version_2;
mod view;
