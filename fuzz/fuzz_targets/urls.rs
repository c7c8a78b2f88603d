//! Any text as the URL of a store: a configuration or an invalid argument, and no message contains the
//! password of the URL.
#![no_main]

use cubbyhole::{Error, ErrorKind, embedded, postgres, redis};
use libfuzzer_sys::fuzz_target;

/// Long enough that no message contains it by chance.
const PASSWORD: &str = "s3cret-Pa55";

fn check<T: std::fmt::Debug>(result: Result<T, Error>) {
    let shown = match &result {
        Ok(config) => format!("{config:?}"),
        Err(error) => {
            assert!([ErrorKind::InvalidArgument, ErrorKind::Unsupported].contains(&error.kind()));
            format!("{error} {error:?}")
        }
    };
    assert!(!shown.contains(PASSWORD), "{shown}");
}

fuzz_target!(|text: &str| {
    drop(embedded::Config::from_url_path(text));
    if text.contains(PASSWORD) {
        return;
    }
    drop(postgres::Config::from_url(text));
    drop(redis::Config::from_url(text));
    for scheme in ["postgres", "redis", "redis+cluster"] {
        let url = format!("{scheme}://app:{PASSWORD}@{text}");
        check(postgres::Config::from_url(&url));
        check(redis::Config::from_url(&url));
    }
});
