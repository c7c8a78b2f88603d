//! `sessions`: its own assertions held, and what is left is who is still signed in.

use cubbyhole::NamespacePrefix;
use cubbyhole::{EntryStore, Namespace, Store};

use crate::support::{Outcome, Place, all, on_each_place, value};

fn check(place: &Place) -> Outcome {
    for _ in 0..2 {
        let printed = place.run(env!("CARGO_BIN_EXE_sessions"))?;
        assert_eq!(
            printed,
            [
                "user 7 has a session",
                "two requests at once: the cart holds book and lamp",
                "signed in: the session has a new id and still 2 things",
                "nobody loaded it for 30 minutes: it is gone",
                "signed out everywhere: 3 sessions of user 7 ended, user 8 has one",
            ]
        );
    }
    place.look(async |ctx, store| {
        let prefix = NamespacePrefix::parse("acme:sessions")?;
        assert_eq!(
            store.list_namespaces(ctx, &prefix).await?,
            [Namespace::parse("acme:sessions:8")?]
        );
        assert_eq!(store.usage(ctx, &prefix).await?.entries, 1);
        let left = all(ctx, store, "acme:sessions:8").await?;
        assert!(left[0].meta.expires_at.is_some(), "a session ends by itself");
        assert_eq!(value(&left[0])?["signed_in"], false);
        Ok(())
    })
}

on_each_place!(check);
