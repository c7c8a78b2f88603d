//! Load drivers: concurrent calls whose outcomes are compared with the contents of the store.
//!
//! - [`cancelled`]: calls that end by themselves, by cancellation, at a deadline, or by being dropped
//! - [`writers`]: writers that continue while a test stops and restarts the server
//! - [`histories`]: histories of the conformance suite on a store whose servers a test disturbs

pub mod cancelled;
pub mod histories;
pub mod writers;
