//! `Encrypted` over memory.
#![cfg(feature = "encryption")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;
mod damage;
mod faults;
mod interleaved;
mod key_file;
mod rotation;
mod secrets;
mod shred;
mod tenants;
