//! [`Timestamp`]: an instant in whole milliseconds.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::{Error, Result};

/// An instant in whole milliseconds since 1970-01-01T00:00:00Z, up to the end of the year 9999.
///
/// The text and JSON form is RFC 3339 in UTC with exactly three fractional digits, so text sorts as
/// time. Parsing accepts any number of fractional digits and any offset, and truncates to milliseconds.
///
/// ```
/// use cubbyhole::Timestamp;
///
/// let instant: Timestamp = "2026-11-22T10:00:00.5+01:00".parse()?;
/// assert_eq!(instant.to_string(), "2026-11-22T09:00:00.500Z");
/// # Ok::<(), cubbyhole::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);
    /// The latest instant: 9999-12-31T23:59:59.999Z.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// Creates an instant from the milliseconds since 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// `InvalidArgument` after the year 9999.
    pub fn from_millis(millis: u64) -> Result<Self> {
        if millis > Self::MAX.0 {
            return Err(out_of_range());
        }
        Ok(Self(millis))
    }

    /// Returns the milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the instant `duration` later. A fraction of a millisecond rounds up.
    ///
    /// # Errors
    /// `InvalidArgument` if the result is after the year 9999.
    pub fn checked_add(self, duration: Duration) -> Result<Self> {
        let millis = duration.as_nanos().div_ceil(1_000_000);
        u64::try_from(millis)
            .ok()
            .and_then(|millis| self.0.checked_add(millis))
            .filter(|sum| *sum <= Self::MAX.0)
            .map(Self)
            .ok_or_else(out_of_range)
    }

    /// Returns the time from `earlier` to this instant, or zero if this instant is not later.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn out_of_range() -> Error {
    Error::invalid_argument(
        "the instant is outside 1970-01-01 to 9999-12-31 UTC; leave the expiry out for none",
    )
}

impl TryFrom<SystemTime> for Timestamp {
    type Error = Error;

    fn try_from(time: SystemTime) -> Result<Self> {
        let since = time.duration_since(UNIX_EPOCH).map_err(|_| out_of_range())?;
        // Avoids the 128-bit division of `as_millis`, which is measurable at each clock reading.
        let millis = since.as_secs().checked_mul(1000).ok_or_else(out_of_range)?;
        Self::from_millis(millis.saturating_add(u64::from(since.subsec_millis())))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(timestamp: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_millis(timestamp.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0) * 1_000_000;
        let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| fmt::Error)?;
        let (year, month, day) = time.to_calendar_date();
        let (hour, minute, second, millisecond) = time.to_hms_milli();
        // The RFC 3339 format of the crate omits trailing zeros.
        write!(
            f,
            "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z",
            u8::from(month)
        )
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|error| {
            Error::invalid_argument("not an RFC 3339 instant such as 2026-11-22T09:00:00Z")
                .with_source(error)
        })?;
        u64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000))
            .map_err(|_| out_of_range())
            .and_then(Self::from_millis)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_round_trips_to_the_end_of_the_year_9999() {
        for millis in [0, 1, 999, 1_000, 1_795_000_000_123, Timestamp::MAX.as_millis()] {
            let instant = Timestamp::from_millis(millis).unwrap();
            assert_eq!(instant.to_string().parse::<Timestamp>().unwrap(), instant);
        }
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999Z");
        assert!(Timestamp::from_millis(Timestamp::MAX.as_millis() + 1).is_err());
    }

    #[test]
    fn text_has_three_digits_of_the_second() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1, "1970-01-01T00:00:00.001Z"),
            (120, "1970-01-01T00:00:00.120Z"),
            (900, "1970-01-01T00:00:00.900Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        ] {
            let instant = Timestamp::from_millis(millis).unwrap();
            assert_eq!(instant.to_string(), text);
            assert_eq!(serde_json::to_string(&instant).unwrap(), format!("\"{text}\""));
        }
    }

    #[test]
    fn any_precision_and_offset_is_parsed() {
        for text in [
            "2026-11-22T09:00:00Z",
            "2026-11-22T09:00:00.0Z",
            "2026-11-22T09:00:00.00Z",
            "2026-11-22T09:00:00.000Z",
            "2026-11-22T09:00:00.000000Z",
            "2026-11-22T09:00:00.000999999Z",
            "2026-11-22T10:30:00.000+01:30",
        ] {
            let instant: Timestamp = text.parse().unwrap();
            assert_eq!(instant.to_string(), "2026-11-22T09:00:00.000Z", "{text}");
            assert_eq!(serde_json::from_str::<Timestamp>(&format!("\"{text}\"")).unwrap(), instant);
        }
    }

    /// Instants that differ anywhere, and often only in the last digits.
    fn instant() -> impl Strategy<Value = Timestamp> {
        let any = 0..=Timestamp::MAX.as_millis();
        let near = 1_795_000_000_000..1_795_000_002_000_u64;
        prop_oneof![any, near].prop_map(|millis| Timestamp::from_millis(millis).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn text_sorts_as_time_and_round_trips(one in instant(), other in instant()) {
            prop_assert_eq!(one.to_string().cmp(&other.to_string()), one.cmp(&other));
            prop_assert_eq!(one.to_string().len(), 24);
            prop_assert_eq!(one.to_string().parse::<Timestamp>().unwrap(), one);
        }
    }

    #[test]
    fn a_fraction_of_a_millisecond_rounds_up() {
        let later = Timestamp::EPOCH.checked_add(Duration::from_nanos(1_000_001)).unwrap();
        assert_eq!(later.as_millis(), 2);
    }

    #[test]
    fn overflow_is_an_error() {
        assert!(Timestamp::EPOCH.checked_add(Duration::MAX).is_err());
        assert!(Timestamp::MAX.checked_add(Duration::from_nanos(1)).is_err());
    }
}
