//! `agent`: profiles are kept, turns are in order, idle conversations expire, erasure removes one
//! conversation.

use std::time::Duration;

use cubbyhole::{Bytes, Namespace, NamespacePrefix, Store};
use serde_json::json;

use crate::support::{
    TestResult, TestStore, on_each_store, on_each_store_with_layers, scan_all, value,
};

fn check(test_store: &TestStore) -> TestResult {
    let neighbour = Namespace::parse("acme:helper-2:chat-1")?;
    test_store.with_store(async |ctx, store| {
        Ok(store.put(ctx, &neighbour, "note", Bytes::from("1")).await?)
    })?;

    // The entries of the first run do not affect the second run.
    for _ in 0..2 {
        let printed = test_store.run(env!("CARGO_BIN_EXE_agent"))?;
        for line in [
            "  agent: Hello Maria. Your messages: 3 here, 3 in total.",
            "  agent: Hello Maria. Your messages: 1 here, 4 in total.",
            "Two writers appended to one conversation: 20 turns, none lost",
            "The agent's reading extends a conversation",
            "An idle conversation expired: the next question started a new one",
            "chat-1 was erased on request: 6 entries",
        ] {
            assert!(
                printed.iter().any(|printed| printed == line),
                "`{line}` is missing in {printed:#?}"
            );
        }
    }

    test_store.with_store(async |ctx, store| {
        let remaining = store.list_namespaces(ctx, &NamespacePrefix::parse("acme")?).await?;
        let remaining: Vec<_> = remaining.iter().map(Namespace::as_str).collect();
        let expected =
            ["acme:helper", "acme:helper-2:chat-1", "acme:helper:chat-2", "acme:helper:chat-3"];
        assert_eq!(remaining, expected);
        assert_eq!(store.get(ctx, &neighbour, "note").await?.as_deref(), Some(&b"1"[..]));

        let profiles = scan_all(ctx, store, "acme:helper").await?;
        assert_eq!(profiles.len(), 1);
        assert_eq!(profiles[0].key, "profile:maria");
        assert_eq!(value(&profiles[0])?, &json!({ "name": "Maria", "questions": 5 }));
        // Only the layers set a TTL for a profile.
        assert_eq!(profiles[0].meta.expires_at.is_some(), test_store.has_layers());

        let turns = scan_all(ctx, store, "acme:helper:chat-3").await?;
        assert_eq!(turns.len(), 20);
        for (number, turn) in turns.iter().enumerate() {
            assert_eq!(turn.key, format!("turn-{number:020}"));
            assert_eq!(turn.meta.idle_ttl, Some(Duration::from_secs(30 * 60)));
        }
        Ok(())
    })
}

on_each_store!(check);
on_each_store_with_layers!(check);
