//! Load drivers: concurrent calls whose outcomes are compared with the contents of the store.
//!
//! - [`cancelled`]: calls that complete, are cancelled, reach a deadline, or are dropped
//! - [`writers`]: writers that continue while a test stops and restarts the server
//! - [`histories`]: histories of the conformance suite on a store whose servers a test disturbs

pub mod cancelled;
pub mod histories;
pub mod writers;
