//! Any bytes as a line of an import: what is taken is what an export writes.
#![no_main]

// The tool is no library: its own file, as it stands.
#[path = "../../crates/cubbyhole-cli/src/entries/record.rs"]
#[expect(dead_code, reason = "what only listings use")]
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
