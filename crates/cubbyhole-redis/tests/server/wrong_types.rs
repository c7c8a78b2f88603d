//! Keys of the store that another program has replaced with keys of another type.

use cubbyhole_core::{
    Batch, Condition, EntryStore, Error, ErrorKind, Expiry, GetOptions, PutOptions,
    RecursiveScanOptions, ScanOptions, Store,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::helpers::{PATIENCE, bytes, ctx, ns, under};

use crate::helpers::{dump_keys, new_prefix, open, replace_with_list, shared_server};

const WRITES: usize = 11;
const CALLS: usize = WRITES + 12;

/// Makes the call with that number. The first [`WRITES`] calls write.
async fn call(store: &RedisStore, number: usize) -> Result<(), Error> {
    let (context, acme) = (ctx(), ns("acme"));
    let ttl = PutOptions::new().with_ttl(PATIENCE);
    let idle = Expiry::Idle(PATIENCE);
    match number {
        0 => {
            let mut batch = Batch::new();
            for (key, options) in [("a", PutOptions::new()), ("ttl", ttl), ("new", ttl)] {
                let always = Condition::Always;
                batch = batch.put_with(key, bytes("written"), options, always);
            }
            store.write(&context, &acme, batch.delete("b")).await.map(drop)
        }
        1 => store.put(&context, &acme, "a", bytes("written")).await,
        2 => store.put(&context, &acme, "ttl", bytes("for good")).await,
        3 => store.put(&context, &acme, "new", bytes("written")).await,
        4 => store.delete(&context, &acme, "a").await,
        5 => store
            .touch(&context, &acme, "a", Expiry::After(PATIENCE), Condition::Always)
            .await
            .map(drop),
        6 => {
            let slide = GetOptions::new().with_extended_ttl(PATIENCE * 10);
            store.get_entry(&context, &acme, "ttl", slide).await.map(drop)
        }
        7 => store.take(&context, &acme, "a").await.map(drop),
        8 => store.delete_prefix(&context, &acme, "", 10).await.map(drop),
        9 => store.touch(&context, &acme, "a", idle, Condition::IfPresent).await.map(drop),
        10 => {
            let slide = GetOptions::new().with_extended_ttl(PATIENCE * 10).refreshing();
            store.get_many(&context, &acme, &["a", "ttl", "none"], slide).await.map(drop)
        }
        11 => store.get(&context, &acme, "a").await.map(drop),
        12 => store.get_entry(&context, &acme, "a", GetOptions::new()).await.map(drop),
        13 => store.list(&context, &acme, None).await.map(drop),
        14 => store.scan(&context, &acme, ScanOptions::new()).await.map(drop),
        15 => store.usage(&context, &under("acme")).await.map(drop),
        16 => store.scan_namespaces(&context, &under("acme"), None, 10).await.map(drop),
        17 => store.scan_tenants(&context, None, 10).await.map(drop),
        18 => store.stat(&context, &acme, &["a", "b"]).await.map(drop),
        19 => store.scan(&context, &acme, ScanOptions::new().reversed()).await.map(drop),
        20 => {
            let options = RecursiveScanOptions::new();
            store.scan_recursive(&context, &under("acme"), options).await.map(drop)
        }
        21 => store.put(&context, &ns("acme:other"), "k", bytes("written")).await,
        _ => store.put(&context, &ns("globex"), "k", bytes("written")).await,
    }
}

#[tokio::test]
async fn key_of_another_type_is_corrupt_and_not_retryable() {
    let (wrong, _) = replace_each_kind().await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn failed_call_on_a_key_of_another_type_writes_nothing() {
    let (_, half_written) = replace_each_kind().await;
    assert!(half_written.is_empty(), "{half_written:#?}");
}

/// Makes every call with each kind of key replaced. Returns the calls with a wrong error, and the
/// failed writes that changed something.
async fn replace_each_kind() -> (Vec<String>, Vec<String>) {
    let server = shared_server();
    let (mut wrong, mut half_written) = (Vec::new(), Vec::new());
    for kind in ["{acme}va", "{acme}m", "{acme}k", "{acme}x", "{acme}n", r"{\*}n"] {
        let mut corrupt = 0;
        for number in 0..CALLS {
            let prefix = new_prefix();
            let store = open(server.url(), &prefix).await;
            let acme = ns("acme");
            for key in ["a", "b"] {
                store.put(&ctx(), &acme, key, bytes("old")).await.unwrap();
            }
            let ttl = PutOptions::new().with_ttl(PATIENCE);
            store.put_with_options(&ctx(), &acme, "ttl", bytes("old"), ttl).await.unwrap();
            replace_with_list(server, &format!("{prefix}{kind}"));
            let before = dump_keys(server, &prefix);
            let Err(error) = call(&store, number).await else { continue };
            corrupt += 1;
            let after = dump_keys(server, &prefix);
            let changed: Vec<_> =
                after.keys().filter(|key| after.get(*key) != before.get(*key)).collect();
            if error.kind() != ErrorKind::Corrupt || error.is_retryable() {
                wrong.push(format!("{kind} {number}: {error:?}"));
            }
            if !changed.is_empty() && number < WRITES {
                half_written.push(format!("{kind} {number}: {changed:?}"));
            }
        }
        if corrupt == 0 {
            wrong.push(format!("{kind}: no call failed"));
        }
    }
    (wrong, half_written)
}
