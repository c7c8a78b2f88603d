//! One call of each kind, with the round trips that it takes.
//!
//! The test counts on the wire and runs on one thread, so everything that the client sends together
//! reaches the proxy together.

use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, Condition, EntryStore, ErrorKind, ExecutionContext, Expiry, GetOptions,
    PutOptions, Version,
};

use crate::stores::helpers::{bytes, ctx, ns};

/// The namespace of the entries.
pub const NAMESPACE: &str = "acme";

/// The versions of the entries that conditional calls find.
#[derive(Debug)]
pub struct Prepared {
    at_version: Version,
    delete_at: Version,
    batch_at: Version,
}

/// Writes the entries that [`every_call`] finds.
pub async fn prepare(store: &dyn EntryStore<Bytes>) -> Prepared {
    let (context, acme) = (ctx(), ns(NAMESPACE));
    let put = async |key: &str| {
        let (old, options, always) = (bytes("old"), PutOptions::new(), Condition::Always);
        store.put_entry(&context, &acme, key, old, options, always).await.unwrap()
    };
    for key in ["get", "delete", "touch", "take", "conflict"] {
        put(key).await;
    }
    let sliding = PutOptions::new().with_ttl(Duration::from_secs(3600));
    store.put_with_options(&context, &acme, "sliding", bytes("old"), sliding).await.unwrap();
    store.delete(&context, &acme, "absent").await.unwrap();
    Prepared {
        at_version: put("at version").await,
        delete_at: put("delete at version").await,
        batch_at: put("batch").await,
    }
}

/// Makes one call of each kind that reads or writes entries, each with its own context. Returns the
/// name of each call and how much `count` grew during it.
pub async fn every_call(
    store: &dyn EntryStore<Bytes>,
    prepared: Prepared,
    mut context: impl FnMut() -> ExecutionContext,
    count: impl Fn() -> usize,
) -> Vec<(&'static str, usize)> {
    let Prepared { at_version, delete_at, batch_at } = prepared;
    let (acme, options, new) = (ns(NAMESPACE), PutOptions::new(), || bytes("new"));
    let mut seen = Vec::new();
    macro_rules! count {
        ($name:literal, $method:ident($($argument:expr),*)) => {{
            let (context, before) = (context(), count());
            let answer = store.$method(&context $(, $argument)*).await;
            seen.push(($name, count() - before));
            answer
        }};
    }

    assert_eq!(count!("get", get(&acme, "get")).unwrap(), Some(bytes("old")));
    count!("put", put(&acme, "put", new())).unwrap();
    let ttl = options.with_ttl(Duration::from_secs(60));
    count!("put with a TTL", put_with_options(&acme, "ttl", new(), ttl)).unwrap();
    count!("put_entry", put_entry(&acme, "put", new(), options, Condition::Always)).unwrap();
    let absent = Condition::IfAbsent;
    count!("put_entry if absent", put_entry(&acme, "absent", new(), options, absent)).unwrap();
    let at = Condition::IfVersion(at_version);
    count!("put_entry at", put_entry(&acme, "at version", new(), options, at)).unwrap();
    let lost = count!("a conflict", put_entry(&acme, "conflict", new(), options, at));
    assert_eq!(lost.unwrap_err().kind(), ErrorKind::Conflict);
    count!("delete", delete(&acme, "delete")).unwrap();
    let at = Condition::IfVersion(delete_at);
    let deleted = count!("delete_entry", delete_entry(&acme, "delete at version", at));
    assert!(deleted.unwrap());
    let expiry = Expiry::After(Duration::from_secs(60));
    assert!(count!("touch", touch(&acme, "touch", expiry, Condition::Always)).unwrap());
    assert!(count!("take", take(&acme, "take")).unwrap().is_some());
    let read = GetOptions::new();
    assert!(count!("get_entry", get_entry(&acme, "get", read)).unwrap().is_some());
    let slide = read.with_extended_ttl(Duration::from_secs(7200));
    let slid = count!("get_entry, sliding", get_entry(&acme, "sliding", slide)).unwrap();
    assert!(slid.is_some());
    let many = count!("get_many", get_many(&acme, &["get", "put", "none"], read)).unwrap();
    assert_eq!(many.len(), 3);
    assert_eq!(many.iter().filter(|entry| matches!(entry, Ok(Some(_)))).count(), 2);
    let batch = Batch::new()
        .put_with("batch", new(), options, Condition::IfVersion(batch_at))
        .put("batch 2", new())
        .delete("get");
    assert_eq!(count!("a batch", write(&acme, batch)).unwrap().len(), 3);
    seen
}
