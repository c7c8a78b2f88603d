//! Options of a read or a write.

use std::time::Duration;

use crate::{Error, Result, Timestamp, Version};

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
}

impl Expiry {
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
            Self::After(Duration::ZERO) => Err(Error::invalid_argument(
                "a TTL must be more than zero; leave it out for an entry that never expires",
            )),
            Self::After(ttl) => now.checked_add(ttl).map(Some).map_err(|_| {
                Error::invalid_argument(
                    "the TTL ends past the year 9999; leave it out for an entry that never expires",
                )
            }),
        }
    }
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
        }
    }
}

/// Options of [`EntryStore::get_entry`](crate::EntryStore::get_entry).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GetOptions {
    extend_ttl: Option<Duration>,
}

impl GetOptions {
    /// Creates the default options: a plain read.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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

    /// Returns the TTL to extend to.
    #[must_use]
    pub const fn extended_ttl(&self) -> Option<Duration> {
        self.extend_ttl
    }

    /// Returns the new expiry of an entry that is read at `now`, or `None` if its expiry does not
    /// change.
    ///
    /// # Errors
    /// `InvalidArgument` for an invalid TTL.
    pub fn extend(&self, now: Timestamp, current: Option<Timestamp>) -> Result<Option<Timestamp>> {
        let Some(ttl) = self.extend_ttl else {
            return Ok(None);
        };
        let extended = Expiry::After(ttl).resolve(now)?;
        Ok(extended.filter(|instant| current.is_some_and(|current| current < *instant)))
    }
}
