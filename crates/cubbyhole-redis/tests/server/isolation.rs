//! Isolation, checked in the raw keys. Different names are different keys, special characters are
//! literal, and stores with different prefixes do not see each other.

use std::collections::BTreeSet;
use std::time::Duration;

use cubbyhole_core::{
    Batch, Condition, EntryStore, Expiry, GetOptions, Namespace, NamespacePrefix, PutOptions,
    RecursiveScanOptions, ScanOptions, Store,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisServer;
use cubbyhole_testkit::helpers::{bytes, ctx, ns, tenant, under};

use crate::helpers::{
    calls_of, cli, cli_number, index_names, keys, new_prefix, open, shared_server,
};

/// Texts with a meaning in patterns, quoting, hash tags or ranges.
const SPECIAL: [&str; 27] = [
    "*",
    "?",
    "[",
    "]",
    "[a-z]",
    "a*",
    "{",
    "}",
    "{}",
    "{a}",
    "}{",
    r"\",
    r"\\",
    r"\*",
    r"\(",
    "(",
    ":",
    "::",
    "a:b",
    "\n",
    "\r\n",
    " ",
    "a b",
    "\"'",
    "ü",
    "日本",
    "\u{10ffff}",
];

/// Builds a namespace from a tenant and scope segments.
fn namespace(parts: &[&str]) -> Namespace {
    let name = Namespace::new(tenant(parts[0]));
    parts[1..].iter().fold(name, |name, part| name.with_scope(part).unwrap())
}

#[tokio::test]
async fn names_that_read_alike_are_separate_keys() {
    let (server, prefix) = (shared_server(), new_prefix());
    let store = open(server.url(), &prefix).await;
    store.put(&ctx(), &namespace(&["acme", "x"]), "y", bytes("in x")).await.unwrap();
    store.put(&ctx(), &namespace(&["acme"]), "x:y", bytes("in acme")).await.unwrap();
    store.put(&ctx(), &namespace(&["acme:x"]), "y", bytes("in acme:x")).await.unwrap();
    for (key, value) in [
        ("{acme:x}vy", "in x"),
        ("{acme}vx:y", "in acme"),
        (r"{acme\:x}vy", "in acme:x"),
        ("{acme:x}vx", ""),
        ("{acme}vy", ""),
    ] {
        assert_eq!(cli(server, &["GET", &format!("{prefix}{key}")]), value, "{key}");
    }
    let values: BTreeSet<String> =
        keys(server, &prefix).into_iter().filter(|key| key.contains("}v")).collect();
    assert_eq!(values.len(), 3, "{values:?}");
    assert_eq!(store.get(&ctx(), &namespace(&["acme"]), "y").await.unwrap(), None);
    // The end of a hash tag, in names and in keys.
    let pairs =
        [("a", "k}vz"), ("a}vk", "z"), (r"a\)vk", "z"), ("a)vk", "z"), ("a}", ""), ("a", "}v")];
    for (name, key) in pairs {
        store
            .put(&ctx(), &namespace(&[name]), key, bytes(&format!("{key} in {name}")))
            .await
            .unwrap();
    }
    for (name, key) in pairs {
        let value = store.get(&ctx(), &namespace(&[name]), key).await.unwrap();
        assert_eq!(value, Some(bytes(&format!("{key} in {name}"))), "{name} {key}");
    }
    assert_eq!(store.list(&ctx(), &namespace(&["acme"]), None).await.unwrap(), ["x:y"]);
    assert_eq!(index_names(server, &format!("{prefix}{{acme}}n")), ["", "acme", "acme:x"]);
    assert_eq!(index_names(server, &format!("{prefix}{{acme\\:x}}n")), ["", r"acme\:x"]);
    let tenants = index_names(server, &format!("{prefix}{{\\*}}n"));
    assert_eq!(tenants, ["a", "a)vk", r"a\\)vk", "acme", r"acme\:x", "a}", "a}vk"]);
}

#[tokio::test]
async fn special_characters_in_keys_are_literal() {
    let (server, prefix) = (shared_server(), new_prefix());
    let store = open(server.url(), &prefix).await;
    let acme = ns("acme");
    let mut sorted = SPECIAL;
    sorted.sort_unstable();
    for key in SPECIAL {
        store.put(&ctx(), &acme, key, bytes(&format!("<{key}>"))).await.unwrap();
    }
    store.put(&ctx(), &acme, "", bytes("<>")).await.unwrap();
    for key in SPECIAL {
        assert_eq!(store.get(&ctx(), &acme, key).await.unwrap(), Some(bytes(&format!("<{key}>"))));
        let raw = cli(server, &["GET", &format!("{prefix}{{acme}}v{key}")]);
        assert_eq!(raw, format!("<{key}>"));
        let own: Vec<&str> =
            sorted.iter().copied().filter(|other| other.starts_with(key)).collect();
        assert_eq!(store.list(&ctx(), &acme, Some(key)).await.unwrap(), own, "{key:?}");
        let options = ScanOptions::new().with_prefix(key).with_limit(1);
        let page = store.scan(&ctx(), &acme, options).await.unwrap();
        assert_eq!((page.items[0].key.as_str(), page.next.is_some()), (own[0], own.len() > 1));
        let past: Vec<&str> = sorted.iter().copied().filter(|other| *other > key).collect();
        let options = ScanOptions::new().with_after(key).keys_only();
        let page = store.scan(&ctx(), &acme, options).await.unwrap();
        let found: Vec<String> = page.items.into_iter().map(|item| item.key).collect();
        assert_eq!(found, past, "after {key:?}");
    }
    for (at, key) in SPECIAL.iter().enumerate() {
        assert!(store.take(&ctx(), &acme, key).await.unwrap().is_some(), "{key:?}");
        let left = store.list(&ctx(), &acme, None).await.unwrap();
        assert_eq!(left.len(), SPECIAL.len() - at, "{key:?} removed other keys");
    }
}

#[tokio::test]
async fn special_characters_in_namespaces_are_literal() {
    let (server, prefix) = (shared_server(), new_prefix());
    let store = open(server.url(), &prefix).await;
    let mut all = Vec::new();
    for special in SPECIAL {
        all.extend([
            namespace(&[special]),
            namespace(&[special, "x"]),
            namespace(&["acme", special]),
            namespace(&["acme", "x", special]),
        ]);
    }
    for name in &all {
        store.put(&ctx(), name, "k", bytes(&name.to_string())).await.unwrap();
    }
    let mut tenants: Vec<_> =
        SPECIAL.iter().map(|special| tenant(special)).chain([tenant("acme")]).collect();
    tenants.sort_by(|a, b| a.as_rendered().cmp(b.as_rendered()));
    assert_eq!(store.scan_tenants(&ctx(), None, 100).await.unwrap().items, tenants);
    for name in &all {
        assert_eq!(store.list(&ctx(), name, None).await.unwrap(), ["k"], "{name}");
        let value = store.get(&ctx(), name, "k").await.unwrap();
        assert_eq!(value, Some(bytes(&name.to_string())), "{name}");
        let mut own: Vec<_> = all.iter().filter(|other| is_under(other, name)).cloned().collect();
        own.sort();
        let found = store.list_namespaces(&ctx(), &name.clone().into()).await.unwrap();
        assert_eq!(found, own, "under {name}");
    }
    assert_eq!(store.evict_expired(&ctx()).await.unwrap(), 0);
    let mut left = all.clone();
    for special in SPECIAL {
        let gone = namespace(&["acme", special]);
        let erased = store.erase(&ctx(), &gone.clone().into(), 1000).await.unwrap();
        let before = left.len();
        left.retain(|other| !is_under(other, &gone));
        assert_eq!((erased.done, erased.removed), (true, (before - left.len()) as u64), "{gone}");
    }
    for special in SPECIAL {
        let erased = store.erase(&ctx(), &tenant(special).into(), 1000).await.unwrap();
        assert_eq!((erased.done, erased.removed), (true, 2), "{special:?}");
    }
    left.retain(|name| name.tenant() == tenant("acme"));
    left.sort();
    let found = store.list_namespaces(&ctx(), &tenant("acme").into()).await.unwrap();
    assert_eq!(found, left);
    assert_eq!(store.scan_tenants(&ctx(), None, 100).await.unwrap().items, [tenant("acme")]);
}

fn is_under(name: &Namespace, prefix: &Namespace) -> bool {
    let (name, prefix) = (name.as_str(), prefix.as_str());
    name == prefix || name.starts_with(&format!("{prefix}:"))
}

/// Asserts that the calls that span many keys find only the store's own entries.
async fn check_sees_only(store: &RedisStore, what: &str) {
    let (acme, context) = (ns("acme"), ctx());
    assert_eq!(store.list(&context, &acme, None).await.unwrap(), [what, "k"]);
    assert_eq!(store.get(&context, &acme, "k").await.unwrap(), Some(bytes(what)));
    let names = store.list_namespaces(&context, &under("acme")).await.unwrap();
    assert_eq!(names, std::slice::from_ref(&acme));
    let tenants = store.scan_tenants(&context, None, 10).await.unwrap().items;
    assert_eq!(tenants, [tenant(&format!("A{what}")), tenant("acme")]);
    assert_eq!(store.usage(&context, &under("acme")).await.unwrap().entries, 2);
    assert_eq!(store.evict_expired(&context).await.unwrap(), 1);
    assert_eq!(store.evict_expired(&context).await.unwrap(), 0);
}

#[tokio::test]
async fn stores_with_different_prefixes_are_isolated() {
    let server = RedisServer::start_with_clock().unwrap();
    // The empty prefix, prefixes of other prefixes, and prefixes with special characters.
    let prefixes = ["", "p", "p:", "p:p", "*", r"\*", "a b\n"];
    let mut stores = Vec::new();
    for (at, prefix) in prefixes.iter().enumerate() {
        let (store, what) = (open(server.url(), prefix).await, format!("{at}"));
        for key in ["k", &what] {
            store.put(&ctx(), &ns("acme"), key, bytes(&what)).await.unwrap();
        }
        store.put(&ctx(), &ns(&format!("A{what}")), "k", bytes(&what)).await.unwrap();
        let short = PutOptions::new().with_ttl(Duration::from_secs(1));
        store.put_with_options(&ctx(), &ns("acme"), "dead", bytes(&what), short).await.unwrap();
        stores.push((store, what));
    }
    server.advance(Duration::from_secs(1)).unwrap();
    for (store, what) in &stores {
        check_sees_only(store, what).await;
    }
    while let Some((store, what)) = stores.pop() {
        let erased = store.erase(&ctx(), &under("acme"), 1000).await.unwrap();
        assert_eq!((erased.removed, erased.done), (2, true));
        let erased = store.erase(&ctx(), &under(&format!("A{what}")), 1000).await.unwrap();
        assert_eq!((erased.removed, erased.done), (1, true));
        assert!(store.scan_tenants(&ctx(), None, 10).await.unwrap().items.is_empty());
        for (other, what) in &stores {
            assert_eq!(other.list(&ctx(), &ns("acme"), None).await.unwrap(), [what, "k"]);
            assert_eq!(other.scan_tenants(&ctx(), None, 10).await.unwrap().items.len(), 2);
        }
    }
}

#[tokio::test]
async fn no_call_iterates_over_all_server_keys() {
    let server = RedisServer::start().unwrap();
    let store = open(server.url(), "p:").await;
    let (acme, context, options) = (ns("acme"), ctx(), PutOptions::new());
    for number in 0..20 {
        let name = ns(&format!("acme:{number}"));
        store.put(&context, &name, "k", bytes("v")).await.unwrap();
    }
    let version =
        store.put_entry(&context, &acme, "a", bytes("v"), options, Condition::IfAbsent).await;
    let at = Condition::IfVersion(version.unwrap());
    store.put_entry(&context, &acme, "a", bytes("w"), options, at).await.unwrap();
    store.write(&context, &acme, Batch::new().put("b", bytes("v")).delete("a")).await.unwrap();
    store.get(&context, &acme, "b").await.unwrap();
    store.get_many(&context, &acme, &["a", "b"], GetOptions::new()).await.unwrap();
    store.list(&context, &acme, Some("b")).await.unwrap();
    store.scan(&context, &acme, ScanOptions::new().with_prefix("b")).await.unwrap();
    store.scan(&context, &acme, ScanOptions::new().reversed().refreshing()).await.unwrap();
    let recursive = RecursiveScanOptions::new().with_limit(3);
    store.scan_recursive(&context, &under("acme"), recursive).await.unwrap();
    store.stat(&context, &acme, &["a", "b"]).await.unwrap();
    let idle = Expiry::Idle(Duration::from_secs(60));
    assert!(store.touch(&context, &acme, "b", idle, Condition::IfPresent).await.unwrap());
    store.get_entry(&context, &acme, "b", GetOptions::new().refreshing()).await.unwrap();
    store.delete_prefix(&context, &ns("acme:0"), "", 10).await.unwrap();
    store.take(&context, &acme, "b").await.unwrap();
    store.list_namespaces(&context, &under("acme")).await.unwrap();
    store.scan_namespaces(&context, &under("acme"), None, 3).await.unwrap();
    store.scan_tenants(&context, None, 3).await.unwrap();
    store.usage(&context, &under("acme")).await.unwrap();
    store.evict_expired(&context).await.unwrap();
    while !store.erase(&context, &under("acme"), 3).await.unwrap().done {}
    assert!(calls_of(&server, "evalsha") > 20, "the server does not count commands");
    let all = ["keys", "scan", "sscan", "hscan", "zscan", "hgetall", "hkeys", "hvals"];
    for command in all.into_iter().chain(["smembers", "flushdb", "flushall", "sort", "dbsize"]) {
        assert_eq!(calls_of(&server, command), 0, "{command}");
    }
    let everything: NamespacePrefix = tenant("acme").into();
    assert_eq!(store.usage(&context, &everything).await.unwrap().entries, 0);
    assert!(cli_number(&server, &["DBSIZE"]) > 0, "the fences are missing");
}
