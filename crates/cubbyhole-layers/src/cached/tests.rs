//! Tests that look into the cache: its memory, and the cost of a hit.

mod memory;
mod speed;
