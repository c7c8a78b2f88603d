//! Any text as an argument of the tool (duration, size, name, version) and as an instant.
#![no_main]

// The tool has no library, so the target includes its source file.
#[path = "../../crates/cubbyhole-cli/src/args/parse.rs"]
mod arguments;

use cubbyhole::{ExecutionContext, Expiry, Timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(duration) = arguments::parse_duration(text) {
        let shown = arguments::format_duration(duration);
        assert_eq!(arguments::parse_duration(&shown), Ok(duration));
        drop(ExecutionContext::new().with_timeout(duration));
        drop(Expiry::After(duration).check());
    }
    if let Ok(bytes) = arguments::parse_bytes(text) {
        assert_ne!(bytes, 0);
    }
    drop(arguments::parse_namespace(text));
    drop(arguments::parse_prefix(text));
    drop(arguments::parse_key(text));
    drop(arguments::parse_version(text));
    if let Ok(instant) = text.parse::<Timestamp>() {
        assert_eq!(instant.to_string().parse::<Timestamp>().unwrap(), instant);
    }
});
