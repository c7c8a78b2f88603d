//! Parsing of the option values in a URL.

use std::time::Duration;

use cubbyhole_core::{Error, Result};
use percent_encoding::percent_decode_str;

pub(super) fn decoded(name: &str, value: &str) -> Result<String> {
    percent_decode_str(value)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| invalid(name, "it is not UTF-8"))
}

pub(super) fn duration(name: &str, value: &str) -> Result<Duration> {
    let (number, unit) = match value.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (value.strip_suffix('s').unwrap_or(value), 1000),
    };
    let number: u32 = number
        .parse()
        .map_err(|_| invalid(name, "write a duration such as `2`, `2s` or `500ms`"))?;
    Ok(Duration::from_millis(u64::from(number) * unit))
}

pub(super) fn count(name: &str, value: &str) -> Result<usize> {
    let count = value.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| invalid(name, "write a number of at least 1"))
}

pub(super) fn positive(name: &str, duration: Duration) -> Result<Duration> {
    if duration.is_zero() {
        return Err(invalid(name, "write a duration above zero"));
    }
    Ok(duration)
}

pub(super) fn invalid(option: &str, advice: &str) -> Error {
    Error::invalid_argument(format!("option `{option}` of the Redis URL: {advice}"))
}
