//! Calls that empty a namespace or an index while its slot is being moved. The old master then
//! rejects a command on an absent key, also in the middle of a script.

use std::time::Duration;

use cubbyhole_core::{Condition, EntryStore, NamespacePrefix, PutOptions, Store};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, until};

use crate::clusters::{
    ExclusiveCluster, begin_move, cli, config, exclusive_cluster, finish_move, open, owner,
};
use crate::helpers::slot;

/// Writes two entries into a namespace that was erased before. It therefore has a fence.
async fn refill(store: &RedisStore, name: &str, options: PutOptions) {
    let (name, prefix) = (ns(name), NamespacePrefix::from(ns(name)));
    store.put(&ctx(), &name, "a", bytes("v")).await.unwrap();
    assert!(store.erase(&ctx(), &prefix, 1000).await.unwrap().done);
    for key in ["a", "b"] {
        store
            .put_entry(&ctx(), &name, key, bytes("v"), options, Condition::IfAbsent)
            .await
            .unwrap();
    }
}

/// Returns the kinds of a namespace's keys on its master.
fn kinds(cluster: &ExclusiveCluster, prefix: &str, name: &str) -> Vec<String> {
    let all =
        cli(&cluster.nodes()[owner(cluster, name)], &["KEYS", &format!("{prefix}{{{name}}}*")]);
    let mut kinds: Vec<String> =
        all.lines().map(|key| key.rsplit('}').next().unwrap().to_owned()).collect();
    kinds.sort();
    kinds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn emptying_a_namespace_during_a_slot_move_is_atomic() {
    let cluster = exclusive_cluster().await;
    let config = config(cluster.url());
    let prefix = config.prefix().to_owned();
    let store = open(config).await;
    let ways = ["erase", "sweep", "take", "delete", "delete_prefix"];
    for (number, way) in ways.into_iter().enumerate() {
        let tag = format!("half:{number}");
        let (name, under) = (ns(&tag), NamespacePrefix::from(ns(&tag)));
        let ttl = if way == "sweep" { Duration::from_millis(1) } else { Duration::from_secs(600) };
        refill(&store, &tag, PutOptions::new().with_ttl(ttl)).await;
        let expected = if way == "sweep" {
            ["f", "k", "m", "x"].to_vec()
        } else {
            ["f", "k", "m", "va", "vb", "x"].to_vec()
        };
        until("the expected keys", async || kinds(&cluster, &prefix, &tag) == expected).await;
        begin_move(&cluster, slot(&tag));
        match way {
            "erase" => {
                let erased = store.erase(&ctx(), &under, 1000).await.unwrap();
                assert_eq!((erased.removed, erased.done), (2, true));
            }
            "delete_prefix" => {
                let deleted = store.delete_prefix(&ctx(), &name, "", 1000).await.unwrap();
                assert_eq!((deleted.removed, deleted.done), (2, true));
            }
            "sweep" => assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 2),
            "take" => {
                for key in ["a", "b"] {
                    assert!(store.take(&ctx(), &name, key).await.unwrap().is_some(), "{key}");
                }
            }
            _ => {
                for key in ["a", "b"] {
                    assert!(
                        store.delete_entry(&ctx(), &name, key, Condition::Always).await.unwrap()
                    );
                }
            }
        }
        let left = if matches!(way, "erase" | "sweep") { ["f"].to_vec() } else { vec!["f", "x"] };
        assert_eq!(kinds(&cluster, &prefix, &tag), left, "{way}");
        finish_move(&cluster, slot(&tag));
        assert!(store.list(&ctx(), &name, None).await.unwrap().is_empty());
        // The namespace can be written and listed again.
        store.put(&ctx(), &name, "c", bytes("v")).await.unwrap();
        assert!(store.list_namespaces(&ctx(), &under).await.unwrap().contains(&name), "{way}");
    }
    cluster.give_back();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tenant_registers_again_while_the_tenant_index_moves() {
    let cluster = exclusive_cluster().await;
    let config = config(cluster.url());
    let prefix = config.prefix().to_owned();
    let store = open(config).await;
    store.put(&ctx(), &ns("again:a"), "k", bytes("v")).await.unwrap();
    // Without its own index, the tenant registers again. It is the only member of the tenant index.
    let index = format!("{prefix}{{again}}n");
    assert_eq!(cli(&cluster.nodes()[owner(&cluster, "again")], &["DEL", &index]), "1");
    begin_move(&cluster, slot(r"\*"));
    store.put(&ctx(), &ns("again:b"), "k", bytes("v")).await.unwrap();
    finish_move(&cluster, slot(r"\*"));
    let tenants = store.scan_tenants(&ctx(), None, 10).await.unwrap();
    assert_eq!(tenants.items, [ns("again").tenant()]);
    cluster.give_back();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tenant_swept_while_its_index_moves_accepts_new_puts() {
    let cluster = exclusive_cluster().await;
    let store = open(config(cluster.url())).await;
    let (name, tenant) = (ns("swept:a"), NamespacePrefix::from(ns("swept")));
    for _ in 0..2 {
        store.put(&ctx(), &name, "k", bytes("v")).await.unwrap();
        store.erase(&ctx(), &tenant, 1000).await.unwrap();
    }
    store.put(&ctx(), &name, "k", bytes("v")).await.unwrap();
    store.delete(&ctx(), &name, "k").await.unwrap();
    begin_move(&cluster, slot("swept"));
    store.evict_expired(&ctx()).await.unwrap();
    finish_move(&cluster, slot("swept"));
    assert!(store.scan_tenants(&ctx(), None, 10).await.unwrap().items.is_empty());
    store.put(&ctx(), &name, "k", bytes("v")).await.unwrap();
    assert_eq!(store.list_namespaces(&ctx(), &tenant).await.unwrap(), [name]);
    cluster.give_back();
}
