//! Versions: every write draws a new one, and no other call does.

use std::collections::HashSet;

use cubbyhole_core::{
    Batch, Condition, Expiry, GetOptions, PutOptions, ScanOptions, Version, Written,
};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq};
use crate::world::World;

cases! {
    /// `put_entry` returns the version that the entry then has.
    #[case(tenant, entry)]
    async fn put_entry_returns_the_stored_version<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for number in 0..3 {
            let version =
                w.put_entry(&ns, "k", number, PutOptions::new(), Condition::Always).await?;
            check_eq!(
                w.live(&ns, "k").await?.meta.version,
                version,
                "the stored version after write {number}"
            );
        }
        Ok(())
    }

    /// Every write gets a new version, even if the value is the same.
    #[case(tenant, entry)]
    async fn every_write_gets_a_new_version<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let mut seen = HashSet::new();
        for key in ["a", "b"] {
            for _ in 0..10 {
                w.put(&ns, key, 1).await?;
                check!(
                    seen.insert(w.live(&ns, key).await?.meta.version),
                    "each write must get a new version, but a version is repeated"
                );
                let always = Condition::Always;
                let version = w.put_entry(&ns, key, 1, PutOptions::new(), always).await?;
                check!(
                    seen.insert(version),
                    "each write must get a new version, but a version is repeated"
                );
            }
        }
        Ok(())
    }

    /// A version never repeats, not even after the key was deleted and written again.
    #[case(tenant, entry)]
    async fn version_never_repeats_after_delete<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let mut seen = HashSet::new();
        for _ in 0..20 {
            let version = w.put_entry(&ns, "k", 1, PutOptions::new(), Condition::IfAbsent).await?;
            check!(
                seen.insert(version),
                "each write must get a new version, but a version is repeated"
            );
            w.delete(&ns, "k").await?;
        }
        Ok(())
    }

    /// A version from before a delete does not match the entry that was created after it.
    #[case(tenant, entry)]
    async fn version_from_before_a_delete_is_stale<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let old = w.put_entry(&ns, "k", 1, PutOptions::new(), Condition::Always).await?;
        w.delete(&ns, "k").await?;
        w.put(&ns, "k", 1).await?;
        let put = w.put_entry(&ns, "k", 2, PutOptions::new(), Condition::IfVersion(old)).await;
        check!(put.is_err(), "put at a version from before the delete must fail, but succeeded");
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value after the conflict");
        Ok(())
    }

    /// A version that the caller gives is stored. The next write without one draws a new version.
    #[case(tenant, entry)]
    async fn given_version_is_stored<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let mine = Version::draw();
        let options = PutOptions::new().with_version(mine);
        let version = w.put_entry(&ns, "k", 1, options, Condition::Always).await?;
        check_eq!(version, mine, "the returned version");
        check_eq!(w.live(&ns, "k").await?.meta.version, mine, "the stored version");
        w.put_entry(&ns, "k", 2, PutOptions::new(), Condition::IfVersion(mine)).await?;
        check!(
            w.live(&ns, "k").await?.meta.version != mine,
            "the next write must draw a new version, but the version is unchanged"
        );
        Ok(())
    }

    /// A version that the caller gives in a batch is stored, with and without a TTL.
    #[case(tenant, entry)]
    async fn given_version_in_a_batch_is_stored<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let (one, two) = (Version::draw(), Version::draw());
        let ttl = PutOptions::new().with_ttl(w.long());
        let batch = Batch::new()
            .put_with("a", V::sample(1), ttl.with_version(one), Condition::Always)
            .put_with("b", V::sample(2), PutOptions::new().with_version(two), Condition::IfAbsent);
        let written = w.store().write(w.ctx(), &ns, batch).await?;
        check_eq!(written, [Written::Put(one), Written::Put(two)], "the returned versions");
        check_eq!(
            w.live(&ns, "a").await?.meta.version,
            one,
            "the stored version of the entry with a TTL"
        );
        check_eq!(
            w.live(&ns, "b").await?.meta.version,
            two,
            "the stored version of the entry without a TTL"
        );
        Ok(())
    }

    /// Every method that reads returns the same version.
    #[case(tenant, entry)]
    async fn every_read_method_returns_the_same_version<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let version = w.put_entry(&ns, "k", 1, PutOptions::new(), Condition::Always).await?;
        let meta = w.live(&ns, "k").await?.meta;
        check_eq!(meta.version, version, "get_entry");
        for result in w.get_many(&ns, &["k"]).await? {
            check_eq!(result?.map(|entry| entry.meta), Some(meta), "get_many");
        }
        for options in [ScanOptions::new(), ScanOptions::new().keys_only()] {
            for item in w.page(&ns, options).await?.items {
                check_eq!(item.meta, meta, "scan");
            }
        }
        let taken = w.store().take(w.ctx(), &ns, "k").await?;
        check_eq!(taken.map(|entry| entry.meta), Some(meta), "take");
        Ok(())
    }

    /// A write that fails does not change the version.
    #[case(tenant, entry)]
    async fn failed_write_keeps_the_version<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        let before = w.live(&ns, "k").await?;
        let put = w.put_entry(&ns, "k", 2, PutOptions::new(), Condition::IfAbsent).await;
        check!(put.is_err(), "put if absent of an existing key must fail, but succeeded");
        let stale = Condition::IfVersion(Version::draw());
        check!(
            w.store().delete_entry(w.ctx(), &ns, "k", stale).await.is_err(),
            "delete at another version must fail, but succeeded"
        );
        check_eq!(w.live(&ns, "k").await?, before, "the entry after the failed calls");
        Ok(())
    }

    /// `touch` changes neither the version nor `created_at` nor `updated_at`.
    #[case(time, entry)]
    async fn touch_keeps_the_version<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "k", 1).await?;
        let before = w.live(&ns, "k").await?;
        w.advance_millis(20).await;
        for expiry in [Expiry::After(w.long()), Expiry::Never] {
            w.touch(&ns, "k", expiry).await?;
            let after = w.live(&ns, "k").await?;
            check_eq!(after.meta.version, before.meta.version, "the version after {expiry:?}");
            check_eq!(after.meta.updated_at, before.meta.updated_at, "updated_at");
            check_eq!(after.meta.created_at, before.meta.created_at, "created_at");
            check_eq!(after.value, before.value, "the value");
        }
        Ok(())
    }

    /// A sliding read changes neither the version nor `created_at` nor `updated_at`.
    #[case(time, entry)]
    async fn sliding_read_keeps_the_version<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        let before = w.live(&ns, "k").await?;
        w.advance_millis(20).await;
        let options = GetOptions::new().with_extended_ttl(w.long() * 2);
        w.store().get_entry(w.ctx(), &ns, "k", options).await?;
        let after = w.live(&ns, "k").await?;
        check!(
            after.meta.expires_at > before.meta.expires_at,
            "expires_at must be later after the sliding read"
        );
        check_eq!(after.meta.version, before.meta.version, "the version");
        check_eq!(after.meta.updated_at, before.meta.updated_at, "updated_at");
        check_eq!(after.meta.created_at, before.meta.created_at, "created_at");
        Ok(())
    }
}
