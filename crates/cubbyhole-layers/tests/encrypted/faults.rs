//! Writes of the key store and of the store whose answers are lost, or that fail.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use cubbyhole_core::{
    Bytes, Condition, EntryStore, Error, ErrorKind, ExecutionContext, ManualClock, Namespace,
    PutOptions, Result, Store, Version, async_trait, delegate,
};
use cubbyhole_layers::{Encrypted, KeyRing, Plaintext};
use cubbyhole_memory::InMemoryStore;

use crate::common::{Inner, assert_says, ctx, get, memory, ns, put};

/// What happens to a conditional put.
enum Fault {
    /// It is applied, and its answer is this error.
    Applied(Error),
    /// It is not applied.
    Refused(Error),
}

/// A store whose next conditional puts have faults.
#[derive(Clone)]
struct Flaky {
    inner: Inner,
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

impl Flaky {
    fn new() -> Self {
        Self { inner: memory(&ManualClock::default()), faults: Arc::default() }
    }

    fn next(&self, fault: Fault) {
        self.faults.lock().unwrap().push_back(fault);
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store<Bytes> for Flaky {
    delegate!(Bytes, |store| store.inner =>
        put_with_options, get, delete, list, put, list_namespaces, evict_expired
    );
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EntryStore<Bytes> for Flaky {
    async fn put_entry(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
        options: PutOptions,
        condition: Condition,
    ) -> Result<Version> {
        let fault = self.faults.lock().unwrap().pop_front();
        if let Some(Fault::Refused(error)) = fault {
            return Err(error);
        }
        let put = self.inner.put_entry(ctx, ns, key, value, options, condition).await;
        match fault {
            Some(Fault::Applied(error)) => put.and(Err(error)),
            _ => put,
        }
    }

    delegate!(Bytes, |store| store.inner =>
        get_entry, get_many, stat, delete_entry, write, scan, scan_recursive, scan_namespaces,
        scan_tenants, touch, take, delete_prefix, erase, usage, current_time, max_value_bytes
    );
}

/// The connection was lost after the request.
fn unanswered() -> Error {
    Error::unavailable("the connection was lost").with_unknown_outcome()
}

/// The write is visible, but not on enough replicas.
fn unconfirmed() -> Error {
    unanswered().permanent()
}

fn encrypted(store: &Flaky, ring: &KeyRing) -> Encrypted<Flaky> {
    Encrypted::new(store.clone(), Arc::new(ring.clone()))
}

#[tokio::test]
async fn shred_whose_answer_is_lost_reports_what_it_destroyed() {
    let (store, ring) = (Flaky::new(), KeyRing::generate().unwrap());
    let layer = encrypted(&store, &ring);
    put(&layer, "acme", "k", "value").await.unwrap();
    store.next(Fault::Applied(unanswered()));
    let shredded = layer.shred(&ctx(), &ns("acme").tenant()).await.unwrap();
    assert_eq!((shredded.data_keys, shredded.already), (1, false));
}

#[tokio::test]
async fn unconfirmed_shred_has_an_unknown_outcome() {
    let (store, ring) = (Flaky::new(), KeyRing::generate().unwrap());
    let layer = encrypted(&store, &ring);
    put(&layer, "acme", "k", "value").await.unwrap();
    store.next(Fault::Applied(unconfirmed()));
    let error = layer.shred(&ctx(), &ns("acme").tenant()).await.unwrap_err();
    assert!(error.may_have_been_applied(), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn refusal_after_an_unanswered_shred_stays_unknown() {
    let (store, ring) = (Flaky::new(), KeyRing::generate().unwrap());
    let layer = encrypted(&store, &ring);
    put(&layer, "acme", "k", "value").await.unwrap();
    // The first attempt is lost on its way, so the record is unchanged and the call repeats.
    store.next(Fault::Refused(unanswered()));
    store.next(Fault::Refused(Error::unavailable("the server is down")));
    let error = layer.shred(&ctx(), &ns("acme").tenant()).await.unwrap_err();
    assert!(error.may_have_been_applied(), "{error:?}");
}

#[tokio::test]
async fn value_is_not_written_with_an_unconfirmed_key() {
    let (store, ring) = (Flaky::new(), KeyRing::generate().unwrap());
    let layer = encrypted(&store, &ring);
    store.next(Fault::Applied(unconfirmed()));
    let error = put(&layer, "acme", "k", "value").await.unwrap_err();
    assert!(!error.may_have_been_applied(), "{error:?}");
    assert_eq!(store.inner.get(&ctx(), &ns("acme"), "k").await.unwrap(), None);
    // A lost answer is settled by reading the record.
    let layer = encrypted(&Flaky::new(), &ring);
    layer.inner().next(Fault::Applied(unanswered()));
    put(&layer, "acme", "k", "value").await.unwrap();
    assert_eq!(get(&layer, "acme", "k").await.unwrap().unwrap(), "value");
}

#[tokio::test]
async fn rekey_whose_answer_is_lost_reports_what_it_did() {
    let (store, mut ring) = (Flaky::new(), KeyRing::generate().unwrap());
    put(&encrypted(&store, &ring), "acme", "k", "value").await.unwrap();
    ring.rotate().unwrap();
    let layer = encrypted(&store, &ring);
    store.next(Fault::Applied(unanswered()));
    let rekeyed = layer.rekey(&ctx(), &ns("acme").tenant()).await.unwrap();
    assert_eq!((rekeyed.new_data_key, rekeyed.rewrapped), (true, 1));
}

#[tokio::test]
async fn failed_rewrite_is_an_error_of_the_step() {
    let (store, ring) = (Flaky::new(), KeyRing::generate().unwrap());
    store.put(&ctx(), &ns("acme"), "k", "plain".into()).await.unwrap();
    let layer = encrypted(&store, &ring).with_plaintext(Plaintext::Accept);
    put(&layer, "acme", "other", "value").await.unwrap();
    for error in [unanswered(), unconfirmed(), Error::unavailable("down").permanent()] {
        store.next(Fault::Refused(error.clone()));
        let step = layer.reencrypt_step(&ctx(), &ns("acme").into(), None, 10).await;
        let failed = step.unwrap_err();
        assert_eq!(failed.may_have_been_applied(), error.may_have_been_applied(), "{failed:?}");
    }
    let step = layer.reencrypt_step(&ctx(), &ns("acme").into(), None, 10).await.unwrap();
    assert_eq!((step.rewritten, step.unreadable.len()), (1, 0));
}

#[tokio::test]
async fn plain_value_that_is_too_long_is_reported_and_kept() {
    let ring = KeyRing::generate().unwrap();
    let builder = InMemoryStore::builder().with_value_size(Bytes::len);
    let inner = builder.with_max_value_bytes(200).build();
    for (key, bytes) in [("a", 10), ("long", 190), ("z", 20)] {
        inner.put(&ctx(), &ns("acme"), key, vec![b'x'; bytes].into()).await.unwrap();
    }
    let layer = Encrypted::new(inner, Arc::new(ring)).with_plaintext(Plaintext::Accept);
    let step = layer.reencrypt_step(&ctx(), &ns("acme").into(), None, 10).await.unwrap();
    assert_eq!((step.checked, step.rewritten, step.unreadable.len()), (3, 2, 1));
    let entry = &step.unreadable[0];
    assert_eq!(entry.key, "long");
    assert_says(&entry.error, ErrorKind::InvalidArgument, "44 bytes too long");
    assert_eq!(get(&layer, "acme", "long").await.unwrap().unwrap().len(), 190);
}

#[tokio::test]
async fn tenants_without_entries_are_scanned_by_their_keys() {
    let ring = KeyRing::generate().unwrap();
    let layer = encrypted(&Flaky::new(), &ring);
    for tenant in ["a", "ab", r"c\:d"] {
        put(&layer, tenant, "k", "value").await.unwrap();
        layer.delete(&ctx(), &ns(tenant), "k").await.unwrap();
    }
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = layer.scan_keyed_tenants(&ctx(), after.as_ref(), 2).await.unwrap();
        found.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, ["a", "ab", r"c\:d"].map(|name| ns(name).tenant()));
    assert_eq!(layer.scan_tenants(&ctx(), None, 10).await.unwrap().items, []);
}
