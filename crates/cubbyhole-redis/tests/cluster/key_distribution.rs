//! The distribution of keys: each namespace is in one slot, and namespaces are on all masters.

use std::collections::{BTreeMap, BTreeSet};

use cubbyhole_core::{Batch, EntryStore, GetOptions, NamespacePrefix, Store, TenantId};
use cubbyhole_testkit::helpers::{bytes, ctx, ns};

use crate::clusters::{cli, config, open, shared_cluster};

const NAMESPACES: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_spread_over_all_masters_one_slot_each() {
    let cluster = shared_cluster().await;
    let config = config(cluster.url());
    let prefix = config.prefix().to_owned();
    let store = open(config).await;
    let forms = ["a:N", "b{N}", "}c:N", "{d}:N", "{}:N", "{:}N", "e}N{:x", "{x}{y}:N", r"f\\{N:{}"];
    let mut written = BTreeSet::new();
    for number in 0..NAMESPACES {
        let name = ns(&forms[number % forms.len()].replace('N', &number.to_string()));
        // The server refuses a batch whose keys are in different slots.
        let value = bytes(name.as_str());
        let batch = Batch::new().put("{k}", value.clone()).put("}{", value);
        store.write(&ctx(), &name, batch).await.unwrap();
        written.insert(name);
    }
    assert_eq!(written.len(), NAMESPACES);

    let mut slots = BTreeMap::<String, BTreeSet<String>>::new();
    for (index, node) in cluster.nodes().iter().enumerate().take(3) {
        let keys = cli(node, &["KEYS", &format!("{prefix}{{*")]);
        let values: Vec<&str> = keys.lines().filter(|key| key.ends_with("}v{k}")).collect();
        let share = values.len();
        assert!(share > NAMESPACES / 6, "node {index} has {share} of {NAMESPACES} namespaces");
        for key in keys.lines() {
            let (tag, _) = key.split_once('}').unwrap();
            let slot = cli(node, &["CLUSTER", "KEYSLOT", key]);
            slots.entry(tag.to_owned()).or_default().insert(slot);
        }
    }
    assert!(slots.values().all(|slots| slots.len() == 1), "{slots:?}");
    let different: BTreeSet<_> = slots.values().flatten().collect();
    assert!(different.len() > NAMESPACES / 2, "only {} slots", different.len());

    let mut listed = BTreeSet::new();
    let tenants = store.scan_tenants(&ctx(), None, 1000).await.unwrap().items;
    assert!(tenants.contains(&TenantId::new("{}").unwrap()));
    for tenant in tenants {
        let prefix = NamespacePrefix::from(tenant);
        listed.extend(store.list_namespaces(&ctx(), &prefix).await.unwrap());
    }
    assert_eq!(listed, written);
    for name in &written {
        let found = store.get_many(&ctx(), name, &["{k}", "}{"], GetOptions::new()).await.unwrap();
        for entry in found {
            assert_eq!(entry.unwrap().unwrap().value, bytes(name.as_str()));
        }
        assert_eq!(store.list(&ctx(), name, None).await.unwrap(), ["{k}", "}{"]);
    }
}
