//! A disk in memory whose faults the tests command.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use cubbyhole_core::{Bytes, ExecutionContext, Namespace};
use cubbyhole_embedded::{EmbeddedConfig, EmbeddedStore, StorageBackend};

/// What a machine's disk would hold: writes reach it when they are synced, and not before.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// What the running system sees.
    seen: Mutex<Vec<u8>>,
    /// What would be left after a power loss.
    synced: Mutex<Vec<u8>>,
    pub(crate) full: AtomicBool,
    pub(crate) broken_reads: AtomicBool,
    pub(crate) broken_syncs: AtomicBool,
    pub(crate) syncs: AtomicU64,
    pub(crate) failed_syncs: AtomicU64,
    gate: Gate,
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

    /// A disk that holds what this one would hold after a power loss.
    pub(crate) fn after_power_loss(&self) -> Arc<Self> {
        let image = self.synced.lock().unwrap().clone();
        Arc::new(Self {
            seen: Mutex::new(image.clone()),
            synced: Mutex::new(image),
            ..Self::default()
        })
    }

    pub(crate) fn config(self: &Arc<Self>) -> EmbeddedConfig {
        let disk = Arc::clone(self);
        EmbeddedConfig::new("in-memory.redb")
            .with_storage(move || Ok(Box::new(Handle(Arc::clone(&disk))) as _))
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

    pub(crate) fn flip(&self, at: usize) {
        self.seen.lock().unwrap()[at] ^= 0xff;
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
        if self.0.broken_reads.load(Ordering::SeqCst) {
            return Err(io::Error::other("unreadable sector"));
        }
        let seen = self.0.seen.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let bytes = seen.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut seen = self.0.seen.lock().unwrap();
        let len = usize::try_from(len).unwrap();
        if len > seen.len() && self.0.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        seen.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.wait_at_gate();
        if self.0.broken_syncs.load(Ordering::SeqCst) {
            self.0.failed_syncs.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::other("the disk does not answer"));
        }
        *self.0.synced.lock().unwrap() = self.0.seen.lock().unwrap().clone();
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.0.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut seen = self.0.seen.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let end = start + data.len();
        if seen.len() < end {
            seen.resize(end, 0);
        }
        seen[start..end].copy_from_slice(data);
        Ok(())
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

/// Begins a call: it is in the writer's queue when this returns.
pub(crate) fn begin<T>(
    call: impl Future<Output = T> + Send + 'static,
) -> Pin<Box<dyn Future<Output = T> + Send>> {
    let mut call = Box::pin(call);
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
