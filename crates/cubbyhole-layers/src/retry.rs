//! [`Retry`]: a layer that repeats failed calls where that is safe.

mod attempts;
mod budget;
mod options;
mod settle;
mod store;

use std::future::Future;
use std::sync::Arc;

use cubbyhole_core::{
    EntryStat, EntryStore, Error, ErrorKind, ExecutionContext, Namespace, Result,
};

pub use options::RetryOptions;

use attempts::Attempts;
use budget::Budget;
use settle::{Finding, Recognise};

/// A layer that repeats failed calls where that is safe, and settles unknown outcomes.
///
/// A write of the layer is applied at most once. It needs a store that accepts the versions that a
/// caller draws, as every store of this project does. Clones share one budget.
///
/// # Rules
///
/// | call | outcome | what happens | reason |
/// |---|---|---|---|
/// | any | [retryable](Error::is_retryable) | is repeated after a pause | it certainly had no effect |
/// | any | any other certain error | is returned | repeating it fails again, or needs a decision of the caller |
/// | any | `Cancelled`, `DeadlineExceeded` | is returned | the caller no longer waits |
/// | any write | unknown, with a kind other than `Unavailable`, or [permanent](Error::is_permanent) | the unknown outcome is returned | after a failed disk or missing replicas, an entry that is visible is not necessarily kept |
/// | any put | unknown, and the entry has the version of the put | succeeds | no other write has this version |
/// | put `IfVersion(v)` | unknown, and the entry is still at `v` | is repeated with the same version | the condition prevents that two attempts are applied |
/// | put `IfVersion(v)` | `Conflict` of a repeated put, and the entry has the version of the put | succeeds | an earlier attempt was applied late |
/// | put with any other condition | unknown, and the entry has another version or is absent | the unknown outcome is returned | the put may have been applied and replaced; a second application would undo the later write |
/// | `delete_entry` `IfVersion(v)` | unknown, and the entry is still at `v` | is repeated | the condition prevents that a later entry is deleted |
/// | `write` | unknown, and a put entry has its new version | succeeds if every answer is certain | batches are atomic. A batch with an unconditional delete stays unknown, because nothing shows whether the delete found an entry |
/// | `write` | unknown, and the entry of an `IfVersion(v)` is still at `v` | is repeated with the same versions | the condition holds for the whole batch |
/// | `delete`, other `delete_entry`, `take`, `touch`, reads that extend a TTL, `delete_prefix`, `erase`, `evict_expired` | unknown | the unknown outcome is returned | no version shows whether it was applied, and a repeat could hit a later entry |
/// | any | fails after an attempt of unknown outcome | the unknown outcome is returned, unless a read settles it | the earlier attempt may have been applied, or may be later |
/// | `close`, `compact` | any | is returned | the layer does not repeat them |
///
/// To recognise its writes, the layer draws the version of each put before the first attempt, unless
/// the caller [set it](cubbyhole_core::PutOptions::with_version). A put that keeps the version of the
/// entry, with `IfVersion(v)` and the version `v`, cannot be recognised. Its unknown outcome is returned.
/// Versions are read with `stat`, in the caller's context. If this read fails, the unknown outcome
/// is returned.
///
/// A settled write was applied, but on Redis it is not known whether replicas confirmed it. If a
/// connection ends while a write waits for replicas, the layer reports success once the master has it.
///
/// The returned error is the last one, or the first one of unknown outcome. It is unchanged.
///
/// # Pauses
///
/// Pauses grow exponentially and have full jitter: see [`RetryOptions`]. A pause is at least as long as
/// the [`retry_after`](Error::retry_after) of the error. If the deadline of the context is earlier than
/// the end of the pause, the layer returns the error immediately. Without a deadline, the number of
/// attempts limits the call. A runtime without timers gets no retries.
///
/// # Budget
///
/// Retries are limited to a share of all calls, 20 % by default, plus a small reserve. Reads that
/// settle an outcome count as retries. Without this limit, an outage multiplies the load of the server
/// by the number of attempts, and the server cannot recover from it (a retry storm). Finagle calls
/// this a retry budget. The chapter "Handling Overload" of Google's book *Site Reliability Engineering*
/// describes it, too.
///
/// Use one layer of retries only. Two nested layers multiply their attempts.
///
/// ```
/// use cubbyhole_core::{ExecutionContext, Namespace, Store};
/// use cubbyhole_layers::{Retry, RetryOptions};
/// use cubbyhole_memory::InMemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole_core::Result<()> {
/// let store = Retry::new(InMemoryStore::<u32>::new(), RetryOptions::new())?;
/// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:counters")?);
/// store.put(&ctx, &ns, "visits", 7).await?;
/// assert_eq!(store.get(&ctx, &ns, "visits").await?, Some(7));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Retry<S> {
    inner: S,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: RetryOptions,
    budget: Budget,
}

impl<S> Retry<S> {
    /// Wraps `inner`.
    ///
    /// # Errors
    /// The errors of [`RetryOptions::check`].
    pub fn new(inner: S, options: RetryOptions) -> Result<Self> {
        options.check()?;
        let budget = Budget::new(options.budget, options.reserve);
        Ok(Self { inner, shared: Arc::new(Shared { options, budget }) })
    }

    /// Returns the inner store.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    fn attempts<'a>(&'a self, ctx: &'a ExecutionContext) -> Attempts<'a> {
        Attempts::after_first(ctx, &self.shared.budget, &self.shared.options)
    }

    /// Repeats a call whose first attempt failed with `error`, while its errors are retryable.
    async fn repeat<T, F>(
        &self,
        ctx: &ExecutionContext,
        mut error: Error,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut attempts = self.attempts(ctx);
        while error.is_retryable() && attempts.pause(&error).await {
            match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(next) => error = next,
            }
        }
        Err(error)
    }

    /// Makes a write. Repeats it where that is safe, and settles an unknown outcome.
    async fn write_settled<V, T, F>(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        mut attempt: impl FnMut() -> F,
        write: &impl Recognise<T>,
    ) -> Result<T>
    where
        V: Send + 'static,
        S: EntryStore<V>,
        F: Future<Output = Result<T>>,
    {
        self.shared.budget.deposit();
        match attempt().await {
            Ok(answer) => Ok(answer),
            // Boxed, because it would enlarge the future of every call.
            Err(error) => {
                Box::pin(self.continue_write::<V, _, _>(ctx, ns, attempt, write, error)).await
            }
        }
    }

    async fn continue_write<V, T, F>(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        mut attempt: impl FnMut() -> F,
        write: &impl Recognise<T>,
        mut error: Error,
    ) -> Result<T>
    where
        V: Send + 'static,
        S: EntryStore<V>,
        F: Future<Output = Result<T>>,
    {
        let mut attempts = self.attempts(ctx);
        // The first error of unknown outcome. From then on, no error is certain.
        let mut unknown: Option<Error> = None;
        loop {
            let may_repeat = error.is_retryable() || error.may_have_been_applied();
            if error.may_have_been_applied() {
                let first = unknown.get_or_insert_with(|| error.clone());
                if !can_be_settled(&error) {
                    return Err(first.clone());
                }
            }
            match &unknown {
                None if error.is_retryable() && attempts.pause(&error).await => {}
                None => return Err(error),
                Some(unknown) => {
                    match self.settle::<V, _>(ctx, ns, &mut attempts, write, error).await {
                        Finding::Applied(answer) => return Ok(answer),
                        Finding::NotApplied if may_repeat && attempts.take() => {}
                        Finding::NotApplied | Finding::Unclear => return Err(unknown.clone()),
                    }
                }
            }
            match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(next) => error = next,
            }
        }
    }

    /// Finds out whether a write was applied, after an attempt that failed with `error`.
    async fn settle<V, T>(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        attempts: &mut Attempts<'_>,
        write: &impl Recognise<T>,
        mut error: Error,
    ) -> Finding<T>
    where
        V: Send + 'static,
        S: EntryStore<V>,
    {
        if matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::DeadlineExceeded) {
            return Finding::Unclear;
        }
        if error.kind() == ErrorKind::Conflict
            && let Some(finding) = write.find_in_conflict(&error)
        {
            return finding;
        }
        let keys = write.keys();
        while !keys.is_empty() && attempts.pause(&error).await {
            match self.inner.stat(ctx, ns, &keys).await {
                Ok(stats) => {
                    let version = |stat: &Option<EntryStat>| stat.map(|stat| stat.meta.version);
                    let current: Vec<_> = stats.iter().map(version).collect();
                    return write.find(&current);
                }
                Err(next) if next.is_retryable() => error = next,
                Err(_) => break,
            }
        }
        Finding::Unclear
    }
}

/// Returns whether a read may settle the unknown outcome of `error`: the connection was lost. After a
/// failed disk or missing replicas, an entry that is visible is not necessarily kept.
fn can_be_settled(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable && !error.is_permanent()
}
