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
    use proptest::prelude::*;

    use super::*;

    /// A failure is printed, shrunk, and leaves no file in the sources.
    fn cases() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    /// Text that is nearly a duration, past what numbers hold too.
    fn nearly_a_duration() -> impl Strategy<Value = String> {
        let unit = prop::sample::select(vec![
            "", "ns", "us", "ms", "s", "m", "h", "d", "w", "M", "y", "years", "X", " ", "-", "+",
            ".5s", "\u{b5}s", "e9s", "\0",
        ]);
        let number = prop_oneof![
            any::<u64>().prop_map(|number| number.to_string()),
            Just("18446744073709551616".to_owned()),
            Just("584554049253".to_owned()),
            "[0-9]{0,30}",
        ];
        let pairs = prop::collection::vec((number, unit), 0..5).prop_map(|pairs| {
            pairs.into_iter().map(|(number, unit)| number + unit).collect::<String>()
        });
        prop_oneof![4 => pairs, 1 => ".{0,12}"]
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn any_text_is_a_duration_of_more_than_zero_or_refused(text in nearly_a_duration()) {
            match parse_duration(&text) {
                Ok(duration) => {
                    prop_assert!(!duration.is_zero());
                    let shown = humantime::format_duration(duration).to_string();
                    prop_assert_eq!(parse_duration(&shown), Ok(duration), "{}", shown);
                    // As the tool uses it: as a deadline, and as a TTL.
                    drop(cubbyhole::ExecutionContext::new().with_timeout(duration));
                    drop(cubbyhole::Expiry::After(duration).check());
                }
                Err(message) => prop_assert!(message.len() < 300 + 4 * text.len(), "{}", message),
            }
        }

        #[test]
        fn every_duration_is_read_as_it_is_shown(secs in any::<u64>(), nanos in 0..1_000_000_000_u32) {
            // The crate counts months and years of seconds, whose sum it may not read past `u64`.
            let duration = Duration::new(secs / 2, nanos);
            prop_assume!(!duration.is_zero());
            let shown = humantime::format_duration(duration).to_string();
            prop_assert_eq!(parse_duration(&shown), Ok(duration), "{}", shown);
        }

        #[test]
        fn any_name_key_and_version_is_read_or_refused(text in "[a:\\\\\\PC\\x00\n]{0,8}") {
            for message in [
                parse_namespace(&text).err(),
                parse_prefix(&text).err(),
                parse_key(&text).err(),
                parse_version(&text).err(),
            ]
            .into_iter()
            .flatten()
            {
                prop_assert!(!message.is_empty() && message.is_ascii(), "{}", message);
            }
            prop_assert_eq!(parse_key(&text).is_ok(), !text.contains('\0'));
            prop_assert_eq!(parse_namespace(&text).is_ok(), parse_prefix(&text).is_ok());
        }
    }

    #[test]
    fn durations_are_read_and_zero_is_refused() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for text in ["0s", "0", "", "soon", "-5s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
