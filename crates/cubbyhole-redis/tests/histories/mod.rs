//! Concurrent histories on a store whose servers a test harms meanwhile, and a look at them while
//! they run: how many calls were answered, how many failed.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cubbyhole_conformance::history::{Failure, Plan, Report, run};
use cubbyhole_core::{
    Batch, Bytes, CancellationToken, Condition, Entry, EntryStore, Error, ErrorKind,
    ExecutionContext, Expiry, GetOptions, Namespace, PutOptions, Result, Store, TenantId, Version,
    async_trait,
};
use cubbyhole_redis::RedisStore;
use tokio::task::JoinHandle;

/// By how much a call may be late after its deadline. The store adds nothing to it: the rest is
/// what a busy machine takes to run the task again whose timer has ended.
pub(crate) const LATE: Duration = Duration::from_secs(1);
/// Ends a test that hangs; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a namespace of the histories is kept.
type Home = Box<dyn Fn(&Namespace) -> Namespace + Send + Sync>;

/// What became of the calls so far.
#[derive(Default)]
struct Seen {
    reads: AtomicUsize,
    writes: AtomicUsize,
    /// Reads that failed, and calls that change something.
    failed_reads: AtomicUsize,
    failed_writes: AtomicUsize,
}

/// Hands everything on, and counts.
struct Watched {
    store: RedisStore,
    home: Home,
    seen: Arc<Seen>,
}

/// A run of histories, until it is finished.
pub(crate) struct Histories {
    seen: Arc<Seen>,
    timeout: Duration,
    stop: CancellationToken,
    running: JoinHandle<Report>,
}

/// Four clients on each of `groups` groups of keys, whose calls have that deadline.
pub(crate) fn plan(groups: usize, timeout: Duration) -> Plan {
    Plan::new(TenantId::new("faults").unwrap(), fastrand::u64(..))
        .with_groups(groups)
        .with_operations(u64::MAX)
        .under_faults(timeout)
}

impl Histories {
    /// Begins them, with each namespace at the place that `home` gives it, in which no other is.
    pub(crate) fn start(
        store: &RedisStore,
        plan: Plan,
        timeout: Duration,
        home: impl Fn(&Namespace) -> Namespace + Send + Sync + 'static,
    ) -> Self {
        let (seen, stop) = (Arc::<Seen>::default(), CancellationToken::new());
        let watched =
            Watched { store: store.clone(), home: Box::new(home), seen: Arc::clone(&seen) };
        let until = stop.clone();
        let running = tokio::spawn(async move {
            let watched: Arc<dyn EntryStore<Bytes>> = Arc::new(watched);
            run(&watched, &plan, &until).await
        });
        Self { seen, timeout, stop, running }
    }

    /// Calls that were answered so far: reads, and those that change something.
    pub(crate) fn answers(&self) -> [usize; 2] {
        [self.seen.reads.load(SeqCst), self.seen.writes.load(SeqCst)]
    }

    /// Calls that failed so far: reads, and those that change something.
    pub(crate) fn failures(&self) -> [usize; 2] {
        [self.seen.failed_reads.load(SeqCst), self.seen.failed_writes.load(SeqCst)]
    }

    fn has_more(&self, before: [usize; 2], more: usize) -> bool {
        self.answers().iter().zip(before).all(|(now, before)| *now >= before + more)
    }

    /// Waits for so many more reads and so many more writes, with nothing said about failures.
    pub(crate) async fn until_more(&self, more: usize) {
        let before = self.answers();
        self.until("more calls", || self.has_more(before, more)).await;
    }

    /// Waits until so many reads and so many writes in a row were answered and no call failed
    /// between them.
    pub(crate) async fn until_sound(&self, more: usize) {
        let since = Cell::new((self.failures(), self.answers()));
        self.until("calls that are all answered", || {
            if since.get().0 != self.failures() {
                since.set((self.failures(), self.answers()));
            }
            self.has_more(since.get().1, more)
        })
        .await;
    }

    /// Waits for so many more calls that fail. They may all be reads: a client that does not know
    /// what became of its write looks before it writes again.
    pub(crate) async fn until_failures(&self, more: usize) {
        let count = || self.failures().iter().sum::<usize>();
        let before = count();
        self.until("failures", || count() >= before + more).await;
    }

    /// Waits for something, or for the end of the histories, of which their verdict tells.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let limit = ExecutionContext::new().with_timeout(PATIENCE);
        while !is_so() && !self.running.is_finished() {
            let waited = limit.sleep(Duration::from_millis(2)).await;
            assert!(waited.is_ok(), "it never came: {what}, after {:?}", self.failures());
        }
    }

    /// Ends them: they have an order, and no failure was later than its deadline or tells anything
    /// but what may be.
    pub(crate) async fn finish(self) -> Report {
        self.stop.cancel();
        let report = self.running.await.unwrap();
        if let Err(explanation) = report.verdict() {
            panic!("{explanation}");
        }
        let [reads, writes] =
            [&self.seen.failed_reads, &self.seen.failed_writes].map(|count| count.load(SeqCst));
        assert_eq!(reads + writes, report.failures.len());
        for failure in &report.failures {
            check_failure(failure, self.timeout);
        }
        report
    }
}

/// A failure ends with its deadline, and says of itself what its kind lets it say.
fn check_failure(Failure { error, took, .. }: &Failure, timeout: Duration) {
    assert!(*took < timeout + LATE, "{took:?}: {error:?}");
    match error.kind() {
        // Either it had certainly no effect, and is to be made again, or that is not known.
        ErrorKind::Unavailable => {
            assert_ne!(error.is_retryable(), error.may_have_been_applied(), "{error:?}");
        }
        ErrorKind::DeadlineExceeded => {
            assert!(!error.is_retryable(), "{error:?}");
        }
        // It is retried in vain until somebody has made room.
        ErrorKind::ResourceExhausted => {
            assert!(!error.is_retryable() && !error.may_have_been_applied(), "{error:?}");
        }
        kind => panic!("{kind:?} is no outage: {error:?}"),
    }
}

/// How many failures are of a kind.
pub(crate) fn count(report: &Report, kind: ErrorKind) -> usize {
    report.failures.iter().filter(|failure| failure.error.kind() == kind).count()
}

impl Watched {
    /// A call that changes nothing, which no failure can make doubtful.
    async fn read<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = call.await;
        let doubtful = answer.as_ref().err().filter(|error| error.may_have_been_applied());
        assert!(doubtful.is_none(), "a read has no effect: {doubtful:?}");
        let seen = if answer.is_ok() { &self.seen.reads } else { &self.seen.failed_reads };
        seen.fetch_add(1, SeqCst);
        answer
    }

    /// A call that may change something.
    async fn change<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = call.await;
        let is_conflict = |error: &Error| error.kind() == ErrorKind::Conflict;
        let is_answer = answer.as_ref().err().is_none_or(is_conflict);
        let seen = if is_answer { &self.seen.writes } else { &self.seen.failed_writes };
        seen.fetch_add(1, SeqCst);
        answer
    }
}

#[async_trait]
impl Store<Bytes> for Watched {
    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
    ) -> Result<()> {
        let home = (self.home)(ns);
        self.change(self.store.put_with_options(ctx, &home, key, value, options)).await
    }

    async fn put(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
    ) -> Result<()> {
        let home = (self.home)(ns);
        self.change(self.store.put(ctx, &home, key, value)).await
    }

    async fn get(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Bytes>> {
        let home = (self.home)(ns);
        self.read(self.store.get(ctx, &home, key)).await
    }

    async fn delete(&self, ctx: &ExecutionContext, ns: &Namespace, key: &str) -> Result<()> {
        let home = (self.home)(ns);
        self.change(self.store.delete(ctx, &home, key)).await
    }

    async fn list(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        let home = (self.home)(ns);
        self.read(self.store.list(ctx, &home, prefix)).await
    }
}

#[async_trait]
impl EntryStore<Bytes> for Watched {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<Bytes>>> {
        let home = (self.home)(ns);
        // One that extends the life of what it reads changes something.
        let is_read = options.extended_ttl().is_none();
        let call = self.store.get_entry(ctx, &home, key, options);
        if is_read { self.read(call).await } else { self.change(call).await }
    }

    async fn get_many(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
        let home = (self.home)(ns);
        self.read(self.store.get_many(ctx, &home, keys)).await
    }

    async fn put_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        let home = (self.home)(ns);
        self.change(self.store.put_entry(ctx, &home, key, value, options, condition)).await
    }

    async fn delete_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        condition: Condition,
    ) -> Result<bool> {
        let home = (self.home)(ns);
        self.change(self.store.delete_entry(ctx, &home, key, condition)).await
    }

    async fn write(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        batch: Batch<Bytes>,
    ) -> Result<Vec<Option<Version>>> {
        let home = (self.home)(ns);
        self.change(self.store.write(ctx, &home, batch)).await
    }

    async fn touch(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        expiry: Expiry,
    ) -> Result<bool> {
        let home = (self.home)(ns);
        self.change(self.store.touch(ctx, &home, key, expiry)).await
    }

    async fn take(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
    ) -> Result<Option<Entry<Bytes>>> {
        let home = (self.home)(ns);
        self.change(self.store.take(ctx, &home, key)).await
    }
}
