//! Stores and the tokio runtime. A loop over calls yields to the runtime and can be timed out.
//! Without a runtime, its timers or its I/O, calls are refused and do not panic.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use cubbyhole::{
    Backend, Bytes, EntryStoreExt, Error, ErrorKind, ExecutionContext, GetOptions, Namespace,
    NamespacePrefix, PutOptions, RecursiveScanOptions, Result, ScanOptions, diagnose, migrate,
    open, repair,
};
use tempfile::TempDir;
use tokio::runtime::Builder;

/// Runs a future without a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(answer) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return answer;
        }
        thread::park();
    }
}

fn redb(folder: &TempDir) -> String {
    format!("redb:{}", folder.path().join("store.redb").display())
}

/// URLs of unreachable servers. Calls must be refused before connecting.
fn servers() -> Vec<&'static str> {
    let mut urls = Vec::new();
    if cfg!(feature = "postgres") {
        urls.push("postgres://app@127.0.0.1:1/state");
    }
    if cfg!(feature = "redis") {
        urls.extend(["redis://127.0.0.1:1", "redis+cluster://127.0.0.1:1"]);
    }
    urls
}

fn contexts() -> [ExecutionContext; 2] {
    let limited = ExecutionContext::new().with_timeout(Duration::from_secs(3_600));
    [ExecutionContext::new(), limited]
}

fn ns() -> Namespace {
    Namespace::parse("acme:agent-7").unwrap()
}

#[track_caller]
fn needs<T>(answer: Result<T>, what: &str) {
    let Err(error) = answer else { panic!("the call was not refused") };
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
    assert!(error.message().contains("tokio runtime"), "{error}");
    assert!(error.message().contains(what), "{error}");
    assert!(!error.may_have_been_applied(), "{error}");
}

/// Repeats the call until a timer on the same thread ends the loop.
async fn times_out<T, F: Future<Output = Result<T>>>(name: &str, call: impl Fn() -> F) {
    let calls = async {
        loop {
            if let Err(error) = call().await {
                return error;
            }
        }
    };
    let ended: std::result::Result<Error, _> =
        tokio::time::timeout(Duration::from_millis(100), calls).await;
    assert!(ended.is_err(), "{name}: {ended:?}");
}

async fn loops_time_out(url: &str) {
    let (ctx, ns) = (ExecutionContext::new(), ns());
    let (ctx, ns) = (&ctx, &ns);
    let prefix = &NamespacePrefix::from(ns);
    let store = &open(ctx, url).await.unwrap();
    let value = Bytes::from_static(b"v");
    store.put(ctx, ns, "k", value.clone()).await.unwrap();
    let ttl = PutOptions::new().with_ttl(Duration::from_secs(3_600));
    store.put_with_options(ctx, ns, "t", value, ttl).await.unwrap();
    let sliding = GetOptions::new().with_extended_ttl(Duration::from_secs(60));

    times_out("get", || store.get(ctx, ns, "k")).await;
    times_out("list", || store.list(ctx, ns, None)).await;
    times_out("scan", || store.scan(ctx, ns, ScanOptions::new())).await;
    let (plain, refreshing) = (GetOptions::new(), GetOptions::new().refreshing());
    times_out("get_many", || store.get_many(ctx, ns, &["k"], plain)).await;
    times_out("get_many (no keys)", || store.get_many(ctx, ns, &[], plain)).await;
    times_out("get_entry (refreshing)", || store.get_entry(ctx, ns, "k", refreshing)).await;
    times_out("stat", || store.stat(ctx, ns, &["k"])).await;
    times_out("stat (no keys)", || store.stat(ctx, ns, &[])).await;
    let recursive = RecursiveScanOptions::new;
    times_out("scan_recursive", || store.scan_recursive(ctx, prefix, recursive())).await;
    times_out("delete_prefix", || store.delete_prefix(ctx, ns, "absent", 1)).await;
    times_out("last (none)", || store.last(ctx, ns, "k", 0)).await;
    times_out("append (nothing)", || store.append(ctx, ns, "k", Vec::new(), PutOptions::new()))
        .await;
    times_out("get_entry (sliding)", || store.get_entry(ctx, ns, "t", sliding)).await;
    times_out("usage", || store.usage(ctx, prefix)).await;
    times_out("list_namespaces", || store.list_namespaces(ctx, prefix)).await;
    times_out("evict_expired", || store.evict_expired(ctx)).await;
    times_out("take", || store.take(ctx, ns, "absent")).await;
    times_out("compact", || store.compact(ctx)).await;
    times_out("close", || store.close(ctx)).await;
    times_out("get (closed)", || async {
        assert!(store.get(ctx, ns, "k").await.is_err());
        Ok(())
    })
    .await;
}

/// Runs the loops on another thread, because a loop that never yields would hang the test.
fn loops_time_out_on_one_thread(url: impl FnOnce(&TempDir) -> String) {
    let folder = tempfile::tempdir().unwrap();
    let url = url(&folder);
    let (done, waiting) = mpsc::channel();
    let looping = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(loops_time_out(&url));
        let _ = done.send(());
    });
    match waiting.recv_timeout(Duration::from_secs(120)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a loop over calls never ends"),
        _ => looping.join().unwrap(),
    }
}

#[test]
fn loops_over_calls_in_memory_time_out_on_one_thread() {
    loops_time_out_on_one_thread(|_| "memory:".to_owned());
}

#[test]
fn loops_over_calls_on_a_file_time_out_on_one_thread() {
    loops_time_out_on_one_thread(redb);
}

#[test]
fn memory_store_works_without_a_runtime() {
    for ctx in contexts() {
        block_on(async {
            let store = open(&ctx, "memory:").await.unwrap();
            store.put(&ctx, &ns(), "k", Bytes::from_static(b"v")).await.unwrap();
            assert_eq!(store.get(&ctx, &ns(), "k").await.unwrap().as_deref(), Some(&b"v"[..]));
            store.compact(&ctx).await.unwrap();
            store.close(&ctx).await.unwrap();
            diagnose(&ctx, "memory:").await.unwrap();
        });
    }
}

#[test]
fn other_stores_need_a_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let file = redb(&folder);
    for url in servers().into_iter().chain([file.as_str()]) {
        for ctx in contexts() {
            needs(block_on(open(&ctx, url)), "no tokio runtime");
            needs(block_on(migrate(&ctx, url)), "no tokio runtime");
            needs(block_on(diagnose(&ctx, url)), "no tokio runtime");
            needs(block_on(repair(&ctx, url)), "no tokio runtime");
        }
    }
}

#[test]
fn servers_need_a_runtime_with_timers() {
    let runtime = Builder::new_current_thread().build().unwrap();
    for url in servers() {
        for ctx in contexts() {
            needs(runtime.block_on(open(&ctx, url)), "enable_time");
            needs(runtime.block_on(migrate(&ctx, url)), "enable_time");
            needs(runtime.block_on(diagnose(&ctx, url)), "enable_time");
            needs(runtime.block_on(repair(&ctx, url)), "enable_time");
        }
    }
}

#[test]
fn servers_need_a_runtime_with_io() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    for url in servers() {
        for ctx in contexts() {
            needs(runtime.block_on(open(&ctx, url)), "enable_io");
            needs(runtime.block_on(migrate(&ctx, url)), "enable_io");
            needs(runtime.block_on(repair(&ctx, url)), "enable_io");
            // A connection error is a finding of the diagnosis.
            let diagnosis = runtime.block_on(diagnose(&ctx, url)).unwrap();
            let findings = format!("{diagnosis:?}");
            assert!(findings.contains("enable_io"), "{findings}");
        }
    }
}

#[test]
fn file_store_works_without_timers_unless_there_is_a_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let url = redb(&folder);
    let [unlimited, limited] = contexts();
    Builder::new_current_thread().build().unwrap().block_on(async {
        needs(open(&limited, &url).await, "enable_time");
        let store = open(&unlimited, &url).await.unwrap();
        store.put(&unlimited, &ns(), "k", Bytes::from_static(b"v")).await.unwrap();
        needs(store.put(&limited, &ns(), "k", Bytes::from_static(b"w")).await, "enable_time");
        needs(store.get(&limited, &ns(), "k").await, "enable_time");
        let value = store.get(&unlimited, &ns(), "k").await.unwrap();
        assert_eq!(value.as_deref(), Some(&b"v"[..]));
    });
}

#[test]
fn file_store_works_after_its_runtime_ended() {
    let folder = tempfile::tempdir().unwrap();
    let url = redb(&folder);
    let ctx = ExecutionContext::new();
    let runtime = || Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let store: Arc<dyn Backend> = runtime().block_on(open(&ctx, &url)).unwrap();
    for ctx in contexts() {
        needs(block_on(store.put(&ctx, &ns(), "k", Bytes::new())), "no tokio runtime");
        needs(block_on(store.get(&ctx, &ns(), "k")), "no tokio runtime");
        needs(block_on(store.compact(&ctx)), "no tokio runtime");
    }
    runtime().block_on(store.put(&ctx, &ns(), "k", Bytes::from_static(b"v"))).unwrap();
    // Dropping the store outside of a runtime closes the file.
    drop(store);
    let store = runtime().block_on(open(&ctx, &url)).unwrap();
    let value = runtime().block_on(store.get(&ctx, &ns(), "k")).unwrap();
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
    for ctx in contexts() {
        needs(block_on(store.close(&ctx)), "no tokio runtime");
    }
    // The store is closed nevertheless.
    let put = runtime().block_on(store.put(&ctx, &ns(), "k", Bytes::new()));
    assert_eq!(put.unwrap_err().message(), Error::closed().message());
}
