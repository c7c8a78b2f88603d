//! Every method of the trait, on every backend.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{Backend, Bytes, InMemoryStore, JsonCodec, ManualClock, Typed, TypedExt};
use cubbyhole_entelix::CubbyholeStore;
use entelix_core::{Error, ExecutionContext, TenantId};
use entelix_memory::{Namespace, NamespacePrefix, PutOptions, Store};
use test_backends::{TestStore, on_backends, on_every_backend, until};

on_every_backend! {
    every_method_answers_as_the_store_of_entelix,
    entry_expires_after_its_ttl,
    eviction_counts_expired_entries,
    invalid_arguments_are_invalid_requests_and_write_nothing,
    value_of_another_type_is_a_serde_error,
    closed_store_is_an_error,
}

// The in-memory store ignores the context, as entelix's own store does: its calls do not wait.
on_backends! { (file postgres redis redis_cluster) ended_context_is_refused }

type Ours = CubbyholeStore<Typed<String, JsonCodec, Arc<dyn Backend>>>;

async fn open(backend: &TestStore) -> (Arc<dyn Backend>, Ours) {
    let store = backend.open().await;
    (store.clone(), CubbyholeStore::new(store.typed()))
}

fn ctx() -> ExecutionContext {
    ExecutionContext::new()
}

fn ns(tenant: &str, scope: &[&str]) -> Namespace {
    let namespace = Namespace::new(TenantId::new(tenant));
    scope.iter().fold(namespace, |namespace, segment| namespace.with_scope(*segment))
}

/// Makes the same calls on a store and returns the answers. Lists are sorted, because entelix specifies no
/// order.
async fn answers(store: &dyn Store<String>) -> Vec<String> {
    let (ctx, mut answers) = (ctx(), Vec::new());
    let namespaces = [
        ns("acme", &["agent-7"]),
        ns("acme", &["agent-7", "chat"]),
        ns("acme", &["agent-70"]),
        ns("acme", &["k8s:pod\\x", ""]),
        ns("a:c", &[]),
    ];
    for (number, namespace) in namespaces.iter().enumerate() {
        for key in ["turn-1", "turn-2", "note", "", "ä\u{1F980}"] {
            store.put(&ctx, namespace, key, format!("{number} {key}")).await.unwrap();
        }
        let options = PutOptions::default().with_ttl(Duration::from_secs(3600));
        store.put_with_options(&ctx, namespace, "note", "later".to_owned(), options).await.unwrap();
        store.delete(&ctx, namespace, "turn-1").await.unwrap();
        store.delete(&ctx, namespace, "absent").await.unwrap();
    }
    for namespace in &namespaces {
        for key in ["turn-1", "turn-2", "note", "", "ä\u{1F980}", "absent"] {
            answers.push(format!("{key}: {:?}", store.get(&ctx, namespace, key).await.unwrap()));
        }
        for prefix in [None, Some(""), Some("turn-"), Some("x")] {
            let mut keys = store.list(&ctx, namespace, prefix).await.unwrap();
            keys.sort();
            answers.push(format!("{prefix:?}: {keys:?}"));
        }
    }
    for prefix in [
        NamespacePrefix::new(TenantId::new("acme")),
        NamespacePrefix::from(&namespaces[0]),
        NamespacePrefix::from(&namespaces[3]),
        NamespacePrefix::new(TenantId::new("a:c")),
        NamespacePrefix::new(TenantId::new("a")),
    ] {
        let found = store.list_namespaces(&ctx, &prefix).await.unwrap();
        let mut found: Vec<_> = found.iter().map(Namespace::render).collect();
        found.sort();
        answers.push(format!("{prefix:?}: {found:?}"));
    }
    answers.push(format!("evicted: {}", store.evict_expired(&ctx).await.unwrap()));
    answers
}

async fn every_method_answers_as_the_store_of_entelix(backend: &TestStore) {
    let (_, ours) = open(backend).await;
    let theirs = entelix_memory::InMemoryStore::<String>::new();
    assert_eq!(answers(&ours).await, answers(&theirs).await);
}

async fn entry_expires_after_its_ttl(backend: &TestStore) {
    let (_, store) = open(backend).await;
    let namespace = ns("acme", &["agent-7"]);
    let options = PutOptions::default().with_ttl(Duration::from_millis(20));
    store.put_with_options(&ctx(), &namespace, "a", "x".to_owned(), options).await.unwrap();
    let is_absent = async || store.get(&ctx(), &namespace, "a").await.unwrap().is_none();
    until("the entry expires", is_absent).await;
    assert_eq!(store.list(&ctx(), &namespace, None).await.unwrap(), [""; 0]);
    let prefix = NamespacePrefix::from(&namespace);
    assert_eq!(store.list_namespaces(&ctx(), &prefix).await.unwrap(), []);
}

async fn eviction_counts_expired_entries(backend: &TestStore) {
    let (_, store) = open(backend).await;
    let namespace = ns("acme", &["agent-7"]);
    store.put(&ctx(), &namespace, "kept", "x".to_owned()).await.unwrap();
    let options = PutOptions::default().with_ttl(Duration::from_millis(1));
    store.put_with_options(&ctx(), &namespace, "a", "x".to_owned(), options).await.unwrap();
    let is_absent = async || store.get(&ctx(), &namespace, "a").await.unwrap().is_none();
    until("the entry expires", is_absent).await;
    // Writes and opened stores may have evicted the entry already.
    assert!(store.evict_expired(&ctx()).await.unwrap() <= 1);
    assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 0);
    assert_eq!(store.list(&ctx(), &namespace, None).await.unwrap(), ["kept"]);
}

async fn ended_context_is_refused(backend: &TestStore) {
    let (_, store) = open(backend).await;
    let namespace = ns("acme", &["agent-7"]);
    let cancelled = ExecutionContext::new();
    cancelled.cancellation().cancel();
    let put = store.put(&cancelled, &namespace, "a", "x".to_owned()).await;
    assert!(matches!(put, Err(Error::Cancelled)), "{put:?}");
    let late = ExecutionContext::new().with_deadline(tokio::time::Instant::now());
    let get = store.get(&late, &namespace, "a").await;
    assert!(matches!(get, Err(Error::DeadlineExceeded)), "{get:?}");
    let list = store.list_namespaces(&late, &NamespacePrefix::from(&namespace)).await;
    assert!(matches!(list, Err(Error::DeadlineExceeded)), "{list:?}");
    assert_eq!(store.get(&ctx(), &namespace, "a").await.unwrap(), None);
}

async fn invalid_arguments_are_invalid_requests_and_write_nothing(backend: &TestStore) {
    let (_, store) = open(backend).await;
    let namespace = ns("acme", &["agent-7"]);
    let long = "x".repeat(1025);
    for key in ["a\0b", &long] {
        let put = store.put(&ctx(), &namespace, key, "x".to_owned()).await;
        assert!(matches!(put, Err(Error::InvalidRequest(_))), "{put:?}");
    }
    for scope in ["a\0b", &long] {
        let bad = ns("acme", &[scope]);
        let put = store.put(&ctx(), &bad, "a", "x".to_owned()).await;
        assert!(matches!(put, Err(Error::InvalidRequest(_))), "{put:?}");
        let list = store.list_namespaces(&ctx(), &NamespacePrefix::from(&bad)).await;
        assert!(matches!(list, Err(Error::InvalidRequest(_))), "{list:?}");
    }
    for ttl in [Duration::ZERO, Duration::MAX] {
        let options = PutOptions::default().with_ttl(ttl);
        let put = store.put_with_options(&ctx(), &namespace, "a", "x".to_owned(), options).await;
        let Err(Error::InvalidRequest(text)) = put else { unreachable!("{put:?}") };
        assert!(text.contains("TTL"), "{text}");
    }
    let prefix = NamespacePrefix::new(TenantId::new("acme"));
    assert_eq!(store.list_namespaces(&ctx(), &prefix).await.unwrap(), []);
}

async fn value_of_another_type_is_a_serde_error(backend: &TestStore) {
    let (bytes, store) = open(backend).await;
    let namespace = cubbyhole::Namespace::parse("acme:agent-7").unwrap();
    let value = Bytes::from_static(b"{\"secret\":1}");
    let ours = test_backends::ctx();
    cubbyhole::Store::put(&bytes, &ours, &namespace, "a", value).await.unwrap();
    let get = store.get(&ctx(), &ns("acme", &["agent-7"]), "a").await;
    let Err(Error::Serde(error)) = get else { unreachable!("{get:?}") };
    assert!(!error.to_string().contains("secret"), "{error}");
}

async fn closed_store_is_an_error(backend: &TestStore) {
    let (bytes, store) = open(backend).await;
    bytes.close(&test_backends::ctx()).await.unwrap();
    let get = store.get(&ctx(), &ns("acme", &[]), "a").await;
    assert!(matches!(get, Err(Error::InvalidRequest(_))), "{get:?}");
}

/// The count is exact, because the test moves the clock. Only the in-memory store allows this.
#[tokio::test]
async fn eviction_counts_every_expired_entry() {
    let clock = ManualClock::default();
    let store = InMemoryStore::<String>::builder().with_clock(clock.clone()).build();
    let (store, namespace) = (CubbyholeStore::new(store), ns("acme", &["agent-7"]));
    for seconds in 1..=5 {
        let options = PutOptions::default().with_ttl(Duration::from_secs(seconds));
        let key = seconds.to_string();
        store.put_with_options(&ctx(), &namespace, &key, "x".to_owned(), options).await.unwrap();
    }
    clock.advance(Duration::from_secs(3));
    assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 3);
    assert_eq!(store.list(&ctx(), &namespace, None).await.unwrap(), ["4", "5"]);
}
