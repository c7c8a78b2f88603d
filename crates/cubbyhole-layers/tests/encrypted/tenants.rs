//! Tenant keys, and the reserved tenant.

use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStore, Error, ErrorKind, Expiry, GetOptions, ManualClock, PutOptions,
    RecursiveScanOptions, ScanOptions, Store, TenantId,
};
use cubbyhole_layers::KeyRing;

use crate::common::{assert_says, ctx, get, layer, memory, ns, put};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_create_a_tenant_key_agree_on_one() {
    for _ in 0..50 {
        let clock = ManualClock::default();
        let (inner, ring) = (memory(&clock), KeyRing::generate().unwrap());
        let stores: Vec<_> = (0..4).map(|_| layer(&inner, &ring, &clock)).collect();
        let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(stores.len()));
        let mut tasks = tokio::task::JoinSet::new();
        for (n, store) in stores.iter().cloned().enumerate() {
            let barrier = barrier.clone();
            tasks.spawn(async move {
                barrier.wait().await;
                put(&store, "acme", &n.to_string(), "value").await.unwrap();
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let mut ids = std::collections::HashSet::new();
        for n in 0..stores.len() {
            ids.insert(get(&inner, "acme", &n.to_string()).await.unwrap().unwrap()[6..14].to_vec());
            for store in &stores {
                let value = get(store, "acme", &n.to_string()).await.unwrap().unwrap();
                assert_eq!(value, "value");
            }
        }
        assert_eq!(ids.len(), 1);
    }
}

#[tokio::test]
async fn lost_ring_key_is_named_and_not_retryable() {
    let clock = ManualClock::default();
    let (inner, ring) = (memory(&clock), KeyRing::generate().unwrap());
    put(&layer(&inner, &ring, &clock), "acme", "k", "value").await.unwrap();
    let store = layer(&inner, &KeyRing::generate().unwrap(), &clock);
    for error in [
        get(&store, "acme", "k").await.unwrap_err(),
        put(&store, "acme", "k", "value").await.unwrap_err(),
    ] {
        assert_says(&error, ErrorKind::Unavailable, &format!("`{}`", ring.current_id()));
        assert_says(&error, ErrorKind::Unavailable, "tenant `acme`");
        assert!(!error.is_retryable() && !error.may_have_been_applied());
    }
}

#[tokio::test]
async fn unreachable_key_store_fails_calls_after_the_maximum_age() {
    use cubbyhole_core::Backend as _;
    let clock = ManualClock::default();
    let (inner, keys, ring) = (memory(&clock), memory(&clock), KeyRing::generate().unwrap());
    let place = cubbyhole_layers::KeyStore::apart(std::sync::Arc::new(keys.clone()));
    let store = layer(&inner, &ring, &clock).with_key_store(place);
    put(&store, "acme", "k", "value").await.unwrap();
    keys.close(&ctx()).await.unwrap();
    clock.advance(Duration::from_millis(59_999));
    assert_eq!(get(&store, "acme", "k").await.unwrap().unwrap(), "value");
    clock.advance(Duration::from_millis(1));
    let error = get(&store, "acme", "k").await.unwrap_err();
    assert!(error.message().contains("data keys of tenant `acme`"), "{error}");
}

#[tokio::test]
async fn reserved_tenant_is_refused_by_every_method() {
    let clock = ManualClock::default();
    let (inner, ring) = (memory(&clock), KeyRing::generate().unwrap());
    let store = layer(&inner, &ring, &clock);
    put(&store, "acme", "k", "value").await.unwrap();
    let ctx = ctx();
    for place in ["cubbyhole.keys", "cubbyhole.keys:a"] {
        let (ns, prefix) = (&ns(place), &ns(place).into());
        let (key, options, always) = ("acme", PutOptions::new(), Condition::Always);
        let get_options = GetOptions::new();
        let value = || "v".into();
        let tenant = &ns.tenant();
        let errors: Vec<Error> = vec![
            store.put(&ctx, ns, key, value()).await.unwrap_err(),
            store.put_with_options(&ctx, ns, key, value(), options).await.unwrap_err(),
            store.get(&ctx, ns, key).await.unwrap_err(),
            store.delete(&ctx, ns, key).await.unwrap_err(),
            store.list(&ctx, ns, None).await.unwrap_err(),
            store.list_namespaces(&ctx, prefix).await.unwrap_err(),
            store.get_entry(&ctx, ns, key, get_options).await.unwrap_err(),
            store.get_many(&ctx, ns, &[key], get_options).await.unwrap_err(),
            store.stat(&ctx, ns, &[key]).await.unwrap_err(),
            store.put_entry(&ctx, ns, key, value(), options, always).await.unwrap_err(),
            store.delete_entry(&ctx, ns, key, always).await.unwrap_err(),
            store.write(&ctx, ns, Batch::new()).await.unwrap_err(),
            store.scan(&ctx, ns, ScanOptions::new()).await.unwrap_err(),
            store.scan_recursive(&ctx, prefix, RecursiveScanOptions::new()).await.unwrap_err(),
            store.scan_namespaces(&ctx, prefix, None, 1).await.unwrap_err(),
            store.touch(&ctx, ns, key, Expiry::Never, always).await.unwrap_err(),
            store.take(&ctx, ns, key).await.unwrap_err(),
            store.delete_prefix(&ctx, ns, "", 1).await.unwrap_err(),
            store.erase(&ctx, prefix, 1).await.unwrap_err(),
            store.usage(&ctx, prefix).await.unwrap_err(),
            store.current_time(&ctx, ns).await.unwrap_err(),
            store.shred(&ctx, tenant).await.unwrap_err(),
            store.rekey(&ctx, tenant).await.unwrap_err(),
            store.reencrypt_step(&ctx, prefix, None, 1).await.unwrap_err(),
        ];
        for error in errors {
            assert_says(&error, ErrorKind::PermissionDenied, "use another tenant");
            assert!(error.operation().is_some());
        }
    }
    assert!(get(&inner, "cubbyhole.keys", "acme").await.unwrap().is_some());
    put(&store, "cubbyhole.keys2", "k", "value").await.unwrap();
    put(&store, "other:cubbyhole.keys", "k", "value").await.unwrap();
}

#[tokio::test]
async fn tenant_pages_leave_out_the_reserved_tenant() {
    let clock = ManualClock::default();
    let (inner, ring) = (memory(&clock), KeyRing::generate().unwrap());
    let store = layer(&inner, &ring, &clock);
    let mut expected = vec!["a", "b", "cubbyhole", "cubbyhole.keys.x", "d"];
    while !expected.is_empty() {
        for name in &expected {
            put(&store, name, "k", "value").await.unwrap();
        }
        for limit in 1..=6 {
            let (mut after, mut pages) = (None::<TenantId>, Vec::new());
            loop {
                let page = store.scan_tenants(&ctx(), after.as_ref(), limit).await.unwrap();
                pages.push(page.items.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>());
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let wanted: Vec<_> = expected.chunks(limit).collect();
            assert_eq!(pages, wanted, "limit {limit}");
        }
        let last = expected.pop().unwrap();
        store.delete(&ctx(), &ns(last), "k").await.unwrap();
    }
    for limit in [0, 1_001] {
        let error = store.scan_tenants(&ctx(), None, limit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}
