//! The process that fills a store and says how much memory that took.

use std::process::Command;

#[test]
fn what_is_filled_takes_memory() {
    let arguments = ["fill-memory", "HashMap behind a lock", "10000", "4096"];
    let output = Command::new(env!("CARGO_BIN_EXE_cubbyhole-bench")).args(arguments).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    let bytes: usize = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!((41_000_000..60_000_000).contains(&bytes), "{bytes}");
}
