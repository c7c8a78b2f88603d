//! Calls of a scoped store with hostile names: none may leave the scope.
#![no_main]

// The tests of the layer use the same file with random input.
#[path = "../../crates/cubbyhole-layers/tests/scoped/attack.rs"]
mod attack;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

fuzz_target!(|data: &[u8]| {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Builder::new_current_thread().build().unwrap());
    runtime.block_on(attack::run(data));
});
