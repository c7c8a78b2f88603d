//! The stored form of sessions, as JSON.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use tower_sessions_core::session::{Id, Record};

/// The value of an entry whose key is a session id.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stored {
    /// The session itself.
    Session(StoredSession),
    /// The session is in the namespace of this user.
    User(String),
}

/// A [`Record`] without its id, which is the key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredSession {
    data: HashMap<String, Value>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) expiry_date: OffsetDateTime,
}

impl StoredSession {
    pub(crate) fn of(record: &Record) -> Self {
        Self { data: record.data.clone(), expiry_date: record.expiry_date }
    }

    /// Returns the record, or `None` if it has expired. A record with an idle TTL can expire before
    /// its entry does.
    pub(crate) fn into_record(self, id: Id) -> Option<Record> {
        let Self { data, expiry_date } = self;
        (expiry_date > OffsetDateTime::now_utc()).then_some(Record { id, data, expiry_date })
    }
}
