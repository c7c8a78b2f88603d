//! [`Layers`]: composes the layers in their fixed order.

#[cfg(feature = "encryption")]
mod encryption;

#[cfg(any(feature = "cache", feature = "limits", feature = "encryption"))]
use cubbyhole_core::Clock;
use std::sync::Arc;

use cubbyhole_core::{Backend, NamespacePrefix, ReadOnly, Result};

#[cfg(feature = "compression")]
use crate::Compressed;
#[cfg(feature = "cache")]
use crate::{CacheOptions, Cached};
#[cfg(feature = "limits")]
use crate::{Limited, Limits};
use crate::{Retry, RetryOptions, Scoped, Timeout, Timeouts, TtlPolicy, TtlRule};
#[cfg(feature = "encryption")]
pub use encryption::Encryption;

/// The layers around a backend, composed in one fixed order.
///
/// The order of the calls of methods does not matter. The order of the layers is this one, from the
/// program to the backend:
///
/// | layer | why here |
/// |---|---|
/// | [`Scoped`] | first: no other layer sees a name outside the scope |
/// | [`ReadOnly`] | a refused write costs nothing and uses up no limit |
/// | [`Limited`](crate::Limited) | counts the calls of the program, not retries and not the reads of other layers |
/// | [`TtlPolicy`] | above the cache: a cached entry has the expiry that the policy gave it |
/// | [`Cached`](crate::Cached) | above timeouts and retries, which a hit does not need; holds plain values: a hit decrypts nothing |
/// | [`Timeout`] | limits all attempts of a call together |
/// | [`Retry`] | repeats what reaches the backend, with the same values |
/// | [`Compressed`](crate::Compressed) | above encryption, because encrypted values do not compress |
/// | [`Encrypted`](crate::Encrypted) | last: the backend stores only encrypted values |
///
/// The layers are public, so a program can compose them in another order. It can then lose a promise: a
/// cache outside the scope answers for names that the scope refuses, and a timeout inside the retries
/// limits each attempt but not the call.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use cubbyhole_core::{Bytes, EntryStore, ExecutionContext, GetOptions, Namespace, Store};
/// use cubbyhole_layers::{Layers, RetryOptions, Timeouts, TtlRule};
/// use cubbyhole_memory::InMemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole_core::Result<()> {
/// let layers = Layers::new()
///     .with_retry(RetryOptions::new())
///     .with_timeouts(Timeouts::new().with_read(Duration::from_secs(1)))
///     .with_ttl_rule(TtlRule::new().with_default(Duration::from_secs(3600)));
/// let store = layers.around(Arc::new(InMemoryStore::<Bytes>::new()))?;
///
/// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7")?);
/// store.put(&ctx, &ns, "greeting", "hello".into()).await?;
/// let entry = store.get_entry(&ctx, &ns, "greeting", GetOptions::new()).await?;
/// assert!(entry.is_some_and(|entry| entry.meta.expires_at.is_some()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Layers {
    scope: Option<Scope>,
    read_only: bool,
    #[cfg(feature = "limits")]
    limits: Option<Limits>,
    ttl_rule: Option<TtlRule>,
    ttl_rules_by_prefix: Vec<(NamespacePrefix, TtlRule)>,
    #[cfg(feature = "cache")]
    cache: Option<CacheOptions>,
    timeouts: Option<Timeouts>,
    retry: Option<RetryOptions>,
    #[cfg(feature = "compression")]
    compression: Option<i32>,
    #[cfg(feature = "encryption")]
    encryption: Option<Encryption>,
    #[cfg(any(feature = "cache", feature = "limits", feature = "encryption"))]
    clock: Option<Arc<dyn Clock>>,
}

#[derive(Debug, Clone)]
struct Scope {
    prefix: NamespacePrefix,
    is_relative: bool,
}

impl Layers {
    /// Creates a stack without layers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds [`Scoped::within`]: names are absolute and must lie under `scope`.
    #[must_use]
    pub fn with_scope(mut self, scope: NamespacePrefix) -> Self {
        self.scope = Some(Scope { prefix: scope, is_relative: false });
        self
    }

    /// Adds [`Scoped::relative`]: names are relative to `scope`.
    #[must_use]
    pub fn with_relative_scope(mut self, scope: NamespacePrefix) -> Self {
        self.scope = Some(Scope { prefix: scope, is_relative: true });
        self
    }

    /// Sets whether the stack has the layer [`ReadOnly`].
    #[must_use]
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Adds [`Limited`].
    #[cfg(feature = "limits")]
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Adds [`TtlPolicy`] with this rule for all namespaces.
    #[must_use]
    pub fn with_ttl_rule(mut self, rule: TtlRule) -> Self {
        self.ttl_rule = Some(rule);
        self
    }

    /// Adds [`TtlPolicy`] with this rule for the namespaces under `prefix`. The longest prefix wins.
    #[must_use]
    pub fn with_ttl_rule_for(mut self, prefix: NamespacePrefix, rule: TtlRule) -> Self {
        self.ttl_rules_by_prefix.push((prefix, rule));
        self
    }

    /// Adds [`Cached`].
    #[cfg(feature = "cache")]
    #[must_use]
    pub fn with_cache(mut self, options: CacheOptions) -> Self {
        self.cache = Some(options);
        self
    }

    /// Adds [`Timeout`].
    #[must_use]
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = Some(timeouts);
        self
    }

    /// Adds [`Retry`].
    #[must_use]
    pub fn with_retry(mut self, options: RetryOptions) -> Self {
        self.retry = Some(options);
        self
    }

    /// Adds [`Compressed`] with this level of zstd, 1 to 19.
    #[cfg(feature = "compression")]
    #[must_use]
    pub fn with_compression(mut self, level: i32) -> Self {
        self.compression = Some(level);
        self
    }

    /// Adds [`Encrypted`](crate::Encrypted).
    #[cfg(feature = "encryption")]
    #[must_use]
    pub fn with_encryption(mut self, encryption: Encryption) -> Self {
        self.encryption = Some(encryption);
        self
    }

    /// Sets the clock of the layers that measure time, for tests. The default is the system's clock.
    #[cfg(any(feature = "cache", feature = "limits", feature = "encryption"))]
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Returns whether the stack has the layer [`ReadOnly`].
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Returns the encryption of the stack, for the operations on keys.
    #[cfg(feature = "encryption")]
    #[must_use]
    pub const fn encryption(&self) -> Option<&Encryption> {
        self.encryption.as_ref()
    }

    /// Returns true if the stack has no layer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names().is_empty()
    }

    /// Returns the names of the layers in their order, as the configuration file has them.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        let mut add = |has: bool, name| {
            if has {
                names.push(name);
            }
        };
        add(self.scope.is_some(), "scope");
        add(self.read_only, "read_only");
        #[cfg(feature = "limits")]
        add(self.limits.is_some(), "limit");
        add(self.has_ttl_rules(), "ttl");
        #[cfg(feature = "cache")]
        add(self.cache.is_some(), "cache");
        add(self.timeouts.is_some(), "timeout");
        add(self.retry.is_some(), "retry");
        #[cfg(feature = "compression")]
        add(self.compression.is_some(), "compression");
        #[cfg(feature = "encryption")]
        add(self.encryption.is_some(), "encryption");
        names
    }

    /// Returns the scope of the layer [`Scoped`].
    #[must_use]
    pub fn scope(&self) -> Option<&NamespacePrefix> {
        self.scope.as_ref().map(|scope| &scope.prefix)
    }

    /// Checks the options of every layer. Nothing is opened.
    ///
    /// # Errors
    /// `InvalidArgument` for a wrong option. The message names the layer and the option.
    pub fn check(&self) -> Result<()> {
        #[cfg(feature = "limits")]
        if let Some(limits) = &self.limits {
            named("limit", limits.check())?;
        }
        for rule in
            self.ttl_rule.iter().chain(self.ttl_rules_by_prefix.iter().map(|(_, rule)| rule))
        {
            named("ttl", rule.check())?;
        }
        #[cfg(feature = "cache")]
        if let Some(options) = &self.cache {
            named("cache", options.check())?;
        }
        if let Some(timeouts) = &self.timeouts {
            named("timeout", timeouts.check())?;
        }
        if let Some(options) = &self.retry {
            named("retry", options.check())?;
        }
        #[cfg(feature = "compression")]
        if let Some(level) = self.compression {
            named("compression", crate::compressed::check_level(level))?;
        }
        Ok(())
    }

    /// Wraps `backend` in the layers. `cubbyhole::OpenOptions` also adds telemetry around them.
    ///
    /// # Errors
    /// The errors of [`check`](Self::check).
    pub fn around(&self, backend: Arc<dyn Backend>) -> Result<Arc<dyn Backend>> {
        self.check()?;
        let mut store = backend;
        #[cfg(feature = "encryption")]
        if let Some(encryption) = &self.encryption {
            let mut encrypted = encryption.around(store);
            if let Some(clock) = &self.clock {
                encrypted = encrypted.with_clock(Arc::clone(clock));
            }
            store = Arc::new(encrypted);
        }
        #[cfg(feature = "compression")]
        if let Some(level) = self.compression {
            store = Arc::new(Compressed::new(store).with_level(level)?);
        }
        if let Some(options) = &self.retry {
            store = Arc::new(Retry::new(store, *options)?);
        }
        if let Some(timeouts) = &self.timeouts {
            store = Arc::new(Timeout::new(store, *timeouts)?);
        }
        #[cfg(feature = "cache")]
        if let Some(options) = &self.cache {
            let mut options = options.clone();
            if let Some(clock) = &self.clock {
                options = options.with_clock(Arc::clone(clock));
            }
            store = Arc::new(Cached::new(store, options)?);
        }
        if self.has_ttl_rules() {
            store = Arc::new(self.ttl_policy(store)?);
        }
        #[cfg(feature = "limits")]
        if let Some(limits) = self.limits {
            store = Arc::new(match &self.clock {
                Some(clock) => Limited::with_clock(store, limits, Arc::clone(clock))?,
                None => Limited::new(store, limits)?,
            });
        }
        if self.read_only {
            store = Arc::new(ReadOnly::new(store));
        }
        if let Some(Scope { prefix, is_relative }) = &self.scope {
            store = Arc::new(match is_relative {
                true => Scoped::relative(store, prefix.clone()),
                false => Scoped::within(store, prefix.clone()),
            });
        }
        Ok(store)
    }

    fn has_ttl_rules(&self) -> bool {
        self.ttl_rule.is_some() || !self.ttl_rules_by_prefix.is_empty()
    }

    fn ttl_policy(&self, store: Arc<dyn Backend>) -> Result<TtlPolicy<Arc<dyn Backend>>> {
        let mut policy = TtlPolicy::new(store, self.ttl_rule.unwrap_or_default())?;
        for (prefix, rule) in &self.ttl_rules_by_prefix {
            policy = policy.with_rule(prefix.clone(), *rule)?;
        }
        Ok(policy)
    }
}

/// Names the layer in the error of its options.
fn named<T>(layer: &str, made: Result<T>) -> Result<T> {
    made.map_err(|error| {
        let message = format!("layer `{layer}`: {}", error.message());
        error.with_message(message)
    })
}
