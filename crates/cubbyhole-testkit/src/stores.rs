//! Helpers for tests of stores.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "a panic fails the test that calls a helper"
)]

mod conformance;
pub mod full_stack;
pub mod helpers;
pub mod listener;
pub mod load;
pub mod proxy;
pub mod round_trips;
pub mod runtimes;
pub mod tls;
