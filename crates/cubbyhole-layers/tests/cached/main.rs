//! `Cached`: races of reads and writes, expiry, staleness, and when it serves nothing.
#![cfg(feature = "cache")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod probe;
mod races;
mod serving;
mod time;
