//! [`CubbyholeStore`]: the session store.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cubbyhole_core::{
    Bytes, Condition, EntryStore, EntryStoreExt, Error, ErrorKind, ExecutionContext, Expiry,
    GetOptions, JsonCodec, Namespace, NamespacePrefix, PutOptions, ScanOptions, Store, Timestamp,
    Typed, TypedExt,
};
use futures_util::future::join;
use serde_json::Value;
use time::OffsetDateTime;
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::{self, ExpiredDeletion};

use crate::stored::{Stored, StoredSession};

/// The default time limit of a call to the store: 5 s.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of ids that [`SessionStore::create`] draws. A second one is needed less than once in
/// 10^30 sessions, unless the random numbers are broken.
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
    /// has no user. A value that is not a text counts by its JSON form, such as `7`.
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
    /// is earlier. Loading a session thus extends it without writing it.
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

    /// Sets the time limit of a call, instead of [`DEFAULT_TIMEOUT`].
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
        let prefix = NamespacePrefix::from(self.ns_of(user)?);
        self.store.erase_all(&self.ctx(), &prefix).await.map_err(backend)
    }

    /// Returns the live sessions of a user, ordered by the text of their ids, for example to show where
    /// the user is signed in. Pass an id to [`SessionStore::delete`] to end that session.
    ///
    /// # Errors
    /// `Backend` or `Decode`.
    pub async fn sessions_of(&self, user: &str) -> session_store::Result<Vec<Record>> {
        let (ctx, ns) = (self.ctx(), self.ns_of(user)?);
        let mut options = ScanOptions::new();
        let mut records = Vec::new();
        loop {
            let page = self.store.scan(&ctx, &ns, options.clone()).await.map_err(reading)?;
            for item in page.items {
                let key = item.key.clone();
                let Some(entry) = item.into_entry().transpose().map_err(reading)? else { continue };
                let id = key.parse().map_err(|_| misplaced(&ns, "a key is not a session id"))?;
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

    /// The user of a session, and the namespace of its entry.
    fn place_of(&self, record: &Record) -> session_store::Result<Option<(String, Namespace)>> {
        let user = self.user_of.as_ref().and_then(|user_of| user_of(&record.data));
        user.map(|user| self.ns_of(&user).map(|ns| (user, ns))).transpose()
    }

    fn expiry(&self, record: &Record) -> Expiry {
        self.idle_ttl.map_or_else(|| Expiry::At(instant(record.expiry_date)), Expiry::Idle)
    }

    /// Creates the entries of a session whose id may be in use.
    async fn insert(&self, record: &Record) -> session_store::Result<Result<(), InUse>> {
        let (ctx, key, options) =
            (self.ctx(), record.id.to_string(), PutOptions::new().with_expiry(self.expiry(record)));
        let session = Stored::Session(StoredSession::of(record));
        let insert = |ns, value| {
            let key = &key;
            let ctx = &ctx;
            async move {
                match self.store.insert(ctx, ns, key, value, options).await {
                    Ok(_) => Ok(Ok(())),
                    Err(error) if error.kind() == ErrorKind::Conflict => Ok(Err(InUse)),
                    Err(error) => Err(writing(error)),
                }
            }
        };
        let Some((user, user_ns)) = self.place_of(record)? else {
            return insert(&self.ns, session).await;
        };
        // In this order, a sign-out between the writes ends the session.
        if insert(&user_ns, session).await?.is_err() {
            return Ok(Err(InUse));
        }
        let inserted = insert(&self.ns, Stored::User(user)).await?;
        if inserted.is_err() {
            // The id belongs to another session. Nothing leads to the entry that was just created.
            self.store.delete(&ctx, &user_ns, &key).await.map_err(backend)?;
        }
        Ok(inserted)
    }

    /// Overwrites an entry that exists. Returns whether there was one.
    async fn overwrite(
        &self,
        ns: &Namespace,
        record: &Record,
        value: Stored,
    ) -> session_store::Result<bool> {
        let (ctx, key, options) =
            (self.ctx(), record.id.to_string(), PutOptions::new().with_expiry(self.expiry(record)));
        let put = self.store.put_entry(&ctx, ns, &key, value, options, Condition::IfPresent);
        match put.await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            Err(error) => Err(writing(error)),
        }
    }

    /// Changes the expiry of an entry that exists. Returns whether there was one.
    async fn extend(&self, ns: &Namespace, record: &Record) -> session_store::Result<bool> {
        let (ctx, key, expiry) = (self.ctx(), record.id.to_string(), self.expiry(record));
        let touch = self.store.touch(&ctx, ns, &key, expiry, Condition::Always);
        touch.await.map_err(backend)
    }

    /// Saves a session without a user. Returns whether the session existed.
    async fn save_without_user(&self, record: &Record) -> session_store::Result<bool> {
        if self.user_of.is_some() {
            let (ctx, key) = (self.ctx(), record.id.to_string());
            let entry = self.store.get_entry(&ctx, &self.ns, &key, GetOptions::new());
            if let Some(Stored::User(user)) = entry.await.map_err(reading)?.map(|it| it.value) {
                // The session had a user until now. Its entry goes first, so that no slow request of
                // that user finds it.
                let ns = self.ns_of(&user)?;
                let delete = self.store.delete_entry(&ctx, &ns, &key, Condition::Always);
                if !delete.await.map_err(backend)? {
                    return Ok(false);
                }
            }
        }
        let session = Stored::Session(StoredSession::of(record));
        self.overwrite(&self.ns, record, session).await
    }
}

/// The id of a session to be created is in use.
struct InUse;

#[async_trait]
impl<S: EntryStore<Bytes>> SessionStore for CubbyholeStore<S> {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        for _ in 0..MAX_DRAWN_IDS {
            match self.insert(record).await? {
                Ok(()) => return Ok(()),
                Err(InUse) => record.id = Id::default(),
            }
        }
        Err(session_store::Error::Backend(format!(
            "{MAX_DRAWN_IDS} random session ids are in use; the random number generator is broken"
        )))
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        let existed = match self.place_of(record)? {
            None => self.save_without_user(record).await?,
            Some((_, user_ns)) => {
                let session = Stored::Session(StoredSession::of(record));
                let (session, reference) =
                    join(self.overwrite(&user_ns, record, session), self.extend(&self.ns, record))
                        .await;
                session? && reference?
            }
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
        let session = match entry.map(|entry| entry.value) {
            None => return Ok(None),
            Some(Stored::Session(session)) => session,
            Some(Stored::User(user)) => {
                let ns = self.ns_of(&user)?;
                let entry = self.store.get_entry(&ctx, &ns, &key, options).await;
                let Some(entry) = entry.map_err(reading)? else { return Ok(None) };
                session_in(&ns, entry.value)?
            }
        };
        Ok(session.into_record(*id))
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        let (ctx, key) = (self.ctx(), id.to_string());
        let taken = self.store.take(&ctx, &self.ns, &key).await.map_err(reading)?;
        if let Some(Stored::User(user)) = taken.map(|entry| entry.value) {
            self.store.delete(&ctx, &self.ns_of(&user)?, &key).await.map_err(backend)?;
        }
        Ok(())
    }
}

#[async_trait]
impl<S: EntryStore<Bytes>> ExpiredDeletion for CubbyholeStore<S> {
    async fn delete_expired(&self) -> session_store::Result<()> {
        self.store.evict_expired(&self.ctx()).await.map(drop).map_err(backend)
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
