//! [`CubbyholeStore`]: the session store.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cubbyhole_core::{
    Batch, Bytes, Condition, EntryStore, EntryStoreExt, Error, ErrorKind, ExecutionContext, Expiry,
    GetOptions, JsonCodec, Namespace, PutOptions, ScanOptions, Store, Timestamp, Typed, TypedExt,
    Version, Written,
};
use serde_json::Value;
use time::OffsetDateTime;
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::{self, ExpiredDeletion};

use crate::stored::{Stored, StoredSession};

/// The default time limit of each call of the store: 5 s.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum number of ids that [`SessionStore::create`] draws. A second one is needed less than once
/// in 10^30 sessions, unless the random numbers are broken.
const MAX_DRAWN_IDS: usize = 8;

type UserOf = dyn Fn(&HashMap<String, Value>) -> Option<String> + Send + Sync;

/// A [`SessionStore`] over any [`EntryStore`] of bytes. Cloning it copies pointers.
///
/// The crate's documentation says where sessions are stored.
///
/// ```
/// use cubbyhole::{ExecutionContext, Namespace};
/// use cubbyhole_tower_sessions::CubbyholeStore;
/// use tower_sessions::{Session, SessionManagerLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = cubbyhole::open(&ExecutionContext::new(), "memory:").await?;
/// let sessions = CubbyholeStore::new(store, Namespace::parse("acme:sessions")?)
///     .with_user_key("user_id");
/// let layer = SessionManagerLayer::new(sessions.clone());
///
/// // In a handler, at sign-in:
/// async fn sign_in(session: Session, user: u64) -> Result<(), tower_sessions::session::Error> {
///     session.cycle_id().await?;
///     session.insert("user_id", user).await
/// }
///
/// // After a password change:
/// let ended = sessions.sign_out_everywhere("7").await?;
/// # assert_eq!(ended, 0);
/// # drop(layer);
/// # Ok(())
/// # }
/// ```
pub struct CubbyholeStore<S> {
    store: Arc<Typed<Stored, JsonCodec, S>>,
    ns: Namespace,
    user_of: Option<Arc<UserOf>>,
    idle_ttl: Option<Duration>,
    timeout: Duration,
}

impl<S: EntryStore<Bytes>> CubbyholeStore<S> {
    /// Creates a session store whose sessions are in `ns` and below it. Nothing else should be
    /// stored there.
    #[must_use]
    pub fn new(store: S, ns: Namespace) -> Self {
        Self {
            store: Arc::new(store.typed()),
            ns,
            user_of: None,
            idle_ttl: None,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// Names the user of a session by an item of its data. A session without the item, or with null,
    /// has no user. The name is the text of a string, and the JSON form of any other value: `7` and
    /// `"7"` are the same user.
    ///
    /// Use the same rule in every replica. A session that was stored under another rule is not
    /// loaded, because a sign-out would miss it: its user has to sign in again.
    ///
    /// ```
    /// # use cubbyhole::{ExecutionContext, InMemoryStore, Namespace};
    /// # use cubbyhole_tower_sessions::CubbyholeStore;
    /// # fn main() -> cubbyhole::Result<()> {
    /// # let store = InMemoryStore::<cubbyhole::Bytes>::new();
    /// let sessions = CubbyholeStore::new(store, Namespace::parse("acme:sessions")?)
    ///     .with_user_key("user_id");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_user_key(self, key: impl Into<String>) -> Self {
        let key = key.into();
        self.with_user_of(move |data| match data.get(&key) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
        })
    }

    /// Names the user of a session by its data. Libraries such as `axum-login` keep the user deeper in
    /// the data.
    ///
    /// ```
    /// # use cubbyhole::{InMemoryStore, Namespace};
    /// # use cubbyhole_tower_sessions::CubbyholeStore;
    /// # fn main() -> cubbyhole::Result<()> {
    /// # let store = InMemoryStore::<cubbyhole::Bytes>::new();
    /// let sessions = CubbyholeStore::new(store, Namespace::parse("acme:sessions")?)
    ///     .with_user_of(|data| {
    ///         let user = data.get("axum-login.data")?.get("user_id")?;
    ///         user.as_i64().map(|number| number.to_string())
    ///     });
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_user_of(
        mut self,
        user_of: impl Fn(&HashMap<String, Value>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.user_of = Some(Arc::new(user_of));
        self
    }

    /// Sessions expire this long after they were last saved or loaded, or at their expiry date if it
    /// is earlier. Loading a session extends its expiry and does not rewrite its data.
    ///
    /// A load extends a session only if a tenth of the TTL has passed since the last extension. A
    /// session therefore expires between 0.9 and 1.0 TTL after its last load. The expiry date is two
    /// weeks after the last save unless the layer sets another. The cookie has its own expiry:
    /// `Expiry::OnSessionEnd`, the default of the layer, keeps it until the browser closes.
    ///
    /// Without an idle TTL, sessions expire at their expiry date.
    #[must_use]
    pub fn with_idle_ttl(mut self, ttl: Duration) -> Self {
        self.idle_ttl = Some(ttl);
        self
    }

    /// Sets the time limit of each call of the store, instead of [`DEFAULT_TIMEOUT`]. Saving a session
    /// takes up to three calls.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Deletes all sessions of a user and returns their number. Requests that are running can no longer
    /// save them.
    ///
    /// If the call fails, some sessions may be left. Call it again.
    ///
    /// # Errors
    /// `Backend`, also for a user whose name is too long for a namespace or contains NUL.
    pub async fn sign_out_everywhere(&self, user: &str) -> session_store::Result<u64> {
        let (ctx, ns) = (self.ctx(), self.ns_of(user)?);
        let mut removed = 0;
        loop {
            let page = self.store.scan(&ctx, &ns, ScanOptions::new().keys_only());
            let keys: Vec<String> =
                page.await.map_err(backend)?.items.into_iter().map(|item| item.key).collect();
            if keys.is_empty() {
                return Ok(removed);
            }
            let batch = || keys.iter().fold(Batch::new(), |batch, key| batch.delete(key));
            // The sessions first: a reference alone leads nowhere.
            let deleted = self.store.write(&ctx, &ns, batch()).await.map_err(backend)?;
            removed += deleted.iter().filter(|it| **it == Written::Deleted(true)).count() as u64;
            self.store.write(&ctx, &self.ns, batch()).await.map_err(backend)?;
        }
    }

    /// Returns the live sessions of a user, ordered by the text of their ids, for example to show where
    /// the user is signed in. Pass an id to [`SessionStore::delete`] to end that session.
    ///
    /// An id is the content of the session's cookie. Do not send it to a browser: send a hash of it.
    ///
    /// # Errors
    /// `Backend` or `Decode`.
    pub async fn sessions_of(&self, user: &str) -> session_store::Result<Vec<Record>> {
        let (ctx, ns) = (self.ctx(), self.ns_of(user)?);
        let mut options = ScanOptions::new();
        let mut records = Vec::new();
        loop {
            let page = self.store.scan(&ctx, &ns, options.clone()).await.map_err(reading)?;
            let keys: Vec<&str> = page.items.iter().map(|item| item.key.as_str()).collect();
            // An interrupted call can leave a session without a reference. It cannot be loaded.
            let references = self.store.stat(&ctx, &self.ns, &keys).await.map_err(backend)?;
            for (item, reference) in page.items.into_iter().zip(references) {
                let id = item.key.parse();
                let entry = item.into_entry().filter(|_| reference.is_some());
                let Some(entry) = entry.transpose().map_err(reading)? else { continue };
                let id = id.map_err(|_| misplaced(&ns, "a key is not a session id"))?;
                records.extend(session_in(&ns, entry.value)?.into_record(id));
            }
            match page.next {
                Some(next) => options = options.with_after(next),
                None => return Ok(records),
            }
        }
    }

    fn ctx(&self) -> ExecutionContext {
        ExecutionContext::new().with_timeout(self.timeout)
    }

    fn ns_of(&self, user: &str) -> session_store::Result<Namespace> {
        self.ns.clone().with_scope(user).map_err(backend)
    }

    fn user_of(&self, record: &Record) -> Option<String> {
        self.user_of.as_ref().and_then(|user_of| user_of(&record.data))
    }

    fn expiry(&self, record: &Record) -> Expiry {
        self.idle_ttl.map_or_else(|| Expiry::At(instant(record.expiry_date)), Expiry::Idle)
    }

    /// Creates an entry. Returns false if the key is in use.
    async fn insert(
        &self,
        ns: &Namespace,
        record: &Record,
        value: Stored,
    ) -> session_store::Result<bool> {
        let (ctx, key) = (self.ctx(), record.id.to_string());
        let options = PutOptions::new().with_expiry(self.expiry(record));
        match self.store.insert(&ctx, ns, &key, value, options).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            Err(error) => Err(writing(error)),
        }
    }

    /// Creates the entries of a session. Returns false if its id is in use.
    async fn insert_session(&self, record: &Record) -> session_store::Result<bool> {
        let session = Stored::Session(StoredSession::of(record));
        let Some(user) = self.user_of(record) else {
            return self.insert(&self.ns, record, session).await;
        };
        let user_ns = self.ns_of(&user)?;
        // In this order, a sign-out between the writes ends the session.
        if !self.insert(&user_ns, record, session).await? {
            return Ok(false);
        }
        let inserted = self.insert(&self.ns, record, Stored::User(user)).await;
        if !matches!(inserted, Ok(true)) {
            // The session has no reference and cannot be loaded. If it cannot be deleted, it expires.
            let key = record.id.to_string();
            drop(self.store.delete(&self.ctx(), &user_ns, &key).await);
        }
        inserted
    }

    /// Overwrites an entry that exists. Returns whether there was one.
    async fn overwrite(&self, ns: &Namespace, record: &Record) -> session_store::Result<bool> {
        let (ctx, key) = (self.ctx(), record.id.to_string());
        let session = Stored::Session(StoredSession::of(record));
        let options = PutOptions::new().with_expiry(self.expiry(record));
        let put = self.store.put_entry(&ctx, ns, &key, session, options, Condition::IfPresent);
        match put.await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            Err(error) => Err(writing(error)),
        }
    }

    /// Saves a session of a user, and then the expiry of its reference. Returns whether both existed.
    async fn save_of_user(&self, record: &Record, user: &str) -> session_store::Result<bool> {
        if !self.overwrite(&self.ns_of(user)?, record).await? {
            return Ok(false);
        }
        let (ctx, key, expiry) = (self.ctx(), record.id.to_string(), self.expiry(record));
        let touch = self.store.touch(&ctx, &self.ns, &key, expiry, Condition::Always);
        touch.await.map_err(backend)
    }

    /// Saves a session that names no user. Returns whether the session existed.
    async fn save_without_user(&self, record: &Record) -> session_store::Result<bool> {
        let (ctx, key) = (self.ctx(), record.id.to_string());
        let entry = self.store.get_entry(&ctx, &self.ns, &key, GetOptions::new());
        if let Some(Stored::User(user)) = entry.await.map_err(reading)?.map(|it| it.value) {
            if self.user_of.is_none() {
                // Another replica knows the user of this session. It stays with the user.
                return self.save_of_user(record, &user).await;
            }
            // The session had a user until now. Its entry is deleted first: otherwise a slow request of
            // that user could still save it.
            let ns = self.ns_of(&user)?;
            let delete = self.store.delete_entry(&ctx, &ns, &key, Condition::Always);
            if !delete.await.map_err(backend)? {
                return Ok(false);
            }
        }
        self.overwrite(&self.ns, record).await
    }

    /// Reads the session of a reference. Deletes a reference that leads nowhere.
    async fn load_of_user(
        &self,
        key: &str,
        user: &str,
        reference: Version,
        options: GetOptions,
    ) -> session_store::Result<Option<StoredSession>> {
        let (ctx, ns) = (self.ctx(), self.ns_of(user)?);
        let entry = self.store.get_entry(&ctx, &ns, key, options).await.map_err(reading)?;
        if let Some(entry) = entry {
            return session_in(&ns, entry.value).map(Some);
        }
        // A reference is written after its session, and ids are not used again. If the deletion fails,
        // the reference expires.
        let condition = Condition::IfVersion(reference);
        drop(self.store.delete_entry(&ctx, &self.ns, key, condition).await);
        Ok(None)
    }
}

#[async_trait]
impl<S: EntryStore<Bytes>> SessionStore for CubbyholeStore<S> {
    /// Creates a session with a new id. The id of the record is not used: `Session::flush` leaves the id
    /// of the cookie there, which the client may have chosen.
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        for _ in 0..MAX_DRAWN_IDS {
            record.id = Id::default();
            if self.insert_session(record).await? {
                return Ok(());
            }
        }
        Err(session_store::Error::Backend(format!(
            "{MAX_DRAWN_IDS} random session ids are in use; the random number generator is broken"
        )))
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        let existed = match self.user_of(record) {
            None => self.save_without_user(record).await?,
            Some(user) => self.save_of_user(record, &user).await?,
        };
        // A session that has ended and holds nothing loses nothing.
        if existed || record.data.is_empty() { Ok(()) } else { Err(ended()) }
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let (ctx, key) = (self.ctx(), id.to_string());
        let options = match self.idle_ttl {
            Some(_) => GetOptions::new().refreshing(),
            None => GetOptions::new(),
        };
        let entry = self.store.get_entry(&ctx, &self.ns, &key, options).await.map_err(reading)?;
        let Some(entry) = entry else { return Ok(None) };
        let (session, user) = match entry.value {
            Stored::Session(session) => (Some(session), None),
            Stored::User(user) => {
                let version = entry.meta.version;
                (self.load_of_user(&key, &user, version, options).await?, Some(user))
            }
        };
        let record = session.and_then(|session| session.into_record(*id));
        // A session that is not in the namespace of its user would survive a sign-out.
        let is_in_place = |record: &Record| self.user_of.is_none() || self.user_of(record) == user;
        Ok(record.filter(is_in_place))
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        let (ctx, key) = (self.ctx(), id.to_string());
        let entry = self.store.get_entry(&ctx, &self.ns, &key, GetOptions::new()).await;
        // The session first: if the second call fails, the reference leads a repeated call to it.
        if let Some(Stored::User(user)) = entry.map_err(reading)?.map(|entry| entry.value) {
            self.store.delete(&ctx, &self.ns_of(&user)?, &key).await.map_err(backend)?;
        }
        self.store.delete(&ctx, &self.ns, &key).await.map_err(backend)
    }
}

#[async_trait]
impl<S: EntryStore<Bytes>> ExpiredDeletion for CubbyholeStore<S> {
    /// Removes expired entries of the whole store, not of sessions only. A call that reaches its time
    /// limit succeeds: the next one continues.
    async fn delete_expired(&self) -> session_store::Result<()> {
        match self.store.evict_expired(&self.ctx()).await {
            Err(error) if error.kind() != ErrorKind::DeadlineExceeded => Err(backend(error)),
            _ => Ok(()),
        }
    }

    /// Calls [`delete_expired`](Self::delete_expired) after each `period`. Emits a warning through
    /// `tracing` for each error and continues. An outage of the database does not end it.
    async fn continuously_delete_expired(self, period: Duration) -> session_store::Result<()> {
        loop {
            ExecutionContext::new().sleep(period).await.map_err(backend)?;
            if let Err(error) = self.delete_expired().await {
                tracing::warn!(%error, "expired sessions were not deleted");
            }
        }
    }
}

impl<S> Clone for CubbyholeStore<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            ns: self.ns.clone(),
            user_of: self.user_of.clone(),
            idle_ttl: self.idle_ttl,
            timeout: self.timeout,
        }
    }
}

impl<S> fmt::Debug for CubbyholeStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CubbyholeStore")
            .field("ns", &self.ns)
            .field("idle_ttl", &self.idle_ttl)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Converts an expiry date to the store's instants: whole milliseconds from 1970 to the year 9999.
fn instant(date: OffsetDateTime) -> Timestamp {
    let millis = date.unix_timestamp_nanos().div_euclid(1_000_000).max(0);
    u64::try_from(millis)
        .ok()
        .and_then(|millis| Timestamp::from_millis(millis).ok())
        .unwrap_or(Timestamp::MAX)
}

/// Returns the session in the namespace of a user.
fn session_in(ns: &Namespace, value: Stored) -> session_store::Result<StoredSession> {
    match value {
        Stored::Session(session) => Ok(session),
        Stored::User(_) => Err(misplaced(ns, "an entry is not a session")),
    }
}

fn misplaced(ns: &Namespace, what: &str) -> session_store::Error {
    session_store::Error::Decode(format!("{what}, in namespace {}", ns.as_str()))
}

fn ended() -> session_store::Error {
    session_store::Error::Backend(
        "the session has ended, or now has another user; nothing was saved. Call \
         `Session::cycle_id` before a sign-in"
            .to_owned(),
    )
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that `map_err` takes")]
fn backend(error: Error) -> session_store::Error {
    session_store::Error::Backend(error.to_string())
}

/// Converts an error of a call that decodes a value.
fn reading(error: Error) -> session_store::Error {
    match error.kind() {
        ErrorKind::Codec => session_store::Error::Decode(error.to_string()),
        _ => backend(error),
    }
}

/// Converts an error of a call that encodes a value.
fn writing(error: Error) -> session_store::Error {
    match error.kind() {
        ErrorKind::Codec => session_store::Error::Encode(error.to_string()),
        _ => backend(error),
    }
}
