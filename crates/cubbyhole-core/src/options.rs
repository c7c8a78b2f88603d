//! Options of one read or write.

use std::time::Duration;

use crate::{Error, Result, Timestamp, Version};

/// From when on an entry is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Expiry {
    /// It stays until it is deleted.
    #[default]
    Never,
    /// That long after the write, by the backend's clock. More than zero; a fraction of a
    /// millisecond rounds up.
    After(Duration),
    /// At that instant, by the backend's clock. An instant that has passed is accepted: the entry
    /// is absent at once.
    At(Timestamp),
}

impl Expiry {
    /// Refuses a TTL of zero, and one that no instant can hold, whatever the time is.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub fn check(self) -> Result<()> {
        self.resolve(Timestamp::EPOCH).map(drop)
    }

    /// The instant of expiry for a write at `now`.
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

/// Per-write options. The default is no expiry and a version that the store draws.
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
    /// No expiry, and a version that the store draws.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Expires that long after the write. In place of an expiry set before.
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        self.with_expiry(Expiry::After(ttl))
    }

    /// Expires at that instant, by the backend's clock. In place of an expiry set before.
    #[must_use]
    pub fn with_expires_at(self, instant: Timestamp) -> Self {
        self.with_expiry(Expiry::At(instant))
    }

    /// Sets the expiry in any form, in place of one set before.
    #[must_use]
    pub fn with_expiry(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// Writes under a version that you drew with [`Version::draw`]. After a write whose outcome is
    /// unknown, an entry at this version tells that it was applied. Use a version once.
    #[must_use]
    pub fn with_version(mut self, version: Version) -> Self {
        self.version = Some(version);
        self
    }

    /// When the entry expires.
    #[must_use]
    pub const fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// The version that the caller drew, if any.
    #[must_use]
    pub const fn version(&self) -> Option<Version> {
        self.version
    }

    /// The caller's version, or a new one.
    #[must_use]
    pub fn version_or_draw(&self) -> Version {
        self.version.unwrap_or_else(Version::draw)
    }

    /// The TTL, for a store that knows no other option: whatever else is set, also options that
    /// come later, is refused, so that nothing is ever ignored in silence.
    ///
    /// # Errors
    /// `Unsupported` for any other option; `InvalidArgument` for a TTL that no store takes.
    pub fn ttl_only(&self) -> Result<Option<Duration>> {
        // Every field is named here: a new one does not compile until it is refused.
        let Self { expiry, version } = *self;
        if version.is_some() {
            return Err(Error::unsupported("this store takes no version for a write"));
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
    /// A plain read.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sliding expiry: in the same step, an entry that expires is made to expire no earlier than
    /// `ttl` from now. One that never expires, or that expires later still, is left as it is.
    #[must_use]
    pub fn with_extended_ttl(mut self, ttl: Duration) -> Self {
        self.extend_ttl = Some(ttl);
        self
    }

    /// The TTL to extend to, if any.
    #[must_use]
    pub const fn extended_ttl(&self) -> Option<Duration> {
        self.extend_ttl
    }

    /// The expiry that an entry gets by this read at `now`, or `None` if it keeps its own.
    ///
    /// # Errors
    /// `InvalidArgument` for a TTL that no store takes.
    pub fn extend(&self, now: Timestamp, current: Option<Timestamp>) -> Result<Option<Timestamp>> {
        let Some(ttl) = self.extend_ttl else {
            return Ok(None);
        };
        let extended = Expiry::After(ttl).resolve(now)?;
        Ok(extended.filter(|instant| current.is_some_and(|current| current < *instant)))
    }
}
