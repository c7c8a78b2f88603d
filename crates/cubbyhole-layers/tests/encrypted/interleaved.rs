//! Explicit interleavings with another process or task.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cubbyhole_core::{
    Bytes, Condition, Entry, EntryStat, EntryStore, ErrorKind, ExecutionContext, Expiry,
    GetOptions, ManualClock, Namespace, PutOptions, Result, Store, async_trait, delegate,
};
use cubbyhole_layers::{Encrypted, KeyRing, KeyStore};

use crate::common::{Inner, assert_says, ctx, get, layer, memory, ns, put};

type Hook = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Runs a hook once: after `get_entry` has read, or before `stat` reads, or after it has.
#[derive(Clone)]
struct Hooked {
    inner: Inner,
    after_get_entry: Arc<Mutex<Option<Hook>>>,
    before_stat: Arc<Mutex<Option<Hook>>>,
    after_stat: Arc<Mutex<Option<Hook>>>,
}

impl Hooked {
    fn new(inner: &Inner) -> Self {
        Self {
            inner: inner.clone(),
            after_get_entry: Arc::default(),
            before_stat: Arc::default(),
            after_stat: Arc::default(),
        }
    }
}

fn set<F: Future<Output = ()> + Send + 'static>(
    place: &Mutex<Option<Hook>>,
    hook: impl FnOnce() -> F + Send + 'static,
) {
    *place.lock().unwrap() = Some(Box::new(|| Box::pin(hook())));
}

async fn run(place: &Mutex<Option<Hook>>) {
    let hook = place.lock().unwrap().take();
    if let Some(hook) = hook {
        hook().await;
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store<Bytes> for Hooked {
    delegate!(Bytes, |store| store.inner =>
        put_with_options, get, delete, list, put, list_namespaces, evict_expired
    );
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EntryStore<Bytes> for Hooked {
    async fn get_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        options: GetOptions,
    ) -> Result<Option<Entry<Bytes>>> {
        let entry = self.inner.get_entry(ctx, ns, key, options).await;
        run(&self.after_get_entry).await;
        entry
    }

    async fn stat(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[&str],
    ) -> Result<Vec<Option<EntryStat>>> {
        run(&self.before_stat).await;
        let stats = self.inner.stat(ctx, ns, keys).await;
        run(&self.after_stat).await;
        stats
    }

    delegate!(Bytes, |store| store.inner =>
        get_many, put_entry, delete_entry, write, scan, scan_recursive, scan_namespaces,
        scan_tenants, touch, take, delete_prefix, erase, usage, current_time, max_value_bytes
    );
}

#[tokio::test]
async fn slow_reader_of_a_record_does_not_undo_a_shred() {
    let clock = ManualClock::default();
    let (inner, ring) = (memory(&clock), KeyRing::generate().unwrap());
    put(&layer(&inner, &ring, &clock), "acme", "k", "value").await.unwrap();
    let keys = Hooked::new(&inner);
    let store = layer(&inner, &ring, &clock);
    let store = store.with_key_store(KeyStore::apart(Arc::new(keys.clone())));
    let shredding = store.clone();
    set(&keys.after_get_entry, || async move {
        shredding.shred(&ctx(), &ns("acme").tenant()).await.unwrap();
    });
    // This read began before the shredding and may still succeed.
    assert_eq!(get(&store, "acme", "k").await.unwrap().unwrap(), "value");
    let error = get(&store, "acme", "k").await.unwrap_err();
    assert_says(&error, ErrorKind::Corrupt, "shredded");
}

#[tokio::test]
async fn shred_between_read_and_creation_of_a_key_wins() {
    let clock = ManualClock::default();
    let (inner, ring) = (memory(&clock), KeyRing::generate().unwrap());
    let keys = Hooked::new(&inner);
    let store = layer(&inner, &ring, &clock);
    let store = store.with_key_store(KeyStore::apart(Arc::new(keys.clone())));
    let other = layer(&inner, &ring, &clock);
    set(&keys.after_get_entry, || async move {
        other.shred(&ctx(), &ns("acme").tenant()).await.unwrap();
    });
    let error = put(&store, "acme", "k", "value").await.unwrap_err();
    assert_says(&error, ErrorKind::PermissionDenied, "shredded");
}

#[tokio::test]
async fn rekey_does_not_undo_a_concurrent_shred() {
    let clock = ManualClock::default();
    let (inner, mut ring) = (memory(&clock), KeyRing::generate().unwrap());
    put(&layer(&inner, &ring, &clock), "acme", "k", "value").await.unwrap();
    ring.rotate().unwrap();
    let keys = Hooked::new(&inner);
    let store = layer(&inner, &ring, &clock);
    let store = store.with_key_store(KeyStore::apart(Arc::new(keys.clone())));
    let other = layer(&inner, &ring, &clock);
    set(&keys.after_get_entry, || async move {
        other.shred(&ctx(), &ns("acme").tenant()).await.unwrap();
    });
    assert!(store.rekey(&ctx(), &ns("acme").tenant()).await.unwrap().shredded);
    let error = get(&store, "acme", "k").await.unwrap_err();
    assert_says(&error, ErrorKind::Corrupt, "shredded");
}

struct Rotated {
    inner: Inner,
    hooked: Hooked,
    old: Encrypted<Inner>,
    store: Encrypted<Hooked>,
}

/// An entry that has to be encrypted again.
async fn rotated() -> Rotated {
    let clock = ManualClock::default();
    let (inner, mut ring) = (memory(&clock), KeyRing::generate().unwrap());
    let old = layer(&inner, &ring, &clock);
    let options = PutOptions::new().with_idle_ttl(Duration::from_secs(100));
    old.put_with_options(&ctx(), &ns("acme"), "k", "first".into(), options).await.unwrap();
    ring.rotate().unwrap();
    let hooked = Hooked::new(&inner);
    let store = Encrypted::new(hooked.clone(), Arc::new(ring)).with_clock(clock);
    store.rekey(&ctx(), &ns("acme").tenant()).await.unwrap();
    Rotated { inner, hooked, old, store }
}

#[tokio::test]
async fn write_during_a_reencryption_step_wins() {
    for late in [false, true] {
        let Rotated { hooked, old, store, .. } = rotated().await;
        let place = if late { &hooked.after_stat } else { &hooked.before_stat };
        set(place, || async move { put(&old, "acme", "k", "second").await.unwrap() });
        let step = store.reencrypt_step(&ctx(), &ns("acme").into(), None, 10).await.unwrap();
        // The other process still used the old data key, so its value is encrypted again.
        assert_eq!((step.checked, step.rewritten), (1, 1));
        assert_eq!(get(&store, "acme", "k").await.unwrap().unwrap(), "second");

        let Rotated { hooked, store, .. } = rotated().await;
        let place = if late { &hooked.after_stat } else { &hooked.before_stat };
        let writer = store.clone();
        set(place, || async move { put(&writer, "acme", "k", "third").await.unwrap() });
        let step = store.reencrypt_step(&ctx(), &ns("acme").into(), None, 10).await.unwrap();
        assert_eq!((step.checked, step.rewritten, step.changed), (1, 0, 1));
        assert_eq!(get(&store, "acme", "k").await.unwrap().unwrap(), "third");
    }
}

#[tokio::test]
async fn removal_during_a_reencryption_step_wins() {
    for late in [false, true] {
        let Rotated { inner, hooked, store, .. } = rotated().await;
        let place = if late { &hooked.after_stat } else { &hooked.before_stat };
        let other = inner.clone();
        set(place, || async move { other.delete(&ctx(), &ns("acme"), "k").await.unwrap() });
        let step = store.reencrypt_step(&ctx(), &ns("acme").into(), None, 10).await.unwrap();
        assert_eq!((step.rewritten, step.changed), (0, 1));
        assert!(get(&inner, "acme", "k").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn touch_after_the_page_was_read_is_kept() {
    let Rotated { inner, hooked, store, .. } = rotated().await;
    let other = inner.clone();
    set(&hooked.before_stat, || async move {
        let expiry = Expiry::After(Duration::from_secs(5_000));
        other.touch(&ctx(), &ns("acme"), "k", expiry, Condition::Always).await.unwrap();
    });
    store.reencrypt_step(&ctx(), &ns("acme").into(), None, 10).await.unwrap();
    let entry = inner.get_entry(&ctx(), &ns("acme"), "k", GetOptions::new()).await.unwrap();
    let meta = entry.unwrap().meta;
    let lifetime = meta.expires_at.unwrap().saturating_since(meta.created_at);
    assert_eq!(lifetime, Duration::from_secs(5_000));
}
