//! Serde of an optional duration as a text such as `30m`.

use std::borrow::Cow;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// Units that divide a duration, the longest first.
const UNITS: [(u128, &str); 5] =
    [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];

pub(crate) fn serialize<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serializer.collect_str(&text(*duration)),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<Cow<'de, str>>::deserialize(deserializer)? else {
        return Ok(None);
    };
    // humantime does not read milliseconds of more than 584 years.
    if let Some(millis) = text.strip_suffix("ms").and_then(|number| number.parse().ok()) {
        return Ok(Some(Duration::from_millis(millis)));
    }
    let duration = humantime::parse_duration(&text).map_err(D::Error::custom)?;
    Ok(Some(duration))
}

/// The duration in the longest unit that divides it. Durations in metadata are whole milliseconds.
fn text(duration: Duration) -> String {
    let millis = duration.as_millis();
    let unit = UNITS.iter().find(|(unit, _)| millis.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or(&UNITS[UNITS.len() - 1]);
    format!("{}{name}", millis / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_one_unit_and_is_read_back() {
        for (millis, expected) in [
            (86_400_000, "1d"),
            (5_400_000, "90m"),
            (1_800_000, "30m"),
            (1_500, "1500ms"),
            (220_752_000_000_001, "220752000000001ms"),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(text(duration), expected);
            let json = serde_json::json!(expected);
            assert_eq!(deserialize(json).unwrap(), Some(duration));
        }
        assert_eq!(
            deserialize(serde_json::json!("1h 30m")).unwrap(),
            Some(Duration::from_secs(5400))
        );
        deserialize(serde_json::json!("soon")).unwrap_err();
    }
}
