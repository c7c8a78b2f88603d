//! [`Faulty`]: a layer that makes calls fail, for tests of programs and of layers.

mod counts;
mod faults;
mod store;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use cubbyhole_core::{EntryStore, Error, ExecutionContext, Result, ResultExt};
use tokio::runtime::Handle;
use tokio::sync::watch;

pub use counts::FaultCounts;
pub use faults::Faults;

use counts::Counters;
use faults::{Delay, Fate};

/// A layer that makes some calls of a store fail or wait, as a network and a server do.
///
/// It keeps every promise of the contract: its errors say correctly whether a write may have been
/// applied. Use it to test how your program handles errors. In contrast,
/// [`history::FaultyStore`](crate::history::FaultyStore) breaks the promises of a store, to show that a
/// test detects a broken store.
///
/// [`Faults`] sets the probability of each fault. The same seed and the same sequence of calls give the
/// same faults. [`counts`](Self::counts) returns how many faults there were. A test asserts with it that
/// faults happened.
///
/// ```
/// # use std::sync::Arc;
/// use cubbyhole_conformance::{Faults, Faulty};
/// use cubbyhole_core::{Bytes, ErrorKind, ExecutionContext, Namespace, Store};
/// use cubbyhole_memory::InMemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> cubbyhole_core::Result<()> {
/// let faults = Faults::new(7).with_unanswered(1.0);
/// let inner = Arc::new(InMemoryStore::<Bytes>::new());
/// let store = Faulty::new(inner.clone(), faults);
/// let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7")?);
///
/// let error = store.put(&ctx, &ns, "greeting", Bytes::from("hello")).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Unavailable);
/// assert!(error.may_have_been_applied());
/// assert_eq!(inner.get(&ctx, &ns, "greeting").await?, Some(Bytes::from("hello")));
/// assert_eq!(store.counts().unanswered, 1);
/// # Ok(())
/// # }
/// ```
pub struct Faulty<V> {
    store: Arc<dyn EntryStore<V>>,
    faults: Faults,
    random: Mutex<fastrand::Rng>,
    counters: Counters,
    /// The number of late writes that are not applied yet.
    outstanding: watch::Sender<usize>,
}

impl<V: Send + 'static> Faulty<V> {
    /// Wraps `store`.
    #[must_use]
    pub fn new(store: Arc<dyn EntryStore<V>>, faults: Faults) -> Self {
        let random = Mutex::new(fastrand::Rng::with_seed(faults.seed()));
        let outstanding = watch::channel(0).0;
        Self { store, faults, random, counters: Counters::default(), outstanding }
    }

    /// Returns the number of faults so far.
    pub fn counts(&self) -> FaultCounts {
        self.counters.read()
    }

    /// Waits until every [late](Faults::with_late) write has been applied.
    pub async fn until_applied(&self) {
        let mut outstanding = self.outstanding.subscribe();
        // The sender lives as long as `self`, so the wait cannot fail.
        drop(outstanding.wait_for(|count| *count == 0).await);
    }

    fn draw(&self) -> (Option<Delay>, Fate) {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        self.faults.draw(&mut random)
    }

    async fn delay(&self, ctx: &ExecutionContext, delay: Option<Delay>) -> Result<()> {
        let Some(delay) = delay else { return Ok(()) };
        self.counters.delayed();
        delay.wait(ctx).await
    }

    /// Makes a read, or makes it fail.
    async fn read<T>(
        &self,
        operation: &'static str,
        ctx: &ExecutionContext,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let (delay, fate) = self.draw();
        self.delay(ctx, delay).await.in_operation(operation)?;
        match fate {
            Fate::Pass => call.await,
            Fate::Refused | Fate::Lost | Fate::Unanswered | Fate::Late(_) => {
                self.refuse(ctx).await.in_operation(operation)
            }
        }
    }

    /// Makes a write, or makes it fail. `call` gets the inner store and the context of the write.
    async fn change<T, F>(
        &self,
        operation: &'static str,
        ctx: &ExecutionContext,
        call: impl FnOnce(Arc<dyn EntryStore<V>>, ExecutionContext) -> F,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (delay, fate) = self.draw();
        self.delay(ctx, delay).await.in_operation(operation)?;
        let store = Arc::clone(&self.store);
        match fate {
            Fate::Pass => return call(store, ctx.clone()).await,
            Fate::Refused => return self.refuse(ctx).await.in_operation(operation),
            Fate::Lost | Fate::Unanswered | Fate::Late(_) => {
                ctx.begin().await.in_operation(operation)?;
            }
        }
        match fate {
            Fate::Late(delay) => {
                self.counters.late();
                // The server does not hear of a caller that gives up.
                let write = call(store, ExecutionContext::new());
                self.apply_later(delay, write).await;
            }
            Fate::Unanswered => {
                self.counters.unanswered();
                drop(call(store, ctx.clone()).await);
            }
            Fate::Lost | Fate::Pass | Fate::Refused => self.counters.lost(),
        }
        Err(unanswered().in_operation(operation))
    }

    async fn refuse<T>(&self, ctx: &ExecutionContext) -> Result<T> {
        ctx.begin().await?;
        self.counters.refused();
        Err(Error::unavailable("the server refused the call (injected fault)"))
    }

    /// Applies a write in a task. Without a runtime, applies it now.
    async fn apply_later<T>(
        &self,
        delay: Delay,
        write: impl Future<Output = Result<T>> + Send + 'static,
    ) {
        let Ok(runtime) = Handle::try_current() else {
            drop(write.await);
            return;
        };
        self.outstanding.send_modify(|count| *count += 1);
        let outstanding = self.outstanding.clone();
        runtime.spawn(async move {
            drop(delay.wait(&ExecutionContext::new()).await);
            drop(write.await);
            outstanding.send_modify(|count| *count -= 1);
        });
    }
}

impl<V> fmt::Debug for Faulty<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty")
            .field("faults", &self.faults)
            .field("counts", &self.counters.read())
            .finish_non_exhaustive()
    }
}

fn unanswered() -> Error {
    Error::unavailable("the connection closed before the answer (injected fault)")
        .with_unknown_outcome()
}
