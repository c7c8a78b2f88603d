//! Shredding.

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStore, ErrorKind, GetOptions, ManualClock, PutOptions, ScanOptions,
    Store, TenantId,
};
use cubbyhole_layers::{Encrypted, KeyRing, KeyStore, Plaintext, Shredded};

use crate::common::{Inner, assert_says, ctx, get, layer, memory, ns, put};

async fn assert_shredded(store: &Encrypted<Inner>) {
    let (ctx, acme) = (ctx(), ns("acme:a"));
    let corrupt = |error: &_| assert_says(error, ErrorKind::Corrupt, "shredded");
    let denied = |error: &_| assert_says(error, ErrorKind::PermissionDenied, "shredded");
    corrupt(&store.get(&ctx, &acme, "k").await.unwrap_err());
    corrupt(&store.get_entry(&ctx, &acme, "k", GetOptions::new()).await.unwrap_err());
    corrupt(&store.take(&ctx, &acme, "k").await.unwrap_err());
    let many = store.get_many(&ctx, &acme, &["k", "absent"], GetOptions::new()).await.unwrap();
    corrupt(many[0].as_ref().unwrap_err());
    assert!(many[1].as_ref().unwrap().is_none());
    let page = store.scan(&ctx, &acme, ScanOptions::new()).await.unwrap();
    assert!(!page.items.is_empty());
    for item in page.items {
        corrupt(&item.value.unwrap().unwrap_err());
    }
    assert_eq!(store.list(&ctx, &acme, Some("k")).await.unwrap(), ["k"]);

    denied(&store.put(&ctx, &acme, "new", "v".into()).await.unwrap_err());
    let options = PutOptions::new();
    denied(&store.put_with_options(&ctx, &acme, "new", "v".into(), options).await.unwrap_err());
    let put = store.put_entry(&ctx, &acme, "new", "v".into(), options, Condition::Always);
    denied(&put.await.unwrap_err());
    let batch = Batch::new().put("new", "v".into());
    denied(&store.write(&ctx, &acme, batch).await.unwrap_err());
    assert!(get(store.inner(), "acme:a", "new").await.unwrap().is_none());
}

#[tokio::test]
async fn shredded_tenant_is_unreadable_and_takes_no_values() {
    for apart in [false, true] {
        let clock = ManualClock::default();
        let (inner, keys, ring) = (memory(&clock), memory(&clock), KeyRing::generate().unwrap());
        let make = || {
            let store = layer(&inner, &ring, &clock);
            let place =
                if apart { KeyStore::apart(Arc::new(keys.clone())) } else { KeyStore::in_store() };
            store.with_key_store(place)
        };
        let (store, other) = (make(), make());
        put(&store, "acme:a", "k", "value").await.unwrap();
        put(&store, "acmes", "k", "neighbour").await.unwrap();
        assert_eq!(get(&other, "acme:a", "k").await.unwrap().unwrap(), "value");

        let tenant = TenantId::new("acme").unwrap();
        let shredded = store.shred(&ctx(), &tenant).await.unwrap();
        assert_eq!(shredded, Shredded { data_keys: 1, already: false });
        assert_shredded(&store).await;
        assert_shredded(&make()).await;
        // Another process follows at the maximum age of its keys.
        clock.advance(Duration::from_secs(60));
        assert_shredded(&other).await;
        assert_eq!(get(&other, "acmes", "k").await.unwrap().unwrap(), "neighbour");

        let again = store.shred(&ctx(), &tenant).await.unwrap();
        assert_eq!(again, Shredded { data_keys: 0, already: true });
        let records = if apart { &keys } else { &inner };
        let record = get(records, "cubbyhole.keys", "acme").await.unwrap().unwrap();
        assert_eq!(record.len(), 6, "the record has more than the mark");
        store.delete(&ctx(), &ns("acme:a"), "k").await.unwrap();
        assert!(get(&store, "acme:a", "k").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn shredding_a_tenant_without_keys_is_permanent() {
    let clock = ManualClock::default();
    let (inner, ring) = (memory(&clock), KeyRing::generate().unwrap());
    let store = layer(&inner, &ring, &clock).with_plaintext(Plaintext::Accept);
    put(&inner, "acme:a", "k", "plain").await.unwrap();
    store.shred(&ctx(), &TenantId::new("acme").unwrap()).await.unwrap();
    assert_shredded(&store).await;
    clock.advance(Duration::from_secs(3_600));
    assert_shredded(&store).await;
}

#[tokio::test]
async fn damaged_record_is_corrupt_until_it_is_shredded() {
    let clock = ManualClock::default();
    let (inner, ring) = (memory(&clock), KeyRing::generate().unwrap());
    put(&layer(&inner, &ring, &clock), "acme:a", "k", "value").await.unwrap();
    put(&inner, "cubbyhole.keys", "acme", "damage").await.unwrap();
    let store = layer(&inner, &ring, &clock);
    let error = get(&store, "acme:a", "k").await.unwrap_err();
    assert_says(&error, ErrorKind::Corrupt, "record");
    let error = put(&store, "acme:a", "k", "value").await.unwrap_err();
    assert_says(&error, ErrorKind::Corrupt, "record");
    store.shred(&ctx(), &TenantId::new("acme").unwrap()).await.unwrap();
    assert_shredded(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn shred_wins_over_concurrent_readers_and_writers() {
    for round in 0..50 {
        let clock = ManualClock::default();
        let (inner, ring) = (memory(&clock), KeyRing::generate().unwrap());
        // Half of the rounds race with the creation of the tenant's key.
        let store = layer(&inner, &ring, &clock);
        let other = layer(&inner, &ring, &clock);
        put(&other, "other", "k", "value").await.unwrap();
        if round % 2 == 0 {
            put(&store, "acme:a", "k", "value").await.unwrap();
        }
        let barrier = Arc::new(tokio::sync::Barrier::new(5));
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..4 {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            tasks.spawn(async move {
                barrier.wait().await;
                for _ in 0..50 {
                    if task % 2 == 0 {
                        let _ = put(&store, "acme:a", "k", "value").await;
                    } else {
                        let _ = get(&store, "acme:a", "k").await;
                    }
                }
            });
        }
        barrier.wait().await;
        store.shred(&ctx(), &TenantId::new("acme").unwrap()).await.unwrap();
        let refused = put(&store, "acme:a", "late", "value").await.unwrap_err();
        assert_says(&refused, ErrorKind::PermissionDenied, "shredded");
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        if get(&inner, "acme:a", "k").await.unwrap().is_some() {
            assert_shredded(&store).await;
        }
        assert_eq!(get(&store, "other", "k").await.unwrap().unwrap(), "value");
    }
}
