//! Copies between stores in memory: counts, interruption and continuation.

use cubbyhole::{GetOptions, NamespacePrefix, Timestamp};

use super::*;
use crate::args::scope::Scope;
use crate::entries::walk;

/// Counts pages, and cancels the copy after the first page if `stop` is set.
#[derive(Default)]
struct Counting {
    pages: u64,
    stop: Option<ExecutionContext>,
}

impl CopyObserver for Counting {
    fn progress(&mut self, _: &CopyCounts) {
        self.pages += 1;
        if let Some(ctx) = &self.stop {
            ctx.cancel();
        }
    }

    fn unreadable(&mut self, _: &Namespace, _: &str, _: &Error) {}
}

async fn memory() -> Arc<dyn Backend> {
    cubbyhole::open(&ExecutionContext::new(), "memory:").await.unwrap()
}

async fn put(store: &Arc<dyn Backend>, namespace: &str, key: &str, value: &str, ttl: bool) {
    let options = match ttl {
        true => PutOptions::new().with_expires_at(Timestamp::MAX),
        false => PutOptions::new(),
    };
    let namespace = Namespace::parse(namespace).unwrap();
    let value = Bytes::copy_from_slice(value.as_bytes());
    let ctx = ExecutionContext::new();
    store.put_with_options(&ctx, &namespace, key, value, options).await.unwrap();
}

fn plan(source: &Arc<dyn Backend>, target: &Arc<dyn Backend>) -> Plan {
    Plan {
        source: Arc::clone(source),
        target: Some(Arc::clone(target)),
        rerooting: None,
        keep_existing: false,
        dry_run: false,
        reading: ExecutionContext::new(),
        writing: ExecutionContext::new(),
    }
}

async fn copy(plan: &Plan, observer: &mut Counting) -> (CopyCounts, Result<()>) {
    let ctx = plan.reading.clone();
    let namespaces = Namespaces::new(Arc::clone(&plan.source), ctx, &Scope(None));
    run(plan, namespaces, observer).await
}

async fn held(store: &Arc<dyn Backend>, namespace: &str, key: &str) -> Option<Bytes> {
    let namespace = Namespace::parse(namespace).unwrap();
    let ctx = ExecutionContext::new();
    let entry = store.get_entry(&ctx, &namespace, key, GetOptions::new()).await.unwrap();
    entry.map(|entry| entry.value)
}

#[tokio::test]
async fn interrupted_copy_continues_when_repeated() {
    let (source, target) = (memory().await, memory().await);
    for number in 0..3000 {
        let namespace = format!("acme:{}", number % 30);
        put(&source, &namespace, &format!("k{number:04}"), "value", number % 2 == 0).await;
    }
    let first = plan(&source, &target);
    let mut observer = Counting { pages: 0, stop: Some(first.reading.clone()) };
    let (counts, outcome) = copy(&first, &mut observer).await;
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(counts.copied > 0 && counts.copied < 3000, "{counts:?}");
    // The counts match the target.
    let there = walk::usage(&Scope(None), &target, &ExecutionContext::new()).await.unwrap();
    assert_eq!(there.entries, counts.copied);
    let (rest, outcome) = copy(&plan(&source, &target), &mut Counting::default()).await;
    outcome.unwrap();
    assert_eq!((rest.skipped, rest.copied), (counts.copied, 3000 - counts.copied));
    let (again, outcome) = copy(&plan(&source, &target), &mut Counting::default()).await;
    outcome.unwrap();
    assert_eq!((again.skipped, again.copied, again.namespaces), (3000, 0, 30));
}

#[tokio::test]
async fn interrupted_copy_under_another_prefix_continues_within_one_store() {
    let store = memory().await;
    for number in 0..2000 {
        let namespace = format!(r"acme:a\:b:{}", number % 20);
        put(&store, &namespace, &format!("k{number:04}"), "value", number % 2 == 0).await;
    }
    let prefix = |text| NamespacePrefix::parse(text).unwrap();
    let (from, to) = (prefix(r"acme:a\:b"), prefix(r"acme:a\:c"));
    let rerooting = Some(Rerooting::new(from.clone(), to.clone()));
    let plan = || Plan { rerooting: rerooting.clone(), ..plan(&store, &store) };
    let copy = async |plan: &Plan, observer: &mut Counting| {
        let scope = Scope(Some(from.clone()));
        let namespaces = Namespaces::new(Arc::clone(&store), plan.reading.clone(), &scope);
        run(plan, namespaces, observer).await
    };
    let first = plan();
    let mut observer = Counting { pages: 0, stop: Some(first.reading.clone()) };
    let (counts, outcome) = copy(&first, &mut observer).await;
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
    let ctx = ExecutionContext::new();
    let there = store.usage(&ctx, &to).await.unwrap();
    assert!(counts.copied > 0 && counts.copied < 2000, "{counts:?}");
    assert_eq!(there.entries, counts.copied);
    let (rest, outcome) = copy(&plan(), &mut Counting::default()).await;
    outcome.unwrap();
    assert_eq!((rest.skipped, rest.copied), (counts.copied, 2000 - counts.copied));
    assert_eq!(store.usage(&ctx, &from).await.unwrap().entries, 2000);
    assert_eq!(store.usage(&ctx, &to).await.unwrap().namespaces, 20);
}

#[tokio::test]
async fn differing_entries_are_replaced_or_kept() {
    let (source, target) = (memory().await, memory().await);
    for key in ["alike", "changed", "expiry", "new"] {
        put(&source, "acme", key, "1", key == "expiry").await;
    }
    put(&target, "acme", "alike", "1", false).await;
    put(&target, "acme", "changed", "2", false).await;
    put(&target, "acme", "expiry", "1", false).await;
    put(&target, "acme", "only there", "3", false).await;
    let keeping = Plan { keep_existing: true, ..plan(&source, &target) };
    let trial = Plan { dry_run: true, ..keeping.clone() };
    for plan in [&trial, &keeping] {
        let (counts, outcome) = copy(plan, &mut Counting::default()).await;
        outcome.unwrap();
        assert_eq!((counts.copied, counts.skipped, counts.kept), (1, 1, 2), "{counts:?}");
        let new = held(&target, "acme", "new").await;
        assert_eq!(new.is_some(), !plan.dry_run);
    }
    assert_eq!(held(&target, "acme", "changed").await.unwrap(), "2");
    let (counts, outcome) = copy(&plan(&source, &target), &mut Counting::default()).await;
    outcome.unwrap();
    assert_eq!((counts.copied, counts.skipped, counts.kept), (2, 2, 0), "{counts:?}");
    assert_eq!(held(&target, "acme", "changed").await.unwrap(), "1");
    assert_eq!(held(&target, "acme", "only there").await.unwrap(), "3");
}

#[tokio::test]
async fn large_values_are_read_in_small_pages() {
    let (source, target) = (memory().await, memory().await);
    let large = "x".repeat(700 * 1024);
    for number in 0..FIRST_PAGE + 6 {
        put(&source, "acme", &format!("{number:03}"), &large, false).await;
    }
    let mut observer = Counting::default();
    let (counts, outcome) = copy(&plan(&source, &target), &mut observer).await;
    outcome.unwrap();
    assert_eq!(counts.copied, FIRST_PAGE as u64 + 6);
    // The first page has the default size, and then each page has one entry.
    assert_eq!(observer.pages, 1 + 6);
}
