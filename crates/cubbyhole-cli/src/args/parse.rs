//! Parsers of argument values. A wrong value is a usage error before any store is opened.

use std::time::Duration;

use cubbyhole::{Namespace, NamespacePrefix, Version, limits};
use humantime::DurationError;

/// Units without a fixed length. `M` is among them because many readers take it for minutes.
const NO_FIXED_LENGTH: [&str; 8] = ["months", "month", "M", "years", "year", "yrs", "yr", "y"];

const SECONDS_A_DAY: u64 = 24 * 60 * 60;

/// Parses a duration such as `90s`, `1h30m` or `7d`. Zero is refused.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut units = text.split(|c: char| !c.is_alphabetic());
    if let Some(unit) = units.find(|unit| NO_FIXED_LENGTH.contains(unit)) {
        return Err(format!(
            "`{unit}` has no fixed length: use days, such as 30d or 365d, or minutes, such as 60m"
        ));
    }
    let duration = humantime::parse_duration(text).map_err(|error| {
        let reason = match error {
            DurationError::UnknownUnit { unit, .. } if !unit.is_empty() => {
                format!("unknown time unit `{unit}`: use ns, us, ms, s, m, h, d or w")
            }
            error => error.to_string(),
        };
        format!("{reason}; write a duration such as 90s, 1h30m or 7d")
    })?;
    if duration.is_zero() {
        return Err("a duration must be greater than zero; omit the option for no limit".to_owned());
    }
    Ok(duration)
}

/// Parses a size in bytes, such as `65536`, `64KiB` or `16 MiB`. Zero is refused.
pub(crate) fn parse_bytes(text: &str) -> Result<usize, String> {
    let form = || "write a size such as 65536, \"64KiB\", \"16MiB\" or \"1GiB\"".to_owned();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim() {
        "" | "B" => 1_usize,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(form()),
    };
    let number: usize = digits.parse().map_err(|_| form())?;
    let bytes = number.checked_mul(unit).ok_or_else(form)?;
    if bytes == 0 { Err(form()) } else { Ok(bytes) }
}

/// Formats a duration for [`parse_duration`], with days as the longest unit.
pub(crate) fn format_duration(duration: Duration) -> String {
    let days = duration.as_secs() / SECONDS_A_DAY;
    let rest = duration.saturating_sub(Duration::from_secs(days * SECONDS_A_DAY));
    let days = match days {
        0 => return humantime::format_duration(rest).to_string(),
        1 => "1day".to_owned(),
        days => format!("{days}days"),
    };
    if rest.is_zero() { days } else { format!("{days} {}", humantime::format_duration(rest)) }
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

    /// Failing cases are printed and not saved to a file.
    fn cases() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    /// Text close to a duration, including numbers that overflow.
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
        fn any_text_is_a_positive_duration_or_refused(text in nearly_a_duration()) {
            match parse_duration(&text) {
                Ok(duration) => {
                    prop_assert!(!duration.is_zero());
                    let shown = format_duration(duration);
                    prop_assert_eq!(parse_duration(&shown), Ok(duration), "{}", shown);
                    // The tool uses durations as deadlines and as TTLs.
                    drop(cubbyhole::ExecutionContext::new().with_timeout(duration));
                    drop(cubbyhole::Expiry::After(duration).check());
                }
                Err(message) => prop_assert!(message.len() < 300 + 4 * text.len(), "{}", message),
            }
        }

        #[test]
        fn formatted_duration_parses_back(secs in any::<u64>(), nanos in 0..1_000_000_000_u32) {
            let duration = Duration::new(secs, nanos);
            prop_assume!(!duration.is_zero());
            let shown = format_duration(duration);
            prop_assert_eq!(parse_duration(&shown), Ok(duration), "{}", shown);
        }

        #[test]
        fn any_name_key_and_version_is_accepted_or_refused(text in "[a:\\\\\\PC\\x00\n]{0,8}") {
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
    fn valid_durations_parse_and_zero_is_refused() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for text in ["0s", "0", "", "soon", "-5s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        let message = parse_duration("2 nights").unwrap_err();
        assert!(message.contains("`nights`") && !message.contains("month"), "{message}");
    }

    #[test]
    fn valid_sizes_parse_and_others_are_refused() {
        for (text, bytes) in [
            ("1", 1),
            ("65536", 65_536),
            ("64KiB", 65_536),
            ("16 MiB", 16 << 20),
            ("1GiB", 1 << 30),
            ("7B", 7),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "0",
            "0KiB",
            "-1",
            "1.5MiB",
            "64kb",
            "KiB",
            "1 TiB",
            "99999999999999999999",
            "18446744073709551615KiB",
        ] {
            assert!(parse_bytes(text).unwrap_err().contains("64KiB"), "{text}");
        }
    }

    #[test]
    fn unit_without_a_fixed_length_is_refused() {
        for unit in NO_FIXED_LENGTH {
            for text in [
                format!("1{unit}"),
                format!("3 {unit}"),
                format!("1h 2{unit}"),
                format!("1{unit}5d"),
                format!("0.5{unit}"),
                format!("0{unit}"),
            ] {
                let message = parse_duration(&text).unwrap_err();
                assert!(message.contains(&format!("`{unit}`")), "{text}: {message}");
                assert!(message.contains("30d") && message.contains("60m"), "{message}");
            }
        }
        for text in ["1m", "60m", "1min", "2 minutes", "1day", "2weeks", "1ms"] {
            assert!(parse_duration(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn durations_are_formatted_in_days_and_smaller_units() {
        for (secs, shown) in [
            (90, "1m 30s"),
            (86_400, "1day"),
            (31 * 86_400 + 60, "31days 1m"),
            (366 * 86_400, "366days"),
        ] {
            assert_eq!(format_duration(Duration::from_secs(secs)), shown);
        }
        assert_eq!(format_duration(Duration::from_millis(1500)), "1s 500ms");
    }
}
