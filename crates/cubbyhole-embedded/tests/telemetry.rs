//! The events that the store emits outside of calls. This is a separate test program, because the
//! writer thread emits them and only a global subscriber receives them.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use cubbyhole_core::Store;
use support::{Disk, bytes, ctx, ns};

#[derive(Clone, Default)]
struct LogBuffer(Arc<Mutex<Vec<u8>>>);

impl LogBuffer {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl io::Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reopening_after_a_failure_is_logged() {
    let log = LogBuffer::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let disk = Disk::new();
    let store = disk.open().await;
    store.put(&ctx(), &ns(), "key-sesame", bytes("value-sesame")).await.unwrap();
    assert_eq!(log.take(), "", "no failure has occurred");

    disk.broken_syncs.store(true, Ordering::SeqCst);
    disk.broken_reads.store(true, Ordering::SeqCst);
    store.put(&ctx(), &ns(), "key-sesame", bytes("value-sesame")).await.unwrap_err();
    let logged = log.take();
    assert!(
        logged.contains("WARN cubbyhole_embedded::file: the file cannot be reopened"),
        "{logged}"
    );
    disk.broken_syncs.store(false, Ordering::SeqCst);
    disk.broken_reads.store(false, Ordering::SeqCst);
    store.put(&ctx(), &ns(), "key-sesame", bytes("value-sesame")).await.unwrap();
    let logged = logged + &log.take();
    assert!(logged.contains("WARN cubbyhole_embedded::file: the file was reopened"), "{logged}");
    assert!(!logged.contains("sesame"), "{logged}");
}
