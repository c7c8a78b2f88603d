//! Entries of whole scopes: walking them, reading and writing them as JSON Lines.

pub(crate) mod compression;
pub(crate) mod live_puts;
pub(crate) mod record;
pub(crate) mod rerooting;
pub(crate) mod walk;
