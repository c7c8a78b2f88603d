//! What the store tells that no call shows. A program of its own, for the file is opened anew on
//! the writer's thread, which only a subscriber of the whole program hears.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use cubbyhole_core::Store;
use support::{Disk, bytes, ctx, ns};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_opened_anew_after_a_failure_is_told_of() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let disk = Disk::new();
    let store = disk.open().await;
    store.put(&ctx(), &ns(), "key-sesame", bytes("value-sesame")).await.unwrap();
    assert_eq!(log.take(), "", "nothing is the matter");

    disk.broken_syncs.store(true, Ordering::SeqCst);
    disk.broken_reads.store(true, Ordering::SeqCst);
    store.put(&ctx(), &ns(), "key-sesame", bytes("value-sesame")).await.unwrap_err();
    let told = log.take();
    assert!(told.contains("WARN cubbyhole_embedded::file: the file cannot be reopened"), "{told}");
    disk.broken_syncs.store(false, Ordering::SeqCst);
    disk.broken_reads.store(false, Ordering::SeqCst);
    store.put(&ctx(), &ns(), "key-sesame", bytes("value-sesame")).await.unwrap();
    let told = told + &log.take();
    assert!(told.contains("WARN cubbyhole_embedded::file: the file was reopened"), "{told}");
    assert!(!told.contains("sesame"), "{told}");
}
