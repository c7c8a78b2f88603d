//! Any bytes as a line of an import: an export writes an accepted line identically.
#![no_main]

// The tool has no library, so the target includes its source file.
#[path = "../../crates/cubbyhole-cli/src/entries/record.rs"]
#[expect(dead_code, reason = "only listings use the rest")]
mod record;

use libfuzzer_sys::fuzz_target;
use record::{EntryLine, Record};

fuzz_target!(|line: &[u8]| {
    let Ok(Some(record)) = Record::parse(line) else { return };
    let written = EntryLine::new(&record.namespace, &record.key)
        .with_value(&record.value)
        .with_expiry(record.expires_at);
    let written = serde_json::to_string(&written).unwrap();
    assert!(!written.contains(['\n', '\r']));
    assert_eq!(Record::parse(written.as_bytes()).unwrap().unwrap(), record);
});
