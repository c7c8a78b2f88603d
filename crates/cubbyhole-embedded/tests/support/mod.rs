//! A disk in memory whose faults the tests command.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses a part of it")]

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

/// A machine's disk: writes reach it when they are synced, and until then some of them may have.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// What the running system sees.
    seen: Mutex<Vec<u8>>,
    /// What is on the disk for certain, and what is on its way there.
    below: Mutex<Below>,
    pub(crate) full: AtomicBool,
    /// How long the file can become; any length while it is 0.
    pub(crate) room: AtomicU64,
    pub(crate) broken_reads: AtomicBool,
    pub(crate) broken_syncs: AtomicBool,
    /// Answers syncs and does nothing.
    pub(crate) lies: AtomicBool,
    pub(crate) syncs: AtomicU64,
    pub(crate) failed_syncs: AtomicU64,
    /// The sync that fails, counted from 1 on; none while it is 0.
    pub(crate) failing_sync: AtomicU64,
    /// Operations of any kind, and after how many the power goes.
    operations: AtomicU64,
    power_goes_at: AtomicU64,
    /// One operation in so many fails, drawn from here; none while it is 0.
    pub(crate) fails_one_in: AtomicU64,
    pub(crate) random: Mutex<fastrand::Rng>,
    gate: Gate,
}

#[derive(Debug, Default, Clone)]
struct Below {
    synced: Vec<u8>,
    pending: Vec<Change>,
}

/// What was asked of the disk since the last sync.
#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// What a disk writes at once.
const SECTOR: usize = 512;

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => write_at(image, *at, data),
            Self::Length(length) => image.resize(*length, 0),
        }
    }

    /// Some of its sectors.
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

impl Below {
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.synced);
        }
    }

    /// Of what is on its way each part arrives, arrives torn, or is lost, whatever came after it.
    fn lose_some(&mut self, random: &mut fastrand::Rng) {
        // Often all or nothing, which is where most damage would be.
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

/// Holds syncs back while it is shut.
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

    /// A disk that holds these bytes.
    pub(crate) fn holding(image: Vec<u8>) -> Arc<Self> {
        let below = Below { synced: image.clone(), pending: Vec::new() };
        Arc::new(Self { seen: Mutex::new(image), below: Mutex::new(below), ..Self::default() })
    }

    /// A disk that holds what this one would hold after a power loss that took all with it that
    /// was not synced.
    pub(crate) fn after_power_loss(&self) -> Arc<Self> {
        Self::holding(self.below.lock().unwrap().synced.clone())
    }

    /// The same where some of it had arrived, whole or torn, in any order.
    pub(crate) fn after_power_cut(&self, random: &mut fastrand::Rng) -> Arc<Self> {
        let mut below = self.below.lock().unwrap().clone();
        below.lose_some(random);
        Self::holding(below.synced)
    }

    /// Everything, as it is seen now.
    pub(crate) fn image(&self) -> Vec<u8> {
        self.seen.lock().unwrap().clone()
    }

    /// After so many operations from now on the power goes: nothing more reaches the disk, and
    /// every operation fails.
    pub(crate) fn cut_power_after(&self, operations: u64) {
        let at = self.operations.load(Ordering::SeqCst) + operations;
        self.power_goes_at.store(at.max(1), Ordering::SeqCst);
    }

    /// How many operations of any kind there were.
    pub(crate) fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    /// It will not go any more.
    pub(crate) fn keep_power(&self) {
        self.power_goes_at.store(0, Ordering::SeqCst);
    }

    /// Whether the power is still there.
    pub(crate) fn has_power(&self) -> bool {
        let goes_at = self.power_goes_at.load(Ordering::SeqCst);
        goes_at == 0 || self.operations.load(Ordering::SeqCst) < goes_at
    }

    fn is_failing_sync(&self) -> bool {
        let count = |left: u64| left.checked_sub(1);
        self.failing_sync.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count) == Ok(1)
    }

    /// Counts an operation. Whether it fails by chance.
    fn begin(&self) -> io::Result<bool> {
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        let goes_at = self.power_goes_at.load(Ordering::SeqCst);
        if goes_at != 0 && number >= goes_at {
            return Err(io::Error::other("no power"));
        }
        let one_in = self.fails_one_in.load(Ordering::SeqCst);
        Ok(one_in != 0 && self.random.lock().unwrap().u64(0..one_in) == 0)
    }

    pub(crate) fn config(self: &Arc<Self>) -> Config {
        let disk = Arc::clone(self);
        Config::new("in-memory.redb")
            .with_storage(move || Ok(Box::new(Handle(Arc::clone(&disk))) as _))
    }

    /// The same, and counts how often the bytes are opened.
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

    /// From now on a sync waits until what this returns is dropped. (Declare it after the store: a
    /// test that fails then lets the writer go before it drops the store.)
    pub(crate) fn shut_gate(self: &Arc<Self>) -> ShutGate {
        self.gate.state.lock().unwrap().shut = true;
        ShutGate(Arc::clone(self))
    }

    /// Waits until a sync waits at the gate.
    pub(crate) async fn somebody_waits(&self) {
        let wait = async {
            while self.gate.state.lock().unwrap().waiting == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("nobody syncs");
    }

    /// Everything becomes that, whoever has it open.
    pub(crate) fn replace(&self, image: Vec<u8>) {
        *self.seen.lock().unwrap() = image;
    }

    pub(crate) fn len(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn truncate(&self, length: usize) {
        self.seen.lock().unwrap().truncate(length);
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

/// Opens the gate when it is dropped.
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
        Ok(self.0.seen.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.0.begin()? || self.0.broken_reads.load(Ordering::SeqCst) {
            return Err(io::Error::other("unreadable sector"));
        }
        let seen = self.0.seen.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let bytes = seen.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let fails = self.0.begin()?;
        let mut seen = self.0.seen.lock().unwrap();
        let len = usize::try_from(len).unwrap();
        let room = self.0.room.load(Ordering::SeqCst);
        let exceeds = room != 0 && len as u64 > room;
        if len > seen.len() && (fails || exceeds || self.0.full.load(Ordering::SeqCst)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        seen.resize(len, 0);
        self.0.below.lock().unwrap().pending.push(Change::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.wait_at_gate();
        let fails = self.0.begin()?;
        let fails = fails || self.0.is_failing_sync();
        let mut below = self.0.below.lock().unwrap();
        if fails || self.0.broken_syncs.load(Ordering::SeqCst) {
            self.0.failed_syncs.fetch_add(1, Ordering::SeqCst);
            // What did not arrive will not: the system counts it as written, and the next sync
            // that succeeds says nothing of it.
            below.lose_some(&mut self.0.random.lock().unwrap());
            return Err(io::Error::other("the disk does not answer"));
        }
        if !self.0.lies.load(Ordering::SeqCst) {
            below.sync();
        }
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let fails = self.0.begin()?;
        let mut seen = self.0.seen.lock().unwrap();
        let mut written = data;
        if fails {
            // A short write: some sectors, as systems and disks have it.
            let sectors = self.0.random.lock().unwrap().usize(0..=data.len() / SECTOR);
            written = &data[..sectors * SECTOR];
        }
        if self.0.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let start = usize::try_from(offset).unwrap();
        write_at(&mut seen, start, written);
        self.0.below.lock().unwrap().pending.push(Change::Write(start, written.to_vec()));
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

/// Begins a call: it is in the writer's queue when this returns. A test that begins many calls in a
/// row uses up its task's budget, so the calls do not count against it.
pub(crate) fn begin<T>(
    call: impl Future<Output = T> + Send + 'static,
) -> Pin<Box<dyn Future<Output = T> + Send>> {
    let mut call = Box::pin(unconstrained(call));
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    call
}

/// Everything in the test's namespace.
pub(crate) async fn contents(store: &EmbeddedStore) -> BTreeMap<String, Bytes> {
    use cubbyhole_core::{EntryStore, ScanOptions};
    let page = store.scan(&ctx(), &ns(), ScanOptions::new().with_limit(1000)).await.unwrap();
    assert!(page.next.is_none());
    page.items.into_iter().map(|item| (item.key, item.value.unwrap().unwrap())).collect()
}
