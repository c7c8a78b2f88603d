//! Early fsync: a thread syncs the file while a checkpoint is still writing to it.
//!
//! A checkpoint writes thousands of pages and then syncs them. Without early fsync, the disk is
//! idle while the writer writes, and the writer is idle during the sync. Early syncs do not replace
//! the sync of a commit, but leave it little to write.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use redb::StorageBackend;

use super::delegate_locks;

/// The number of written bytes that triggers an early sync. Log records are usually shorter, and
/// they are synced right after they are written.
const EARLY_BYTES: usize = 256 * 1024;

/// Storage with a thread for early syncs.
#[derive(Debug)]
pub(crate) struct EarlySync {
    shared: Arc<SyncState>,
    /// The bytes written since the last sync or the last request for an early one.
    written: AtomicUsize,
    /// `None` while this is dropped, or if the thread could not be started. Then there are no early
    /// syncs.
    requests: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The state that the thread shares.
#[derive(Debug)]
struct SyncState {
    inner: Box<dyn StorageBackend>,
    /// Whether enough was written since the last regular sync to make an early one worthwhile.
    is_due: AtomicBool,
    /// The error of a failed early sync. The operating system reports a failed write-back to one
    /// sync only, so this error fails all later syncs. The lock is held during an early sync.
    failure: Mutex<Option<(io::ErrorKind, String)>>,
}

impl EarlySync {
    pub(crate) fn new(inner: Box<dyn StorageBackend>) -> Self {
        let shared = Arc::new(SyncState {
            inner,
            is_due: AtomicBool::new(false),
            failure: Mutex::default(),
        });
        // One request can wait during a sync; further requests would be redundant.
        let (requests, received) = sync_channel(1);
        let thread = thread::Builder::new().name("cubbyhole-sync".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                while received.recv().is_ok() {
                    shared.sync_early();
                }
            }
        });
        let thread = thread.ok();
        let requests = thread.is_some().then_some(requests);
        Self { shared, written: AtomicUsize::new(0), requests, thread }
    }

    fn inner(&self) -> &dyn StorageBackend {
        &*self.shared.inner
    }
}

impl SyncState {
    fn sync_early(&self) {
        let mut failure = self.lock();
        if failure.is_none() && self.is_due.swap(false, Ordering::Relaxed) {
            *failure = self.inner.sync_data().err().map(|error| (error.kind(), error.to_string()));
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.is_due.store(false, Ordering::Relaxed);
        // This runs concurrently with an early sync and waits for it afterwards. A failure is
        // reported to one of the two.
        let synced = self.inner.sync_data();
        match &*self.lock() {
            Some((kind, message)) => Err(io::Error::new(*kind, message.clone())),
            None => synced,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(io::ErrorKind, String)>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for EarlySync {
    /// Waits for the thread, so the file is no longer in use afterwards.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // The thread does not panic.
            let _ = thread.join();
        }
    }
}

impl StorageBackend for EarlySync {
    fn len(&self) -> io::Result<u64> {
        self.inner().len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner().read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner().set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.written.store(0, Ordering::Relaxed);
        self.shared.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner().write(offset, data)?;
        let written = self.written.fetch_add(data.len(), Ordering::Relaxed) + data.len();
        if written >= EARLY_BYTES
            && let Some(requests) = &self.requests
        {
            self.written.store(0, Ordering::Relaxed);
            self.shared.is_due.store(true, Ordering::Relaxed);
            // A full channel is fine: the waiting request covers these bytes too.
            let _ = requests.try_send(());
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner().close()
    }

    delegate_locks!(self => self.inner());
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use redb::backends::InMemoryBackend;

    use super::*;

    /// A disk that reports the start of each sync, and ends it with the result that the test sends.
    #[derive(Debug)]
    struct Disk {
        memory: InMemoryBackend,
        begun: Mutex<Sender<()>>,
        ends: Mutex<Receiver<io::Result<()>>>,
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.memory.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.memory.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.memory.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.begun.lock().unwrap().send(()).unwrap();
            self.ends.lock().unwrap().recv().unwrap()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.memory.write(offset, data)
        }
    }

    struct Test {
        storage: EarlySync,
        begun: Receiver<()>,
        ends: Sender<io::Result<()>>,
    }

    impl Test {
        fn new() -> Self {
            let ((begin, begun), (ends, ended)) = (channel(), channel());
            let memory = InMemoryBackend::new();
            memory.set_len(4 * EARLY_BYTES as u64).unwrap();
            let disk = Disk { memory, begun: Mutex::new(begin), ends: Mutex::new(ended) };
            Self { storage: EarlySync::new(Box::new(disk)), begun, ends }
        }

        fn write(&self, bytes: usize) {
            self.storage.write(0, &vec![1; bytes]).unwrap();
        }
    }

    #[test]
    fn large_writes_are_synced_early() {
        let test = Test::new();
        test.write(EARLY_BYTES - 1);
        test.write(1);
        test.begun.recv().unwrap();
        test.ends.send(Ok(())).unwrap();
        // The regular sync still happens.
        test.ends.send(Ok(())).unwrap();
        test.storage.sync_data().unwrap();
        test.begun.recv().unwrap();
    }

    #[test]
    fn small_writes_wait_for_the_regular_sync() {
        let test = Test::new();
        for _ in 0..3 {
            test.write(EARLY_BYTES - 1);
            assert!(test.begun.try_recv().is_err());
            test.ends.send(Ok(())).unwrap();
            test.storage.sync_data().unwrap();
            test.begun.recv().unwrap();
        }
        // Dropping the storage ended the thread, so no early sync can follow.
        drop(test.storage);
        assert!(test.begun.try_recv().is_err());
    }

    #[test]
    fn failed_early_sync_fails_all_later_syncs() {
        let test = Test::new();
        test.write(EARLY_BYTES);
        test.begun.recv().unwrap();
        let full = || io::Error::new(io::ErrorKind::StorageFull, "no space");
        test.ends.send(Err(full())).unwrap();
        for _ in 0..2 {
            // The disk itself works again.
            test.ends.send(Ok(())).unwrap();
            let error = test.storage.sync_data().unwrap_err();
            assert_eq!((error.kind(), &*error.to_string()), (full().kind(), "no space"));
        }
    }

    #[test]
    fn sync_reports_failure_of_concurrent_early_sync() {
        let test = Test::new();
        test.write(EARLY_BYTES);
        test.begun.recv().unwrap();
        thread::scope(|scope| {
            let sync = scope.spawn(|| test.storage.sync_data());
            // Either of the two syncs may receive the error.
            test.ends.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
            test.ends.send(Ok(())).unwrap();
            assert_eq!(sync.join().unwrap().unwrap_err().kind(), io::ErrorKind::StorageFull);
        });
    }
}
