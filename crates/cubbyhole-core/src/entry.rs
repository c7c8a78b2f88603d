//! [`Entry`], its metadata and its [`Version`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Clock, Error, Result, SystemClock, Timestamp};

/// Identifies one write of one entry: a UUID v7 that the writer draws.
///
/// A version is opaque: compare versions for equality only. Versions are not reused, even if a key is
/// deleted and written again. The text and JSON form is the hyphenated lower-case UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(Uuid);

impl Version {
    /// Draws a new version.
    ///
    /// Stores draw a version for every write. Draw it yourself and pass it to
    /// [`PutOptions::with_version`](crate::PutOptions::with_version) to be able to check a write of
    /// unknown outcome.
    #[must_use]
    pub fn draw() -> Self {
        // Without the counter, and its lock, that would order the versions of one process: versions
        // are compared for equality only.
        let millis = SystemClock.now().as_millis();
        let nanos = (millis % 1000) as u32 * 1_000_000;
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, millis / 1000, nanos)))
    }

    /// Returns the 16 bytes of the stored form.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// Creates a version from the bytes of [`to_bytes`](Self::to_bytes).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({})", self.0)
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Uuid::try_parse(text).map(Self).map_err(|error| {
            Error::invalid_argument("not a version: copy the one that `get --entry` shows")
                .with_source(error)
        })
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The metadata of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryMeta {
    /// The version of the last write.
    pub version: Version,
    /// The time of the first write since the key was last absent.
    pub created_at: Timestamp,
    /// The time of the last write.
    pub updated_at: Timestamp,
    /// The time from which the entry is absent. `None` if it does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// How long the entry lives after its last write or refreshing read, in whole milliseconds. `None`
    /// if it has no [idle TTL](crate::Expiry::Idle). In JSON a text such as `"30m"` or `"1500ms"`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::duration_text")]
    pub idle_ttl: Option<Duration>,
}

impl EntryMeta {
    /// Returns true if the entry has not expired at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    /// Returns the new expiry of a live entry that a refreshing read reads at `now`. `None` if the
    /// entry has no idle TTL, or less than a tenth of it has passed since the last write or refresh.
    #[must_use]
    pub fn refreshed(&self, now: Timestamp) -> Option<Timestamp> {
        let (ttl, expires_at) = (self.idle_ttl?, self.expires_at?);
        let refreshed = now.checked_add(ttl).unwrap_or(Timestamp::MAX);
        let passed = refreshed.saturating_since(expires_at);
        (!passed.is_zero() && passed.saturating_mul(10) >= ttl).then_some(refreshed)
    }
}

/// The metadata of an entry, and the size of its value. Returned by
/// [`EntryStore::stat`](crate::EntryStore::stat).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryStat {
    /// The metadata.
    #[serde(flatten)]
    pub meta: EntryMeta,
    /// The length of the encoded value in bytes, if the store knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_bytes: Option<u64>,
}

/// A value with its metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<V> {
    /// The value.
    pub value: V,
    /// The metadata.
    #[serde(flatten)]
    pub meta: EntryMeta,
}

impl<V> Entry<V> {
    /// Replaces the value with the result of `f`, for example of a codec.
    ///
    /// # Errors
    /// The error of `f`.
    pub fn try_map<W>(self, f: impl FnOnce(V) -> Result<W>) -> Result<Entry<W>> {
        Ok(Entry { value: f(self.value)?, meta: self.meta })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GetOptions;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    /// An entry that was written at 1,000 ms with an idle TTL of 100 ms.
    fn idle() -> EntryMeta {
        EntryMeta {
            version: Version::draw(),
            created_at: at(1_000),
            updated_at: at(1_000),
            expires_at: Some(at(1_100)),
            idle_ttl: Some(Duration::from_millis(100)),
        }
    }

    #[test]
    fn refresh_is_skipped_within_a_tenth_of_the_idle_ttl() {
        assert_eq!(idle().refreshed(at(1_000)), None);
        assert_eq!(idle().refreshed(at(1_009)), None);
        assert_eq!(idle().refreshed(at(1_010)), Some(at(1_110)));
        assert_eq!(idle().refreshed(at(1_099)), Some(at(1_199)));
        // A clock that was set back, or an expiry that was extended further.
        assert_eq!(idle().refreshed(at(900)), None);
        // A tenth of a short TTL is less than a millisecond.
        let short = EntryMeta {
            expires_at: Some(at(1_005)),
            idle_ttl: Some(Duration::from_millis(5)),
            ..idle()
        };
        assert_eq!(short.refreshed(at(1_000)), None);
        assert_eq!(short.refreshed(at(1_001)), Some(at(1_006)));
        // The end of time.
        let late = EntryMeta { expires_at: Some(at(Timestamp::MAX.as_millis() - 50)), ..idle() };
        let now = at(Timestamp::MAX.as_millis() - 60);
        assert_eq!(late.refreshed(now), Some(Timestamp::MAX));
    }

    #[test]
    fn only_entries_with_an_idle_ttl_are_refreshed() {
        let plain = EntryMeta { idle_ttl: None, ..idle() };
        assert_eq!(plain.refreshed(at(1_050)), None);
        let options = GetOptions::new().refreshing();
        assert_eq!(options.extend(at(1_050), &plain).unwrap(), None);
        assert_eq!(options.extend(at(1_050), &idle()).unwrap(), Some(at(1_150)));
        assert_eq!(GetOptions::new().extend(at(1_050), &idle()).unwrap(), None);
    }

    #[test]
    fn read_with_both_extensions_takes_the_later_one() {
        let both =
            |ttl| GetOptions::new().refreshing().with_extended_ttl(Duration::from_millis(ttl));
        assert_eq!(both(500).extend(at(1_050), &idle()).unwrap(), Some(at(1_550)));
        assert_eq!(both(20).extend(at(1_050), &idle()).unwrap(), Some(at(1_150)));
        assert_eq!(both(20).extend(at(1_001), &idle()).unwrap(), None);
    }

    #[test]
    fn idle_ttl_is_a_text_in_json_and_optional() {
        let meta = idle();
        let json = serde_json::to_value(meta).unwrap();
        assert_eq!(json["idle_ttl"], "100ms");
        assert_eq!(serde_json::from_value::<EntryMeta>(json.clone()).unwrap(), meta);
        let mut old = json;
        old.as_object_mut().unwrap().remove("idle_ttl");
        let old: EntryMeta = serde_json::from_value(old).unwrap();
        assert_eq!(old.idle_ttl, None);
        assert!(!serde_json::to_string(&old).unwrap().contains("idle_ttl"));
    }
}
