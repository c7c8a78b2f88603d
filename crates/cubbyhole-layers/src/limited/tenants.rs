//! The state of each tenant: its rate and its calls in flight.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use cubbyhole_core::{Clock, Error, Result};
use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use hashbrown::HashMap;

use super::Limits;

/// The number of states below which none is dropped.
const MIN_STATES: usize = 1024;

type Limiter = RateLimiter<NotKeyed, InMemoryState, Elapsed, NoOpMiddleware<Nanos>>;

/// The states of all tenants that called recently.
pub(super) struct Tenants {
    limits: Limits,
    quota: Option<Quota>,
    clock: Elapsed,
    states: RwLock<States>,
}

struct States {
    /// By the text form of the tenant.
    tenants: HashMap<Box<str>, Arc<Tenant>>,
    /// The number of states at which unused ones are dropped.
    sweep_at: usize,
}

struct Tenant {
    limiter: Option<Limiter>,
    in_flight: AtomicUsize,
}

/// The right to one call. Its drop ends the call.
#[derive(Default)]
pub(super) struct Permit {
    tenant: Option<Arc<Tenant>>,
    /// Whether the call is one of those in flight.
    is_counted: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(tenant) = self.tenant.as_ref().filter(|_| self.is_counted) {
            tenant.in_flight.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Tenants {
    pub(super) fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let states = States { tenants: HashMap::new(), sweep_at: MIN_STATES };
        Self { limits, quota: limits.quota(), clock: Elapsed(clock), states: RwLock::new(states) }
    }

    /// Admits one call of the tenant of a namespace, given in text form.
    pub(super) fn admit(&self, namespace: &str) -> Result<Permit> {
        if self.quota.is_none() && self.limits.concurrency().is_none() {
            return Ok(Permit::default());
        }
        // Concurrency first: a call that is refused for it uses up no rate.
        let permit = self.start_call(self.tenant(tenant_of(namespace)))?;
        if let Some(limiter) = permit.tenant.as_ref().and_then(|tenant| tenant.limiter.as_ref()) {
            limiter.check().map_err(|not_until| {
                let retry_after = not_until.wait_time_from(self.clock.now());
                Error::rate_limited(self.limits.rate_exceeded(), Some(retry_after))
            })?;
        }
        Ok(permit)
    }

    fn start_call(&self, tenant: Arc<Tenant>) -> Result<Permit> {
        let Some(most) = self.limits.concurrency() else {
            return Ok(Permit { tenant: Some(tenant), is_counted: false });
        };
        let one_more = |calls: usize| (calls < most).then_some(calls + 1);
        match tenant.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more) {
            Ok(_) => Ok(Permit { tenant: Some(tenant), is_counted: true }),
            Err(_) => Err(Error::rate_limited(
                format!("{most} calls of this tenant are in flight, its limit; wait for one"),
                None,
            )),
        }
    }

    fn tenant(&self, name: &str) -> Arc<Tenant> {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = states.tenants.get(name) {
            return Arc::clone(tenant);
        }
        drop(states);
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        if states.tenants.len() >= states.sweep_at {
            self.drop_unused(&mut states);
        }
        let new = || {
            let clock = || self.clock.clone();
            let limiter = self.quota.map(|quota| Limiter::direct_with_clock(quota, clock()));
            Arc::new(Tenant { limiter, in_flight: AtomicUsize::new(0) })
        };
        Arc::clone(states.tenants.entry(name.into()).or_insert_with(new))
    }

    /// Drops the states that equal a new one: no call in flight, and a full burst available.
    fn drop_unused(&self, states: &mut States) {
        // A call holds a second reference.
        let in_use = |tenant: &Arc<Tenant>| Arc::strong_count(tenant) > 1;
        states.tenants.retain(|_, tenant| in_use(tenant) || !self.take_whole_burst(tenant));
        let sweep_at = MIN_STATES.max(states.tenants.len() * 2);
        states.sweep_at = sweep_at;
        states.tenants.shrink_to(sweep_at);
    }

    /// Uses up the burst of a state to be dropped. Returns false, and changes nothing, if a part of it
    /// is already used.
    fn take_whole_burst(&self, tenant: &Tenant) -> bool {
        match (&tenant.limiter, self.quota) {
            (Some(limiter), Some(quota)) => {
                matches!(limiter.check_n(quota.burst_size()), Ok(Ok(())))
            }
            _ => true,
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.states.read().unwrap_or_else(PoisonError::into_inner).tenants.len()
    }
}

impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenants").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Returns the part of a namespace before its first `:` that is not escaped.
fn tenant_of(namespace: &str) -> &str {
    let mut escaped = false;
    for (index, byte) in namespace.bytes().enumerate() {
        match byte {
            b':' if !escaped => return &namespace[..index],
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    namespace
}

/// The monotonic time of a clock, for `governor`.
#[derive(Debug, Clone)]
struct Elapsed(Arc<dyn Clock>);

impl governor::clock::Clock for Elapsed {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        let elapsed = self.0.elapsed();
        // `From<Duration>` panics after 584 years.
        Nanos::new(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use cubbyhole_core::Namespace;

    use super::tenant_of;

    #[test]
    fn tenant_ends_at_the_first_separator_that_is_not_escaped() {
        for name in
            ["a", "a:b:c", r"a\:b", r"a\:b:c", r"a\\:b", r"a\\\:b:c", r"\:", r"a:b\:c", "é:x"]
        {
            let tenant = Namespace::parse(name).unwrap().tenant();
            assert_eq!(tenant_of(name), tenant.as_rendered(), "{name}");
        }
    }
}
