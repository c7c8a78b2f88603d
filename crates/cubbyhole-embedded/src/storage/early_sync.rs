//! Storage whose disk begins early with what is written to it.
//!
//! A checkpoint writes thousands of pages and then syncs them: the disk is idle during the first, and
//! the writer during the second. So a thread syncs meanwhile what was written so far. The sync that the
//! engine asks for, and that its commits rest on, comes after that and finds little left.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use redb::StorageBackend;

use super::delegate_locks;

/// After how many bytes the disk is to begin. From a quarter of it to twice it checkpoints took about as
/// long; without an early sync, half as long again. A record of the log is shorter, and synced at once.
const EARLY_BYTES: usize = 256 * 1024;

/// Storage with a thread that syncs it early.
#[derive(Debug)]
pub(crate) struct EarlySync {
    shared: Arc<SyncState>,
    /// How much was written since somebody last synced or was asked to.
    written: AtomicUsize,
    /// `None` once it is dropped, and where no thread could be started: everything is synced later then.
    requests: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct SyncState {
    inner: Box<dyn StorageBackend>,
    /// Whether much was written since the last sync that somebody asked for.
    is_due: AtomicBool,
    /// Held by an early sync. The system tells one sync of a failure, and if that was an early one, it is
    /// kept for all that come later: what was written may be lost for good.
    failure: Mutex<Option<(io::ErrorKind, String)>>,
}

impl EarlySync {
    pub(crate) fn new(inner: Box<dyn StorageBackend>) -> Self {
        let shared = Arc::new(SyncState {
            inner,
            is_due: AtomicBool::new(false),
            failure: Mutex::default(),
        });
        // One request may wait while another is worked on; more would ask for the same.
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
        // Beside an early one that is under way, which is waited for only then: what fails meanwhile,
        // one of the two is told.
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
    /// Waits for the thread, so that nothing has the file any more.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It does not panic.
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
            // If one waits already, that one covers this too.
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

    /// A disk that tells of each sync as it begins, and does not end it, or fails it, until it is told.
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
    fn what_is_much_is_synced_before_anybody_asks() {
        let test = Test::new();
        test.write(EARLY_BYTES - 1);
        test.write(1);
        test.begun.recv().unwrap();
        test.ends.send(Ok(())).unwrap();
        // The one that is asked for comes all the same.
        test.ends.send(Ok(())).unwrap();
        test.storage.sync_data().unwrap();
        test.begun.recv().unwrap();
    }

    #[test]
    fn what_is_little_waits_until_it_is_asked_for() {
        let test = Test::new();
        for _ in 0..3 {
            test.write(EARLY_BYTES - 1);
            assert!(test.begun.try_recv().is_err());
            test.ends.send(Ok(())).unwrap();
            test.storage.sync_data().unwrap();
            test.begun.recv().unwrap();
        }
        // The thread has ended: nothing came late.
        drop(test.storage);
        assert!(test.begun.try_recv().is_err());
    }

    #[test]
    fn an_early_sync_that_fails_fails_all_that_come_later() {
        let test = Test::new();
        test.write(EARLY_BYTES);
        test.begun.recv().unwrap();
        let full = || io::Error::new(io::ErrorKind::StorageFull, "no space");
        test.ends.send(Err(full())).unwrap();
        for _ in 0..2 {
            // The disk itself is content again.
            test.ends.send(Ok(())).unwrap();
            let error = test.storage.sync_data().unwrap_err();
            assert_eq!((error.kind(), &*error.to_string()), (full().kind(), "no space"));
        }
    }

    #[test]
    fn a_sync_tells_of_an_early_one_that_fails_beside_it() {
        let test = Test::new();
        test.write(EARLY_BYTES);
        test.begun.recv().unwrap();
        thread::scope(|scope| {
            let sync = scope.spawn(|| test.storage.sync_data());
            // Whichever of the two is told so: the disk ends one after the other.
            test.ends.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
            test.ends.send(Ok(())).unwrap();
            assert_eq!(sync.join().unwrap().unwrap_err().kind(), io::ErrorKind::StorageFull);
        });
    }
}
