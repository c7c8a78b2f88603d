//! [`TtlRule`]: a default and a maximum TTL.

use std::time::Duration;

use cubbyhole_core::{Error, Expiry, Result, Timestamp};

/// What happens to a write whose TTL is longer than the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TooLong {
    /// The entry gets the maximum TTL.
    #[default]
    Clamp,
    /// The call fails with `InvalidArgument`. The inner store does not see it.
    Refuse,
}

/// A default and a maximum TTL, for use in a [`TtlPolicy`](super::TtlPolicy).
///
/// The default rule limits nothing.
///
/// ```
/// use std::time::Duration;
/// use cubbyhole_layers::{TooLong, TtlRule};
///
/// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
///
/// let rule = TtlRule::new().with_default(DAY).with_max(30 * DAY).with_too_long(TooLong::Refuse);
/// rule.check()?;
///
/// let error = TtlRule::new().with_default(30 * DAY).with_max(DAY).check().unwrap_err();
/// assert!(error.message().contains("default"));
/// # Ok::<(), cubbyhole_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TtlRule {
    default: Option<Duration>,
    max: Option<Duration>,
    too_long: TooLong,
}

impl TtlRule {
    /// Creates a rule without a default and without a maximum.
    #[must_use]
    pub const fn new() -> Self {
        Self { default: None, max: None, too_long: TooLong::Clamp }
    }

    /// Sets the TTL of entries that would never expire.
    #[must_use]
    pub const fn with_default(mut self, ttl: Duration) -> Self {
        self.default = Some(ttl);
        self
    }

    /// Sets the longest TTL. Without a default, an entry that would never expire is too long.
    #[must_use]
    pub const fn with_max(mut self, ttl: Duration) -> Self {
        self.max = Some(ttl);
        self
    }

    /// Sets what happens to a TTL that is longer than the maximum. The default is
    /// [`Clamp`](TooLong::Clamp).
    #[must_use]
    pub const fn with_too_long(mut self, too_long: TooLong) -> Self {
        self.too_long = too_long;
        self
    }

    /// Checks the rule.
    ///
    /// # Errors
    /// `InvalidArgument`: `default` or `max` is zero or exceeds 8,029 years, the range of
    /// [`Timestamp`], or `default` is longer than `max`.
    pub fn check(&self) -> Result<()> {
        for (field, ttl) in [("default", self.default), ("max", self.max)] {
            let Some(ttl) = ttl else { continue };
            Expiry::After(ttl).check().map_err(|error| {
                Error::invalid_argument(format!(
                    "`{field}` of a TTL rule must be more than zero and less than 8,029 years"
                ))
                .with_source(error)
            })?;
        }
        match (self.default, self.max) {
            (Some(default), Some(max)) if default > max => Err(Error::invalid_argument(format!(
                "`default` of a TTL rule is {default:?}, longer than its `max` of {max:?}"
            ))),
            _ => Ok(()),
        }
    }

    /// Returns true if the rule changes no expiry.
    pub(super) const fn is_empty(&self) -> bool {
        self.default.is_none() && self.max.is_none()
    }

    /// Returns true if [`apply`](Self::apply) needs the backend's time for this expiry.
    pub(super) const fn needs_time(&self, expiry: Expiry) -> bool {
        self.max.is_some() && matches!(expiry, Expiry::At(_) | Expiry::IdleUntil { .. })
    }

    /// Returns the latest instant of expiry for a write at `now`, or `None` without a maximum.
    pub(super) fn latest(&self, now: Timestamp) -> Option<Timestamp> {
        self.max.map(|max| now.checked_add(max).unwrap_or(Timestamp::MAX))
    }

    /// Returns the expiry that the write gets.
    ///
    /// `latest` limits instants. It is needed only if [`needs_time`](Self::needs_time).
    pub(super) fn apply(&self, expiry: Expiry, latest: Option<Timestamp>) -> Result<Expiry> {
        match expiry {
            Expiry::Never => self.never(),
            Expiry::After(ttl) => self.ttl(ttl).map(Expiry::After),
            Expiry::Idle(ttl) => self.ttl(ttl).map(Expiry::Idle),
            Expiry::At(instant) => self.instant(instant, latest).map(Expiry::At),
            Expiry::IdleUntil { ttl, expires_at } => Ok(Expiry::IdleUntil {
                ttl: self.ttl(ttl)?,
                expires_at: self.instant(expires_at, latest)?,
            }),
        }
    }

    fn never(&self) -> Result<Expiry> {
        match (self.default, self.max, self.too_long) {
            (Some(ttl), ..) | (None, Some(ttl), TooLong::Clamp) => Ok(Expiry::After(ttl)),
            (None, Some(max), TooLong::Refuse) => Err(Error::invalid_argument(format!(
                "the entry would never expire, and the maximum TTL here is {max:?}; give it a TTL"
            ))),
            (None, None, _) => Ok(Expiry::Never),
        }
    }

    /// Returns the TTL that the entry gets. An invalid TTL stays: the inner store refuses it.
    pub(super) fn ttl(&self, ttl: Duration) -> Result<Duration> {
        let Some(max) = self.max.filter(|max| ttl > *max) else { return Ok(ttl) };
        if Expiry::After(ttl).check().is_err() {
            return Ok(ttl);
        }
        match self.too_long {
            TooLong::Clamp => Ok(max),
            TooLong::Refuse => Err(Error::invalid_argument(format!(
                "the TTL of {:?} is longer than the maximum of {max:?} here; shorten it",
                rounded_up(ttl)
            ))),
        }
    }

    fn instant(&self, instant: Timestamp, latest: Option<Timestamp>) -> Result<Timestamp> {
        match (latest, self.too_long) {
            (Some(latest), TooLong::Clamp) => Ok(instant.min(latest)),
            (Some(latest), TooLong::Refuse) if instant > latest => {
                let max = self.max.unwrap_or_default();
                let ttl = max.saturating_add(instant.saturating_since(latest));
                Err(Error::invalid_argument(format!(
                    "the entry would expire in {ttl:?}, later than the maximum TTL of {max:?} \
                     here allows; choose an earlier instant"
                )))
            }
            _ => Ok(instant),
        }
    }
}

/// Rounds up to whole milliseconds, as stores do.
fn rounded_up(ttl: Duration) -> Duration {
    let part = ttl.subsec_nanos() % 1_000_000;
    let rest = if part == 0 { 0 } else { 1_000_000 - part };
    ttl.saturating_add(Duration::from_nanos(u64::from(rest)))
}
