//! Tests the subprocess that fills a store and prints its memory use.

use std::process::Command;

#[test]
fn filled_store_uses_memory_of_its_entries() {
    let arguments = ["fill-memory", "HashMap behind a lock", "10000", "4096"];
    let output = Command::new(env!("CARGO_BIN_EXE_cubbyhole-bench")).args(arguments).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    let bytes: usize = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!((41_000_000..60_000_000).contains(&bytes), "{bytes}");
}
