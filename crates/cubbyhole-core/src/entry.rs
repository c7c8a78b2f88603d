//! [`Entry`], its metadata and its [`Version`].

use std::fmt;
use std::str::FromStr;

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
}

impl EntryMeta {
    /// Returns true if the entry has not expired at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
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
