//! `get_many`: reads several keys of one namespace in one call.

use std::time::Duration;

use cubbyhole_core::limits::MAX_GET_MANY_KEYS;
use cubbyhole_core::{EntryMeta, ErrorKind, GetOptions, Namespace, Timestamp};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq, refused};
use crate::world::World;
use crate::world::number_of;

cases! {
    /// The replies are in the order of the keys, with `None` for absent keys.
    #[case(tenant, entry)]
    async fn replies_are_in_request_order<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["a", "b", "c"]).await?;
        let found = numbers(w, &["c", "missing", "a", "", "b"]).await?;
        check_eq!(
            found,
            [Some(2), None, Some(0), None, Some(1)],
            "the values of c, missing, a, the empty key, b"
        );
        Ok(())
    }

    /// A key that is requested twice gets two replies.
    #[case(tenant, entry)]
    async fn duplicate_key_gets_two_replies<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["a", "b"]).await?;
        let found = numbers(w, &["b", "a", "b", "x", "x", "b"]).await?;
        check_eq!(
            found,
            [Some(1), Some(0), Some(1), None, None, Some(1)],
            "the values of b, a, b, x, x, b"
        );
        Ok(())
    }

    /// A call without keys returns no replies.
    #[case(tenant, entry)]
    async fn no_keys_give_no_replies<V: Sample>(w: &World<V>) -> Outcome {
        check_eq!(numbers(w, &[]).await?, [], "the replies for no keys");
        Ok(())
    }

    /// The replies are complete entries, equal to those of `get_entry`.
    #[case(tenant, entry)]
    async fn replies_are_whole_entries<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "ttl", 1, w.long()).await?;
        w.put(&ns, "none", 2).await?;
        let results = w.get_many(&ns, &["none", "ttl"]).await?;
        let entries = results.into_iter().collect::<Result<Vec<_>, _>>()?;
        let expected = [Some(w.live(&ns, "none").await?), Some(w.live(&ns, "ttl").await?)];
        check_eq!(entries, expected, "the entries, compared with get_entry");
        Ok(())
    }

    /// `get_many` reads only its own namespace, and expired entries are absent.
    #[case(tenant, entry)]
    async fn only_live_entries_of_its_namespace_are_read<V: Sample>(w: &World<V>) -> Outcome {
        w.put_all(&w.ns(&["ab"])?, &["k"]).await?;
        w.put_all(&w.ns(&["a", "b"])?, &["k"]).await?;
        w.put_all(&w.ns(&[])?, &["k"]).await?;
        w.put_expired(&w.ns(&["a"])?, "expired").await?;
        let found = numbers(w, &["k", "b:k", "expired", "%"]).await?;
        check_eq!(
            found,
            [None; 4],
            "the values of keys that other namespaces have, or that have expired"
        );
        Ok(())
    }

    /// Keys with special characters are found.
    #[case(tenant, entry)]
    async fn hostile_keys_are_found<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let hostile = super::names::HOSTILE;
        w.put_all(&ns, &hostile).await?;
        let found = numbers(w, &hostile).await?;
        let expected: Vec<_> = (0..hostile.len() as u64).map(Some).collect();
        check_eq!(found, expected, "the values of the hostile keys");
        Ok(())
    }

    /// The options extend the TTL of each entry, and of no other. An entry that expires later or
    /// never is unchanged.
    #[case(tenant, entry)]
    async fn options_extend_each_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for key in ["a", "b", "unread"] {
            w.put_for(&ns, key, 1, w.long()).await?;
        }
        w.put_for(&ns, "later", 1, w.long() * 3).await?;
        w.put(&ns, "never", 1).await?;
        w.put_expired(&ns, "expired").await?;
        let all = ["a", "b", "unread", "later", "never", "expired"];
        let before = metas(w, &ns, &all, GetOptions::new()).await?;
        let extend = GetOptions::new().with_extended_ttl(w.long() * 2);
        let keys = ["b", "later", "never", "expired", "absent", "a", "b"];
        let returned = metas(w, &ns, &keys, extend).await?;
        let after = metas(w, &ns, &all, GetOptions::new()).await?;
        for index in [0, 1] {
            check!(
                after[index].and_then(|meta| meta.expires_at)
                    > before[index].and_then(|meta| meta.expires_at),
                "{} is not extended",
                all[index]
            );
        }
        check_eq!(after[2..], before[2..], "the metadata of the other entries");
        let expected = [after[1], after[3], after[4], None, None, after[0], after[1]];
        check_eq!(returned, expected, "the returned metadata");
        for (before, after) in before.into_iter().zip(after) {
            let kept = |meta: EntryMeta| (meta.version, meta.created_at, meta.updated_at);
            check_eq!(after.map(kept), before.map(kept), "the version and the times");
        }
        Ok(())
    }

    /// An invalid TTL is rejected, even without keys and for absent keys, and nothing is extended.
    #[case(tenant, entry)]
    async fn invalid_ttl_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        let before = w.live(&ns, "k").await?;
        let too_long = Timestamp::MAX.saturating_since(Timestamp::EPOCH);
        for (ttl, keys) in [
            (Duration::ZERO, &["k"][..]),
            (Duration::ZERO, &[]),
            (Duration::MAX, &["k"]),
            (Duration::MAX, &[]),
            (too_long, &["k"]),
            (too_long, &["absent"]),
        ] {
            let options = GetOptions::new().with_extended_ttl(ttl);
            let many = w.store().get_many(w.ctx(), &ns, keys, options).await;
            refused(many, ErrorKind::InvalidArgument, format_args!("{ttl:?} for {keys:?}"))?;
        }
        check_eq!(w.live(&ns, "k").await?, before, "the entry after the rejected calls");
        Ok(())
    }

    /// 1,000 keys are accepted and 1,001 are rejected. An invalid key rejects the whole call.
    #[case(tenant, entry)]
    async fn more_than_1000_keys_are_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["k0000", "k0999"]).await?;
        let keys: Vec<_> = (0..=MAX_GET_MANY_KEYS).map(|number| format!("k{number:04}")).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let found = numbers(w, &keys[..MAX_GET_MANY_KEYS]).await?;
        check_eq!(found.len(), MAX_GET_MANY_KEYS, "the number of replies");
        check_eq!(
            (found[0], found[999]),
            (Some(0), Some(1)),
            "the values of the first and the last key"
        );
        let invalid = ErrorKind::InvalidArgument;
        refused(w.get_many(&ns, &keys).await, invalid, "1,001 keys")?;
        let nul = w.get_many(&ns, &["k0000", "\0"]).await;
        refused(nul, invalid, "a key with NUL")?;
        let long = "x".repeat(1025);
        let long = w.get_many(&ns, &[&long]).await;
        refused(long, invalid, "a key past the limit")?;
        Ok(())
    }
}

/// Returns the numbers of the values at these keys of `a`.
async fn numbers<V: Sample>(w: &World<V>, keys: &[&str]) -> Outcome<Vec<Option<u64>>> {
    let mut numbers = Vec::with_capacity(keys.len());
    for result in w.get_many(&w.ns(&["a"])?, keys).await? {
        numbers.push(result?.map(|entry| number_of(&entry.value)).transpose()?);
    }
    Ok(numbers)
}

/// Returns the metadata of these keys.
async fn metas<V: Sample>(
    w: &World<V>,
    ns: &Namespace,
    keys: &[&str],
    options: GetOptions,
) -> Outcome<Vec<Option<EntryMeta>>> {
    let mut metas = Vec::with_capacity(keys.len());
    for reply in w.store().get_many(w.ctx(), ns, keys, options).await? {
        metas.push(reply?.map(|entry| entry.meta));
    }
    Ok(metas)
}
