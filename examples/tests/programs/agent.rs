//! `agent`: what is remembered, what fades, what is erased.

use cubbyhole::{Bytes, Namespace, NamespacePrefix, Store};
use serde_json::json;

use crate::support::{Outcome, Place, all, on_each_place, value};

fn check(place: &Place) -> Outcome {
    let neighbour = Namespace::parse("acme:helper-2:chat-1")?;
    place.look(async |ctx, store| {
        Ok(store.put(ctx, &neighbour, "note", Bytes::from("1")).await?)
    })?;

    // What the first run leaves does not disturb the second.
    for _ in 0..2 {
        let printed = place.run(env!("CARGO_BIN_EXE_agent"))?;
        for line in [
            "  agent: Hello Maria. You told me 3 here, 3 in all.",
            "  agent: Hello Maria. You told me 1 here, 4 in all.",
            "Two wrote to one conversation at once: 20 turns, none lost",
            "Who reads a conversation prolongs it",
            "One that nobody read is over: the next question began it anew",
            "chat-1 was erased on request: 7 entries",
        ] {
            assert!(printed.iter().any(|printed| printed == line), "`{line}` in {printed:#?}");
        }
    }

    place.look(async |ctx, store| {
        let left = store.list_namespaces(ctx, &NamespacePrefix::parse("acme")?).await?;
        let left: Vec<_> = left.iter().map(Namespace::as_str).collect();
        let expected =
            ["acme:helper", "acme:helper-2:chat-1", "acme:helper:chat-2", "acme:helper:chat-3"];
        assert_eq!(left, expected);
        assert_eq!(store.get(ctx, &neighbour, "note").await?.as_deref(), Some(&b"1"[..]));

        let known = all(ctx, store, "acme:helper").await?;
        assert_eq!(known.len(), 1);
        assert_eq!(known[0].key, "profile:maria");
        assert_eq!(value(&known[0])?, &json!({ "name": "Maria", "questions": 5 }));
        assert_eq!(known[0].meta.expires_at, None);

        let items = all(ctx, store, "acme:helper:chat-3").await?;
        let (head, turns) = items.split_first().ok_or("chat-3 is empty")?;
        assert_eq!(head.key, "head");
        assert_eq!(value(head)?["head"]["turns"], 20);
        assert_eq!(turns.len(), 20);
        let began = value(head)?["head"]["began"].as_str().ok_or("no beginning")?;
        for (number, turn) in turns.iter().enumerate() {
            assert_eq!(turn.key, format!("turn:{began}:{number:010}"));
            assert!(turn.meta.expires_at > head.meta.expires_at, "turns outlive the head");
        }
        assert!(head.meta.expires_at.is_some());
        Ok(())
    })
}

on_each_place!(check);
