//! Reads of more than 16 MiB, which take several scripts.

use cubbyhole_core::{Batch, Bytes, EntryStore, GetOptions, ScanOptions, Store};
use cubbyhole_testkit::helpers::{bytes, ctx, ns};

use crate::helpers::{new_prefix, open, shared_server};
use crate::proxy::{Command, Gate, ProxiedStore, RedisProxy, script_keys};

const COUNT: usize = 40;
const BYTES: usize = 1024 * 1024;

fn value(first: u8) -> Bytes {
    Bytes::from(vec![first; BYTES])
}

fn keys() -> Vec<String> {
    (0..COUNT).map(|number| format!("k{number:02}")).collect()
}

/// Returns whether a command is the script that reads entries: the metadata, then values.
fn reads_entries(command: &Command) -> bool {
    let keys = script_keys(command);
    keys.len() > 1 && keys[0].ends_with("}m") && keys[1].contains("}v")
}

#[tokio::test]
async fn large_reads_are_split_into_several_scripts() {
    let proxy = RedisProxy::start(shared_server()).await;
    let store = open(&proxy.url(), &new_prefix()).await;
    let name = ns("large");
    let keys = keys();
    for (number, key) in keys.iter().enumerate() {
        let value = value(u8::try_from(number).unwrap());
        store.put(&ctx(), &name, key, value).await.unwrap();
    }
    store.get_many(&ctx(), &name, &["k00"], GetOptions::new()).await.unwrap();
    proxy.take_commands();
    let mut asked: Vec<&str> = keys.iter().map(String::as_str).collect();
    asked.insert(20, "absent");
    asked.push("k07");
    let entries = store.get_many(&ctx(), &name, &asked, GetOptions::new()).await.unwrap();
    assert_eq!(entries.len(), asked.len());
    for (key, entry) in asked.iter().zip(entries) {
        let found = entry.unwrap().map(|entry| (entry.value.len(), entry.value[0]));
        let number = key.strip_prefix('k').map(|number| number.parse().unwrap());
        assert_eq!(found, number.map(|number: u8| (BYTES, number)), "{key}");
    }
    let scripts = proxy.take_commands().iter().filter(|command| reads_entries(command)).count();
    assert_eq!(scripts, 3, "16 MiB at a time");

    let page = ScanOptions::new().with_limit(COUNT);
    let page = store.scan(&ctx(), &name, page).await.unwrap();
    assert_eq!(page.items.iter().map(|item| &item.key).collect::<Vec<_>>(), Vec::from_iter(&keys));
    for (number, item) in page.items.into_iter().enumerate() {
        assert_eq!(item.value.unwrap().unwrap()[0], u8::try_from(number).unwrap());
    }
}

#[tokio::test]
async fn large_read_is_a_snapshot_of_one_instant() {
    let ProxiedStore { proxy, store, direct, .. } = ProxiedStore::open(shared_server()).await;
    let name = ns("large");
    let keys = keys();
    for key in &keys {
        store.put(&ctx(), &name, key, value(b'-')).await.unwrap();
    }
    let batch = || {
        let batch = Batch::new().put("k00", bytes("first")).put("k20", bytes("middle"));
        batch.put("k39", bytes("last"))
    };
    // Loads the script into the server.
    store.get_many(&ctx(), &name, &["k00"], GetOptions::new()).await.unwrap();
    // Holds the second script, once.
    let mut scripts = 0;
    proxy.set_rule(move |command| {
        scripts += usize::from(reads_entries(command));
        if scripts == 2 && reads_entries(command) { Gate::Hold } else { Gate::Pass }
    });
    let asked: Vec<&str> = keys.iter().map(String::as_str).collect();
    let (context, writing) = (ctx(), async {
        proxy.until_held().await;
        direct.write(&ctx(), &name, batch()).await.unwrap();
        proxy.release();
    });
    let (entries, ()) =
        tokio::join!(store.get_many(&context, &name, &asked, GetOptions::new()), writing);
    let entries: Vec<Bytes> =
        entries.unwrap().into_iter().map(|entry| entry.unwrap().unwrap().value).collect();
    for (number, expected) in [(0, "first"), (20, "middle"), (39, "last")] {
        assert_eq!(entries[number], bytes(expected), "{number}");
    }
    assert!((1..20).chain(21..39).all(|number| entries[number] == value(b'-')));
}
