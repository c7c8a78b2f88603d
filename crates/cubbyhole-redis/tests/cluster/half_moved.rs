//! Calls that remove the last of something while its slot is being moved. The old master then fails
//! a command that names a key that is not there, in the middle of a script too.

use std::time::Duration;

use cubbyhole_core::{Condition, EntryStore, NamespacePrefix, PutOptions, Store};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisCluster;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, until};
use tokio::task::block_in_place;

use crate::clusters::{Harmed, cli, config, finish_move, harmed, open, owner};
use crate::shared::slot;

/// Declares that a slot moves, and leaves all keys where they are.
fn begin_move(cluster: &RedisCluster, tag: &str) {
    let owner = owner(cluster, tag);
    let masters = block_in_place(|| cluster.masters()).unwrap();
    let target = masters.into_iter().find(|master| *master != owner).unwrap();
    block_in_place(|| cluster.begin_move(slot(tag), target)).unwrap();
}

/// A namespace that was empty once, so that it has a fence, and has entries.
async fn refilled(store: &RedisStore, name: &str, options: PutOptions) {
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

/// The keys of a namespace on its master, without what stands before the kind.
fn kinds(cluster: &Harmed, prefix: &str, name: &str) -> Vec<String> {
    let all =
        cli(&cluster.nodes()[owner(cluster, name)], &["KEYS", &format!("{prefix}{{{name}}}*")]);
    let mut kinds: Vec<String> =
        all.lines().map(|key| key.rsplit('}').next().unwrap().to_owned()).collect();
    kinds.sort();
    kinds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_empties_a_namespace_that_begins_to_move_does_so_whole() {
    let cluster = harmed().await;
    let config = config(cluster.url());
    let prefix = config.prefix().to_owned();
    let store = open(config).await;
    for (number, way) in ["erase", "sweep", "take", "delete"].into_iter().enumerate() {
        let tag = format!("half:{number}");
        let (name, under) = (ns(&tag), NamespacePrefix::from(ns(&tag)));
        let ttl = if way == "sweep" { Duration::from_millis(1) } else { Duration::from_secs(600) };
        refilled(&store, &tag, PutOptions::new().with_ttl(ttl)).await;
        let expected = if way == "sweep" {
            ["f", "k", "m", "x"].to_vec()
        } else {
            ["f", "k", "m", "va", "vb", "x"].to_vec()
        };
        until("the entries", async || kinds(&cluster, &prefix, &tag) == expected).await;
        begin_move(&cluster, &tag);
        match way {
            "erase" => {
                let erased = store.erase(&ctx(), &under, 1000).await.unwrap();
                assert_eq!((erased.removed, erased.done), (2, true));
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
        // Nothing is in the way of what comes next.
        store.put(&ctx(), &name, "c", bytes("v")).await.unwrap();
        assert!(store.list_namespaces(&ctx(), &under).await.unwrap().contains(&name), "{way}");
    }
    cluster.give_back();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tenant_is_listed_anew_while_the_index_of_tenants_begins_to_move() {
    let cluster = harmed().await;
    let config = config(cluster.url());
    let prefix = config.prefix().to_owned();
    let store = open(config).await;
    store.put(&ctx(), &ns("anew:a"), "k", bytes("v")).await.unwrap();
    // Its own index is lost, so that it asks to be listed where it is already: alone.
    let index = format!("{prefix}{{anew}}n");
    assert_eq!(cli(&cluster.nodes()[owner(&cluster, "anew")], &["DEL", &index]), "1");
    begin_move(&cluster, r"\*");
    store.put(&ctx(), &ns("anew:b"), "k", bytes("v")).await.unwrap();
    finish_move(&cluster, slot(r"\*"));
    let tenants = store.scan_tenants(&ctx(), None, 10).await.unwrap();
    assert_eq!(tenants.items, [ns("anew").tenant()]);
    cluster.give_back();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tenant_that_is_swept_while_its_index_begins_to_move_can_be_written_to() {
    let cluster = harmed().await;
    let store = open(config(cluster.url())).await;
    let (name, tenant) = (ns("swept:a"), NamespacePrefix::from(ns("swept")));
    for _ in 0..2 {
        store.put(&ctx(), &name, "k", bytes("v")).await.unwrap();
        store.erase(&ctx(), &tenant, 1000).await.unwrap();
    }
    store.put(&ctx(), &name, "k", bytes("v")).await.unwrap();
    store.delete(&ctx(), &name, "k").await.unwrap();
    begin_move(&cluster, "swept");
    store.evict_expired(&ctx()).await.unwrap();
    finish_move(&cluster, slot("swept"));
    assert!(store.scan_tenants(&ctx(), None, 10).await.unwrap().items.is_empty());
    store.put(&ctx(), &name, "k", bytes("v")).await.unwrap();
    assert_eq!(store.list_namespaces(&ctx(), &tenant).await.unwrap(), [name]);
    cluster.give_back();
}
