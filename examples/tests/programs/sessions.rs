//! `sessions`: the program's assertions hold, and only the session that is still open remains.

use cubbyhole::NamespacePrefix;
use cubbyhole::{EntryStore, Namespace, Store};

use crate::support::{
    TestResult, TestStore, on_each_store, on_each_store_with_layers, scan_all, value,
};

fn check(test_store: &TestStore) -> TestResult {
    for _ in 0..2 {
        let printed = test_store.run(env!("CARGO_BIN_EXE_sessions"))?;
        assert_eq!(
            printed,
            [
                "user 7 has a session",
                "two concurrent requests: the cart contains book and lamp",
                "signed in: the session has a new id and still 2 items",
                "the session expired after 30 idle minutes",
                "signed out everywhere: 3 sessions of user 7 ended, user 8 still has one",
            ]
        );
    }
    test_store.with_store(async |ctx, store| {
        let prefix = NamespacePrefix::parse("acme:sessions")?;
        assert_eq!(
            store.list_namespaces(ctx, &prefix).await?,
            [Namespace::parse("acme:sessions:8")?]
        );
        assert_eq!(store.usage(ctx, &prefix).await?.entries, 1);
        let remaining = scan_all(ctx, store, "acme:sessions:8").await?;
        assert!(remaining[0].meta.expires_at.is_some(), "a session must have a TTL");
        assert_eq!(value(&remaining[0])?["signed_in"], false);
        Ok(())
    })
}

on_each_store!(check);
on_each_store_with_layers!(check);
