//! What a store keeps under a key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Clock, Error, Result, SystemClock, Timestamp};

/// Identifies one write of one entry: a UUID v7 that the writer draws. Opaque: compare it for
/// equality only. It never repeats, not even after the key was deleted and written again.
///
/// As text, and in JSON, it is the hyphenated lower-case form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(Uuid);

impl Version {
    /// Draws a new version. Stores do this for every write; do it yourself, and pass it as
    /// [`PutOptions::with_version`](crate::PutOptions::with_version), to find out after a write
    /// whose outcome is unknown whether it was applied.
    #[must_use]
    pub fn draw() -> Self {
        // No counter that keeps those of one process in order, and no lock around it: versions are
        // compared for equality only.
        let millis = SystemClock.now().as_millis();
        let nanos = (millis % 1000) as u32 * 1_000_000;
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, millis / 1000, nanos)))
    }

    /// The sixteen bytes, for storing.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// From the sixteen bytes of [`to_bytes`](Self::to_bytes).
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

/// Everything about an entry but its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryMeta {
    /// Which write this is.
    pub version: Version,
    /// When the key was first written since it was last absent.
    pub created_at: Timestamp,
    /// When the value was last written.
    pub updated_at: Timestamp,
    /// From when on the entry is absent; `None` for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl EntryMeta {
    /// Whether the entry is still there at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

/// A value with its version and its instants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<V> {
    /// The value.
    pub value: V,
    /// Version and instants.
    #[serde(flatten)]
    pub meta: EntryMeta,
}

impl<V> Entry<V> {
    /// The same entry with another value, as a codec makes it.
    ///
    /// # Errors
    /// What `f` answers.
    pub fn try_map<W>(self, f: impl FnOnce(V) -> Result<W>) -> Result<Entry<W>> {
        Ok(Entry { value: f(self.value)?, meta: self.meta })
    }
}
