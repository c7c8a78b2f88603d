//! Any bytes as a line of an import: an export writes an accepted line identically.
#![no_main]

// The tool has no library, so the target includes its source files.
#[path = "../../crates/cubbyhole-cli/src/args/parse.rs"]
#[expect(dead_code, reason = "a line only has durations")]
mod parse;
#[path = "../../crates/cubbyhole-cli/src/entries/record.rs"]
#[expect(dead_code, reason = "only listings use the rest")]
mod record;
#[path = "../../crates/cubbyhole-cli/src/output/units.rs"]
#[expect(dead_code, reason = "only listings use the rest")]
mod units;

/// The paths of these files in the tool.
mod args {
    pub(crate) use crate::parse;
}
mod output {
    pub(crate) use crate::units::exact_duration;
}

use libfuzzer_sys::fuzz_target;
use record::{EntryLine, Record};

fuzz_target!(|line: &[u8]| {
    let Ok(Some(record)) = Record::parse(line) else { return };
    let written = EntryLine::new(&record.namespace, &record.key)
        .with_value(&record.value)
        .with_expiry(record.expiry);
    let written = serde_json::to_string(&written).unwrap();
    assert!(!written.contains(['\n', '\r']));
    assert_eq!(Record::parse(written.as_bytes()).unwrap().unwrap(), record);
});
