//! A simulated disk in memory with faults that tests control, and common helpers.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses some of the helpers")]

pub(crate) mod script;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use cubbyhole_core::{Bytes, ExecutionContext, Namespace};
use cubbyhole_embedded::{Config, EmbeddedStore, StorageBackend};
use tokio::task::coop::unconstrained;

/// A disk with the page cache above it. Synced writes are on the disk, other writes may be.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// The contents that reads return.
    page_cache: Mutex<Vec<u8>>,
    /// The contents that are on the disk, and the changes that may be.
    platter: Mutex<Platter>,
    pub(crate) full: AtomicBool,
    /// The maximum length of the file; 0 for no limit.
    pub(crate) max_length: AtomicU64,
    pub(crate) broken_reads: AtomicBool,
    pub(crate) broken_syncs: AtomicBool,
    /// Whether syncs succeed without writing anything.
    pub(crate) ignores_syncs: AtomicBool,
    /// The number of successful syncs.
    pub(crate) syncs: AtomicU64,
    pub(crate) failed_syncs: AtomicU64,
    /// Fails the sync with this number, counted from now and from 1; 0 for none.
    pub(crate) failing_sync: AtomicU64,
    /// The number of operations of any kind.
    operations: AtomicU64,
    /// The number of operations after which the power is cut; 0 for never.
    power_cut_at: AtomicU64,
    /// Fails one operation in this many at random; 0 for none.
    pub(crate) fails_one_in: AtomicU64,
    pub(crate) random: Mutex<fastrand::Rng>,
    gate: Gate,
}

/// The state of the disk below the page cache.
#[derive(Debug, Default, Clone)]
struct Platter {
    synced: Vec<u8>,
    pending: Vec<Change>,
}

/// A change since the last sync.
#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// The unit that the disk writes atomically.
const SECTOR: usize = 512;

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => write_at(image, *at, data),
            Self::Length(length) => image.resize(*length, 0),
        }
    }

    /// Applies a random subset of the change's sectors.
    fn apply_torn(&self, image: &mut Vec<u8>, random: &mut fastrand::Rng) {
        let Self::Write(at, data) = self else { return self.apply(image) };
        let mut from = *at;
        let end = at + data.len();
        while from < end {
            let to = end.min((from / SECTOR + 1) * SECTOR);
            if random.bool() {
                write_at(image, from, &data[from - at..to - at]);
            }
            from = to;
        }
    }
}

fn write_at(image: &mut Vec<u8>, at: usize, data: &[u8]) {
    if image.len() < at + data.len() {
        image.resize(at + data.len(), 0);
    }
    image[at..at + data.len()].copy_from_slice(data);
}

impl Platter {
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.synced);
        }
    }

    /// Applies, tears or loses each pending change independently.
    fn lose_some(&mut self, random: &mut fastrand::Rng) {
        // In half of the cases all changes are lost or all are applied.
        let mode = random.u8(0..4);
        for change in std::mem::take(&mut self.pending) {
            match if mode < 2 { mode } else { random.u8(0..3) } {
                0 => {}
                1 => change.apply(&mut self.synced),
                _ => change.apply_torn(&mut self.synced, random),
            }
        }
    }
}

/// Blocks syncs while it is shut.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    shut: bool,
    waiting: usize,
}

impl Disk {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A disk with this content, fully synced.
    pub(crate) fn holding(image: Vec<u8>) -> Arc<Self> {
        let platter = Platter { synced: image.clone(), pending: Vec::new() };
        Arc::new(Self {
            page_cache: Mutex::new(image),
            platter: Mutex::new(platter),
            ..Self::default()
        })
    }

    /// The disk after a power loss in which all unsynced changes are lost.
    pub(crate) fn after_power_loss(&self) -> Arc<Self> {
        Self::holding(self.platter.lock().unwrap().synced.clone())
    }

    /// The disk after a power loss in which some unsynced changes are applied or torn.
    pub(crate) fn after_power_cut(&self, random: &mut fastrand::Rng) -> Arc<Self> {
        let mut platter = self.platter.lock().unwrap().clone();
        platter.lose_some(random);
        Self::holding(platter.synced)
    }

    /// The current contents, as reads return them.
    pub(crate) fn image(&self) -> Vec<u8> {
        self.page_cache.lock().unwrap().clone()
    }

    /// Cuts the power after this many further operations. Then every operation fails and nothing
    /// reaches the disk.
    pub(crate) fn cut_power_after(&self, operations: u64) {
        let at = self.operations.load(Ordering::SeqCst) + operations;
        self.power_cut_at.store(at.max(1), Ordering::SeqCst);
    }

    /// The number of operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    /// Cancels a planned power cut.
    pub(crate) fn keep_power(&self) {
        self.power_cut_at.store(0, Ordering::SeqCst);
    }

    /// Whether the power has not been cut yet.
    pub(crate) fn has_power(&self) -> bool {
        let cut_at = self.power_cut_at.load(Ordering::SeqCst);
        cut_at == 0 || self.operations.load(Ordering::SeqCst) < cut_at
    }

    fn is_failing_sync(&self) -> bool {
        let count = |left: u64| left.checked_sub(1);
        self.failing_sync.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count) == Ok(1)
    }

    /// Counts an operation. Returns whether it must fail at random.
    fn count_operation(&self) -> io::Result<bool> {
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        let cut_at = self.power_cut_at.load(Ordering::SeqCst);
        if cut_at != 0 && number >= cut_at {
            return Err(io::Error::other("the power is off"));
        }
        let one_in = self.fails_one_in.load(Ordering::SeqCst);
        Ok(one_in != 0 && self.random.lock().unwrap().u64(0..one_in) == 0)
    }

    pub(crate) fn config(self: &Arc<Self>) -> Config {
        let disk = Arc::clone(self);
        Config::new("in-memory.redb")
            .with_storage(move || Ok(Box::new(Handle(Arc::clone(&disk))) as _))
    }

    /// Like [`config`](Self::config), and counts in `opened` how often the storage is opened.
    pub(crate) fn config_counting(self: &Arc<Self>, opened: &Arc<AtomicU64>) -> Config {
        let (disk, opened) = (Arc::clone(self), Arc::clone(opened));
        self.config().with_storage(move || {
            opened.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Handle(Arc::clone(&disk))) as _)
        })
    }

    pub(crate) async fn open(self: &Arc<Self>) -> EmbeddedStore {
        EmbeddedStore::open(&ctx(), self.config()).await.unwrap()
    }

    /// Blocks all syncs until the returned guard is dropped. Declare the guard after the store, so
    /// a failing test releases the writer before it drops the store.
    pub(crate) fn shut_gate(self: &Arc<Self>) -> ShutGate {
        self.gate.state.lock().unwrap().shut = true;
        ShutGate(Arc::clone(self))
    }

    /// Waits until a sync is blocked at the gate.
    pub(crate) async fn wait_for_blocked_sync(&self) {
        let wait = async {
            while self.gate.state.lock().unwrap().waiting == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("no sync was made");
    }

    /// Replaces the contents, even while a store has them open.
    pub(crate) fn replace(&self, image: Vec<u8>) {
        *self.page_cache.lock().unwrap() = image;
    }

    pub(crate) fn len(&self) -> usize {
        self.page_cache.lock().unwrap().len()
    }

    pub(crate) fn truncate(&self, length: usize) {
        self.page_cache.lock().unwrap().truncate(length);
    }

    fn wait_at_gate(&self) {
        let mut state = self.gate.state.lock().unwrap();
        state.waiting += 1;
        while state.shut {
            state = self.gate.changed.wait(state).unwrap();
        }
        state.waiting -= 1;
    }
}

/// Opens the gate when dropped.
pub(crate) struct ShutGate(Arc<Disk>);

impl Drop for ShutGate {
    fn drop(&mut self) {
        self.0.gate.state.lock().unwrap().shut = false;
        self.0.gate.changed.notify_all();
    }
}

#[derive(Debug)]
struct Handle(Arc<Disk>);

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.page_cache.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.0.count_operation()? || self.0.broken_reads.load(Ordering::SeqCst) {
            return Err(io::Error::other("unreadable sector"));
        }
        let page_cache = self.0.page_cache.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let bytes = page_cache.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let fails = self.0.count_operation()?;
        let mut page_cache = self.0.page_cache.lock().unwrap();
        let len = usize::try_from(len).unwrap();
        let max_length = self.0.max_length.load(Ordering::SeqCst);
        let exceeds = max_length != 0 && len as u64 > max_length;
        if len > page_cache.len() && (fails || exceeds || self.0.full.load(Ordering::SeqCst)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        page_cache.resize(len, 0);
        self.0.platter.lock().unwrap().pending.push(Change::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.wait_at_gate();
        let fails = self.0.count_operation()?;
        let fails = fails || self.0.is_failing_sync();
        let mut platter = self.0.platter.lock().unwrap();
        if fails || self.0.broken_syncs.load(Ordering::SeqCst) {
            self.0.failed_syncs.fetch_add(1, Ordering::SeqCst);
            // The lost changes are never written later: the system counts them as written, and the
            // next successful sync does not report them.
            platter.lose_some(&mut self.0.random.lock().unwrap());
            return Err(io::Error::other("the disk does not respond"));
        }
        if !self.0.ignores_syncs.load(Ordering::SeqCst) {
            platter.sync();
        }
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let fails = self.0.count_operation()?;
        let mut page_cache = self.0.page_cache.lock().unwrap();
        let mut written = data;
        if fails {
            // A short write of some sectors.
            let sectors = self.0.random.lock().unwrap().usize(0..=data.len() / SECTOR);
            written = &data[..sectors * SECTOR];
        }
        if self.0.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let start = usize::try_from(offset).unwrap();
        write_at(&mut page_cache, start, written);
        self.0.platter.lock().unwrap().pending.push(Change::Write(start, written.to_vec()));
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

pub(crate) fn ctx() -> ExecutionContext {
    ExecutionContext::new()
}

pub(crate) fn ns() -> Namespace {
    Namespace::parse("acme:agent-7").unwrap()
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Starts a call and polls it once, so it is in the writer's queue on return. The calls are
/// unconstrained, because a test that starts many calls would exhaust tokio's cooperative
/// budget.
pub(crate) fn start<T>(
    call: impl Future<Output = T> + Send + 'static,
) -> Pin<Box<dyn Future<Output = T> + Send>> {
    let mut call = Box::pin(unconstrained(call));
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    call
}

/// All entries of the namespace [`ns`].
pub(crate) async fn contents(store: &EmbeddedStore) -> BTreeMap<String, Bytes> {
    use cubbyhole_core::{EntryStore, ScanOptions};
    let page = store.scan(&ctx(), &ns(), ScanOptions::new().with_limit(1000)).await.unwrap();
    assert!(page.next.is_none());
    page.items.into_iter().map(|item| (item.key, item.value.unwrap().unwrap())).collect()
}
