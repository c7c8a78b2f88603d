//! Options of a read or a write.

use std::time::Duration;

use crate::{EntryMeta, Error, Result, Timestamp, Version};

/// The time at which an entry expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Expiry {
    /// The entry does not expire.
    #[default]
    Never,
    /// This long after the write, by the backend's clock. Must be more than zero. A fraction of a
    /// millisecond rounds up.
    After(Duration),
    /// At this instant, by the backend's clock. An instant in the past is accepted: the entry is then
    /// absent immediately.
    At(Timestamp),
    /// This long after the last write or [refreshing read](GetOptions::refreshing), by the backend's
    /// clock. The TTL is stored with the entry, so a reader need not know it. The limits of
    /// [`After`](Self::After) apply.
    Idle(Duration),
    /// As [`Idle`](Self::Idle), with the first instant of expiry given. It restores a copy of an entry
    /// with its [`idle_ttl`](EntryMeta::idle_ttl) and [`expires_at`](EntryMeta::expires_at).
    IdleUntil {
        /// The idle TTL.
        ttl: Duration,
        /// The instant of expiry unless a refreshing read comes first.
        expires_at: Timestamp,
    },
}

impl Expiry {
    /// Returns the expiry that an entry with this metadata has, for a copy of the entry.
    ///
    /// ```
    /// use std::time::Duration;
    /// use cubbyhole::{EntryStore, ExecutionContext, Expiry, GetOptions, InMemoryStore, Namespace};
    /// use cubbyhole::{PutOptions, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let (from, to) = (Namespace::parse("acme:a")?, Namespace::parse("acme:b")?);
    /// let options = PutOptions::new().with_idle_ttl(Duration::from_secs(60));
    /// store.put_with_options(&ctx, &from, "n", 7, options).await?;
    ///
    /// let entry = store.get_entry(&ctx, &from, "n", GetOptions::new()).await?.unwrap();
    /// let options = PutOptions::new().with_expiry(Expiry::of(&entry.meta));
    /// store.put_with_options(&ctx, &to, "n", entry.value, options).await?;
    /// let copy = store.get_entry(&ctx, &to, "n", GetOptions::new()).await?.unwrap();
    /// assert_eq!(copy.meta.idle_ttl, entry.meta.idle_ttl);
    /// assert_eq!(copy.meta.expires_at, entry.meta.expires_at);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn of(meta: &EntryMeta) -> Self {
        match (meta.expires_at, meta.idle_ttl) {
            (None, _) => Self::Never,
            (Some(expires_at), None) => Self::At(expires_at),
            (Some(expires_at), Some(ttl)) => Self::IdleUntil { ttl, expires_at },
        }
    }

    /// Checks the TTL without knowing the time of the write.
    ///
    /// # Errors
    /// `InvalidArgument` for a TTL of zero, or one that overflows at any time of the write.
    pub fn check(self) -> Result<()> {
        self.resolve(Timestamp::EPOCH).map(drop)
    }

    /// Returns the instant of expiry for a write at `now`.
    ///
    /// # Errors
    /// `InvalidArgument` for a TTL of zero, or one that ends past the year 9999.
    pub fn resolve(self, now: Timestamp) -> Result<Option<Timestamp>> {
        match self {
            Self::Never => Ok(None),
            Self::At(instant) => Ok(Some(instant)),
            Self::After(ttl) => expires_after("TTL", ttl, now).map(Some),
            Self::Idle(ttl) => expires_after("idle TTL", ttl, now).map(Some),
            Self::IdleUntil { ttl, expires_at } => {
                expires_after("idle TTL", ttl, Timestamp::EPOCH).map(|_| Some(expires_at))
            }
        }
    }

    /// Returns the idle TTL that a store keeps with the entry, rounded up to whole milliseconds.
    #[must_use]
    pub fn idle_ttl(self) -> Option<Duration> {
        match self {
            Self::Never | Self::After(_) | Self::At(_) => None,
            Self::Idle(ttl) | Self::IdleUntil { ttl, .. } => Some(whole_millis(ttl)),
        }
    }
}

/// The instant `ttl` after `now`, for a valid TTL.
fn expires_after(name: &str, ttl: Duration, now: Timestamp) -> Result<Timestamp> {
    if ttl.is_zero() {
        return Err(Error::invalid_argument(format!(
            "the {name} must be more than zero; leave it out for an entry that never expires"
        )));
    }
    now.checked_add(ttl).map_err(|_| {
        Error::invalid_argument(format!(
            "the {name} ends past the year 9999; leave it out for an entry that never expires"
        ))
    })
}

/// Rounds up to whole milliseconds, the unit of all stored times.
fn whole_millis(ttl: Duration) -> Duration {
    let millis = ttl.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// Options of one write. By default the entry does not expire, and the store draws the version.
///
/// ```
/// use std::time::Duration;
/// use cubbyhole::PutOptions;
///
/// let options = PutOptions::new().with_ttl(Duration::from_secs(3600));
/// assert_eq!(options.ttl_only()?, Some(Duration::from_secs(3600)));
/// # Ok::<(), cubbyhole::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PutOptions {
    expiry: Expiry,
    version: Option<Version>,
}

impl PutOptions {
    /// Creates the default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the TTL: the entry expires this long after the write. Replaces any other expiry.
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        self.with_expiry(Expiry::After(ttl))
    }

    /// Sets the idle TTL: the entry expires this long after its last write or
    /// [refreshing read](GetOptions::refreshing). Replaces any other expiry.
    #[must_use]
    pub fn with_idle_ttl(self, ttl: Duration) -> Self {
        self.with_expiry(Expiry::Idle(ttl))
    }

    /// Sets the instant of expiry, by the backend's clock. Replaces any other expiry.
    #[must_use]
    pub fn with_expires_at(self, instant: Timestamp) -> Self {
        self.with_expiry(Expiry::At(instant))
    }

    /// Sets the expiry. Replaces any other expiry.
    #[must_use]
    pub fn with_expiry(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// Sets the version of the write, drawn with [`Version::draw`].
    ///
    /// After a write of unknown outcome, read the entry: if it has this version, the write was
    /// applied. Use each version for one write only.
    #[must_use]
    pub fn with_version(mut self, version: Version) -> Self {
        self.version = Some(version);
        self
    }

    /// Returns the expiry.
    #[must_use]
    pub const fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// Returns the version that the caller set.
    #[must_use]
    pub const fn version(&self) -> Option<Version> {
        self.version
    }

    /// Returns the version that the caller set, or draws a new one.
    #[must_use]
    pub fn version_or_draw(&self) -> Version {
        self.version.unwrap_or_else(Version::draw)
    }

    /// Returns the TTL, for a store that supports no other option.
    ///
    /// Any other option is refused, including options that later versions add. No option is ignored
    /// silently.
    ///
    /// # Errors
    /// `Unsupported` if another option is set; `InvalidArgument` for an invalid TTL.
    pub fn ttl_only(&self) -> Result<Option<Duration>> {
        // Names every field, so a new field does not compile until it is handled here.
        let Self { expiry, version } = *self;
        if version.is_some() {
            return Err(Error::unsupported(
                "this store does not support a caller-supplied version; omit `with_version`",
            ));
        }
        expiry.check()?;
        match expiry {
            Expiry::Never => Ok(None),
            Expiry::After(ttl) => Ok(Some(ttl)),
            Expiry::At(_) => {
                Err(Error::unsupported("this store takes a TTL and no instant of expiry"))
            }
            Expiry::Idle(_) | Expiry::IdleUntil { .. } => {
                Err(Error::unsupported("this store does not support an idle TTL"))
            }
        }
    }
}

/// Options of [`EntryStore::get_entry`](crate::EntryStore::get_entry) and
/// [`EntryStore::get_many`](crate::EntryStore::get_many).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GetOptions {
    extend_ttl: Option<Duration>,
    refresh: bool,
    fresh: bool,
}

impl GetOptions {
    /// Creates the default options: a plain read.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Restarts the idle TTL of the entry, atomically with the read.
    ///
    /// Only entries with an [idle TTL](Expiry::Idle) are extended. The read changes neither the
    /// version nor `updated_at`. It writes nothing while less than a tenth of the TTL has passed since
    /// the last write or refresh. The entry therefore expires between 0.9 and 1.0 TTL after its last
    /// refreshing read.
    ///
    /// ```
    /// use std::time::Duration;
    /// use cubbyhole::{EntryStore, ExecutionContext, GetOptions, InMemoryStore, Namespace, PutOptions};
    /// use cubbyhole::Store;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let ctx = ExecutionContext::new();
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:sessions")?;
    /// let half_hour = Duration::from_secs(1800);
    /// store.put_with_options(&ctx, &ns, "s-1", 7, PutOptions::new().with_idle_ttl(half_hour)).await?;
    ///
    /// // The reader need not know the half hour.
    /// let session = store.get_entry(&ctx, &ns, "s-1", GetOptions::new().refreshing()).await?;
    /// assert_eq!(session.unwrap().meta.idle_ttl, Some(half_hour));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn refreshing(mut self) -> Self {
        self.refresh = true;
        self
    }

    /// Extends the TTL of the entry atomically with the read (sliding expiry).
    ///
    /// The entry then expires no earlier than `ttl` from now. An entry that expires later, or never,
    /// is unchanged.
    #[must_use]
    pub fn with_extended_ttl(mut self, ttl: Duration) -> Self {
        self.extend_ttl = Some(ttl);
        self
    }

    /// Reads from the backend, past every cache between the caller and it.
    ///
    /// A store without a cache ignores the option. [`update`](crate::EntryStoreExt::update) and
    /// [`Typed`](crate::Typed) use it where a stale entry would cost a failed write.
    ///
    /// ```
    /// use cubbyhole::{EntryStore, ExecutionContext, GetOptions, InMemoryStore, Namespace};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole::Result<()> {
    /// let store = InMemoryStore::<u32>::new();
    /// let ns = Namespace::parse("acme:agent-7")?;
    /// let options = GetOptions::new().fresh();
    /// assert!(options.is_fresh());
    /// assert_eq!(store.get_entry(&ExecutionContext::new(), &ns, "n", options).await?, None);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// Returns whether the read must not be answered from a cache.
    #[must_use]
    pub const fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Returns the TTL to extend to.
    #[must_use]
    pub const fn extended_ttl(&self) -> Option<Duration> {
        self.extend_ttl
    }

    /// Returns whether the read restarts idle TTLs.
    #[must_use]
    pub const fn is_refreshing(&self) -> bool {
        self.refresh
    }

    /// Returns whether the read can change an expiry, and so is a write.
    #[must_use]
    pub const fn may_write(&self) -> bool {
        self.refresh || self.extend_ttl.is_some()
    }

    /// Checks the TTL without knowing the time of the read. Every store calls this before any work.
    ///
    /// # Errors
    /// `InvalidArgument` for an invalid TTL.
    pub fn check(&self) -> Result<()> {
        self.extend_ttl.map_or(Ok(()), |ttl| Expiry::After(ttl).check())
    }

    /// Returns the new expiry of an entry that is read at `now`, or `None` if its expiry does not
    /// change.
    ///
    /// # Errors
    /// `InvalidArgument` for an invalid TTL.
    pub fn extend(&self, now: Timestamp, meta: &EntryMeta) -> Result<Option<Timestamp>> {
        let extended = match self.extend_ttl {
            Some(ttl) => Expiry::After(ttl).resolve(now)?,
            None => None,
        };
        let extended = extended.filter(|instant| meta.expires_at.is_some_and(|at| at < *instant));
        let refreshed = if self.refresh { meta.refreshed(now) } else { None };
        Ok(extended.max(refreshed))
    }
}
