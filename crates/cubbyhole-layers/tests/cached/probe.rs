//! An inner store that counts reads, and that stops calls where a test wants to act.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cubbyhole_core::{
    Backend, Bytes, Entry, EntryStore, Error, ExecutionContext, GetOptions, ManualClock, Namespace,
    PutOptions, Result, Store, Timestamp, async_trait, delegate,
};
use cubbyhole_layers::{CacheOptions, Cached};
use cubbyhole_memory::InMemoryStore;
use tokio::sync::oneshot;

pub(crate) const MAX_STALE: Duration = Duration::from_secs(5);

/// Where a call stops: it sends, then waits for the test.
pub(crate) struct Stop {
    reached: oneshot::Sender<()>,
    resume: oneshot::Receiver<()>,
}

/// The test's side of a [`Stop`].
pub(crate) struct Stopped {
    reached: Option<oneshot::Receiver<()>>,
    resume: oneshot::Sender<()>,
}

impl Stopped {
    /// Waits until the call has stopped.
    pub(crate) async fn reached(&mut self) {
        self.reached.take().unwrap().await.unwrap();
    }

    pub(crate) fn resume(self) {
        self.resume.send(()).unwrap();
    }
}

impl Stop {
    async fn wait(self) {
        self.reached.send(()).unwrap();
        // An error means that the test has dropped its side: the call never ends.
        if self.resume.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn stop() -> (Stop, Stopped) {
    let ((reached, is_reached), (resume, is_resumed)) = (oneshot::channel(), oneshot::channel());
    (Stop { reached, resume: is_resumed }, Stopped { reached: Some(is_reached), resume })
}

/// The behaviour of the next calls.
#[derive(Default)]
pub(crate) struct Plan {
    after_read: Option<Stop>,
    before_put: Option<Stop>,
    after_put: Option<Stop>,
    /// The put is applied and returns this.
    pub(crate) put_error: Option<Error>,
    /// Every call of `current_time` fails with this.
    pub(crate) time_error: Option<Error>,
    /// The time that passes between the backend's reading of its clock and its answer.
    pub(crate) time_latency: Duration,
}

pub(crate) struct Probe {
    pub(crate) store: InMemoryStore<Bytes>,
    /// The clock of the backend and that of the cache.
    pub(crate) clocks: [ManualClock; 2],
    pub(crate) plan: Mutex<Plan>,
    reads: AtomicUsize,
    time_requests: AtomicUsize,
}

impl Probe {
    pub(crate) fn stop_after_read(&self) -> Stopped {
        let (stop, stopped) = stop();
        self.plan.lock().unwrap().after_read = Some(stop);
        stopped
    }

    pub(crate) fn stop_before_put(&self) -> Stopped {
        let (stop, stopped) = stop();
        self.plan.lock().unwrap().before_put = Some(stop);
        stopped
    }

    pub(crate) fn stop_after_put(&self) -> Stopped {
        let (stop, stopped) = stop();
        self.plan.lock().unwrap().after_put = Some(stop);
        stopped
    }

    /// The number of `get_entry` calls.
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(SeqCst)
    }

    pub(crate) fn time_requests(&self) -> usize {
        self.time_requests.load(SeqCst)
    }

    pub(crate) fn advance(&self, duration: Duration) {
        self.clocks.iter().for_each(|clock| clock.advance(duration));
    }
}

#[async_trait]
impl Store<Bytes> for Probe {
    async fn put(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
    ) -> Result<()> {
        let (before, after, error) = {
            let mut plan = self.plan.lock().unwrap();
            (plan.before_put.take(), plan.after_put.take(), plan.put_error.take())
        };
        if let Some(stop) = before {
            stop.wait().await;
        }
        self.store.put(ctx, ns, key, value).await?;
        if let Some(stop) = after {
            stop.wait().await;
        }
        error.map_or(Ok(()), Err)
    }

    async fn put_with_options(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
    ) -> Result<()> {
        self.store.put_with_options(ctx, ns, key, value, options).await
    }

    delegate!(Bytes, |probe| probe.store => get, delete, list, list_namespaces, evict_expired);
}

#[async_trait]
impl EntryStore<Bytes> for Probe {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<Bytes>>> {
        self.reads.fetch_add(1, SeqCst);
        let entry = self.store.get_entry(ctx, ns, key, options).await;
        let stop = self.plan.lock().unwrap().after_read.take();
        if let Some(stop) = stop {
            stop.wait().await;
        }
        entry
    }

    async fn current_time(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<Timestamp> {
        self.time_requests.fetch_add(1, SeqCst);
        let (error, latency) = {
            let plan = self.plan.lock().unwrap();
            (plan.time_error.clone(), plan.time_latency)
        };
        let time = self.store.current_time(ctx, ns).await;
        self.advance(latency);
        error.map_or(time, Err)
    }

    delegate!(Bytes, |probe| probe.store =>
        get_many, stat, put_entry, delete_entry, write, scan, scan_recursive, scan_namespaces,
        scan_tenants, touch, take, delete_prefix, erase, usage, max_value_bytes
    );
}

#[async_trait]
impl Backend for Probe {
    delegate!(Bytes, |probe| probe.store => close, compact);
}

pub(crate) type Layer = Cached<Arc<Probe>>;

/// A cache and its inner store. The wall clock of the cache differs by an hour from the backend's.
pub(crate) fn cached_with(
    client: ManualClock,
    backend: ManualClock,
    max_stale: Duration,
) -> (Layer, Arc<Probe>) {
    let builder = InMemoryStore::builder().with_clock(backend.clone());
    let probe = Arc::new(Probe {
        store: builder.with_value_size(Bytes::len).build(),
        clocks: [backend, client.clone()],
        plan: Mutex::default(),
        reads: AtomicUsize::new(0),
        time_requests: AtomicUsize::new(0),
    });
    let options = CacheOptions::new().with_max_stale(max_stale).with_clock(Arc::new(client));
    (Cached::new(Arc::clone(&probe), options).unwrap(), probe)
}

pub(crate) fn cached() -> (Layer, Arc<Probe>) {
    cached_with(ManualClock::default(), ManualClock::default(), MAX_STALE)
}

pub(crate) fn ctx() -> ExecutionContext {
    ExecutionContext::new()
}

pub(crate) fn ns() -> Namespace {
    Namespace::parse("acme:agent-7").unwrap()
}

pub(crate) fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// Reads with `get`, and returns whether the cache answered.
pub(crate) async fn get(layer: &Layer, probe: &Probe, key: &str) -> (Option<Bytes>, bool) {
    let reads = probe.reads();
    let value = layer.get(&ctx(), &ns(), key).await.unwrap();
    (value, probe.reads() == reads)
}
