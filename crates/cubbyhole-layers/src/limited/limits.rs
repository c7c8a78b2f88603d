//! [`Limits`]: the limits for each tenant.

use std::num::NonZeroU32;

use cubbyhole_core::{Error, Result};
use governor::Quota;

/// Limits for each tenant, for use in a [`Limited`](super::Limited). The default refuses nothing.
///
/// ```
/// use cubbyhole_layers::Limits;
///
/// let limits = Limits::new()
///     .with_value_bytes(64 * 1024)
///     .with_rate(100, Some(200))
///     .with_concurrency(8);
/// limits.check()?;
///
/// assert!(Limits::new().with_concurrency(0).check().is_err());
/// # Ok::<(), cubbyhole_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Limits {
    pub(super) value_bytes: Option<usize>,
    rate: Option<Rate>,
    concurrency: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Rate {
    per_second: u32,
    burst: Option<u32>,
}

impl Limits {
    /// Creates limits that refuse nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { value_bytes: None, rate: None, concurrency: None }
    }

    /// Sets the largest size of a value in bytes.
    #[must_use]
    pub const fn with_value_bytes(mut self, bytes: usize) -> Self {
        self.value_bytes = Some(bytes);
        self
    }

    /// Sets the number of calls per second, and how many calls may come in one burst after a pause.
    /// Without `burst`, a burst has `per_second` calls.
    #[must_use]
    pub const fn with_rate(mut self, per_second: u32, burst: Option<u32>) -> Self {
        self.rate = Some(Rate { per_second, burst });
        self
    }

    /// Sets the number of calls in flight.
    #[must_use]
    pub const fn with_concurrency(mut self, calls: usize) -> Self {
        self.concurrency = Some(calls);
        self
    }

    /// Checks the limits.
    ///
    /// # Errors
    /// `InvalidArgument` that names the limit that is zero.
    pub fn check(&self) -> Result<()> {
        let zero = |name| {
            Err(Error::invalid_argument(format!(
                "the limit `{name}` is zero; omit it for no limit"
            )))
        };
        if self.value_bytes == Some(0) {
            return zero("value_bytes");
        }
        if self.concurrency == Some(0) {
            return zero("concurrency");
        }
        match self.rate {
            Some(Rate { per_second: 0, .. }) => zero("rate"),
            Some(Rate { burst: Some(0), .. }) => zero("burst"),
            _ => Ok(()),
        }
    }

    /// Returns the rate. `None` without a limit, or if it is zero, which [`check`](Self::check) refuses.
    pub(super) fn quota(&self) -> Option<Quota> {
        let Rate { per_second, burst } = self.rate?;
        let per_second = NonZeroU32::new(per_second)?;
        let burst = burst.map_or(Some(per_second), NonZeroU32::new)?;
        Some(Quota::per_second(per_second).allow_burst(burst))
    }

    pub(super) const fn concurrency(&self) -> Option<usize> {
        self.concurrency
    }

    /// Returns the error of a call that comes too early.
    pub(super) fn rate_exceeded(&self) -> String {
        match self.rate {
            Some(Rate { per_second, burst }) => format!(
                "more than {per_second} calls a second for this tenant (burst {}); repeat the call \
                 later",
                burst.unwrap_or(per_second)
            ),
            None => String::new(),
        }
    }
}
