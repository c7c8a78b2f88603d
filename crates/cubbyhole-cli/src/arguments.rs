//! How arguments are read: what is wrong with one is a usage error before anything is opened.

use std::time::Duration;

use cubbyhole::{Namespace, NamespacePrefix, Version, limits};

/// A duration such as `90s`, `1h30m` or `7d`; zero never means "none".
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a duration such as 90s, 1h30m or 7d"))?;
    if duration.is_zero() {
        return Err("a duration must be more than zero; leave the option out for none".to_owned());
    }
    Ok(duration)
}

pub(crate) fn parse_namespace(text: &str) -> Result<Namespace, String> {
    Namespace::parse(text).map_err(|error| error.message().to_owned())
}

pub(crate) fn parse_prefix(text: &str) -> Result<NamespacePrefix, String> {
    NamespacePrefix::parse(text).map_err(|error| error.message().to_owned())
}

pub(crate) fn parse_key(text: &str) -> Result<String, String> {
    limits::check_key(text).map_err(|error| error.message().to_owned())?;
    Ok(text.to_owned())
}

pub(crate) fn parse_version(text: &str) -> Result<Version, String> {
    text.parse().map_err(|error: cubbyhole::Error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_zero_is_refused() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for text in ["0s", "0", "", "soon", "-5s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
