//! `write`: atomic batches of puts and deletes.

use cubbyhole_core::limits::{MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS};
use cubbyhole_core::{
    Batch, Condition, ErrorKind, Expiry, PutOptions, Timestamp, Version, Written,
};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, Stop, check, check_eq, refused};
use crate::world::World;

cases! {
    /// A batch applies its puts and deletes, and returns its results in their order.
    #[case(tenant, entry)]
    async fn batch_applies_puts_and_deletes<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["gone", "changed", "kept"]).await?;
        let batch = Batch::new()
            .put("z", V::sample(10))
            .delete("gone")
            .put("changed", V::sample(11))
            .delete("never")
            .put("a", V::sample(12));
        let written = w.store().write(w.ctx(), &ns, batch).await?;
        let versions: Vec<_> = written.iter().map(|written| written.version()).collect();
        let has_version: Vec<_> = versions.iter().map(Option::is_some).collect();
        check_eq!(
            has_version,
            [true, false, true, false, true],
            "which operations return a version"
        );
        check_eq!(
            w.list(&ns, None).await?,
            ["a", "changed", "kept", "z"],
            "the keys after the batch"
        );
        for (key, index, number) in [("z", 0, 10), ("changed", 2, 11), ("a", 4, 12)] {
            check_eq!(w.number(&ns, key).await?, Some(number), "the value of {key}");
            check_eq!(Some(w.live(&ns, key).await?.meta.version), versions[index], "{key}");
        }
        Ok(())
    }

    /// A delete reports whether there was a live entry before the batch. An expired entry counts as
    /// absent.
    #[case(tenant, entry)]
    async fn delete_reports_whether_entry_was_live<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "live", 1).await?;
        w.put_for(&ns, "ttl", 1, w.long()).await?;
        w.put_expired(&ns, "expired").await?;
        w.put(&ns, "ended", 1).await?;
        w.touch(&ns, "ended", Expiry::At(Timestamp::EPOCH)).await?;
        w.put(&ns, "deleted", 1).await?;
        w.delete(&ns, "deleted").await?;
        let batch = Batch::new()
            .delete("live")
            .delete("absent")
            .delete_if("ttl", Condition::IfPresent)
            .delete("expired")
            .delete_if("ended", Condition::IfAbsent)
            .put("new", V::sample(2))
            .delete("deleted");
        let written = w.store().write(w.ctx(), &ns, batch).await?;
        let found: Vec<_> = written
            .iter()
            .map(|written| match written {
                Written::Put(_) => None,
                Written::Deleted(found) => Some(*found),
            })
            .collect();
        let (yes, no) = (Some(true), Some(false));
        check_eq!(found, [yes, no, yes, no, no, None, no], "whether each delete found an entry");
        check_eq!(w.list(&ns, None).await?, ["new"], "the keys after the batch");
        let again = Batch::new().delete("live").delete("new");
        let written = w.store().write(w.ctx(), &ns, again).await?;
        let expected = [Written::Deleted(false), Written::Deleted(true)];
        check_eq!(written, expected, "the results of a second batch");
        Ok(())
    }

    /// Each put of a batch gets a different version.
    #[case(tenant, entry)]
    async fn each_put_gets_a_different_version<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let batch = Batch::new().put("a", V::sample(1)).put("b", V::sample(1));
        let versions = w.store().write(w.ctx(), &ns, batch).await?;
        check!(versions.len() == 2 && versions[0] != versions[1], "{versions:?}");
        Ok(())
    }

    /// An empty batch succeeds and changes nothing.
    #[case(tenant, entry)]
    async fn empty_batch_succeeds_without_effect<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        check_eq!(
            w.store().write(w.ctx(), &ns, Batch::new()).await?,
            [],
            "the results of an empty batch"
        );
        check_eq!(w.namespaces(&w.everything()).await?, [], "the namespaces after an empty batch");
        Ok(())
    }

    /// If one condition fails, the batch writes nothing. The conflict names the operation that
    /// failed.
    #[case(tenant, entry)]
    async fn failed_condition_writes_nothing<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_all(&ns, &["b", "d"]).await?;
        let before = (w.live(&ns, "b").await?, w.live(&ns, "d").await?);
        let batch = Batch::new()
            .put("a", V::sample(10))
            .put("b", V::sample(11))
            .delete("d")
            .put_with("d2", V::sample(12), PutOptions::new(), Condition::IfVersion(Version::draw()))
            .put("e", V::sample(13));
        let error = refused(w.store().write(w.ctx(), &ns, batch).await, ErrorKind::Conflict, "a")?;
        check_eq!(error.batch_index(), Some(3), "the index of the failed operation");
        check_eq!(error.current_version(), None, "the current version in the conflict");
        check!(
            !error.may_have_been_applied(),
            "a conflict must have no effect, but says that it may have been applied"
        );
        check_eq!(w.list(&ns, None).await?, ["b", "d"], "the keys after the failed batch");
        let after = (w.live(&ns, "b").await?, w.live(&ns, "d").await?);
        check_eq!(after, before, "the entries after the failed batch");
        Ok(())
    }

    /// A conflict has the index of the operation that failed, and the current version of its key.
    #[case(tenant, entry)]
    async fn conflict_names_the_failed_operation<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let version = w.put_entry(&ns, "there", 1, PutOptions::new(), Condition::Always).await?;
        for failing in 0..4 {
            let mut batch = Batch::new();
            for index in 0..4 {
                let none = PutOptions::new();
                batch = match index == failing {
                    true => batch.put_with("there", V::sample(2), none, Condition::IfAbsent),
                    false => batch.put(format!("k{index}"), V::sample(3)),
                };
            }
            let written = w.store().write(w.ctx(), &ns, batch).await;
            let error = refused(
                written,
                ErrorKind::Conflict,
                "a batch with a put if absent of an existing key",
            )?;
            check_eq!(error.batch_index(), Some(failing), "the index of the failed operation");
            check_eq!(
                error.current_version(),
                Some(version),
                "the current version in the conflict"
            );
        }
        check_eq!(w.list(&ns, None).await?, ["there"], "the keys after the rejected batch");
        Ok(())
    }

    /// A delete in a batch checks its condition.
    #[case(tenant, entry)]
    async fn delete_checks_its_condition<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let version = w.put_entry(&ns, "k", 1, PutOptions::new(), Condition::Always).await?;
        let stale = Condition::IfVersion(Version::draw());
        let batch = Batch::new().put("other", V::sample(2)).delete_if("k", stale);
        let written = w.store().write(w.ctx(), &ns, batch).await;
        let error =
            refused(written, ErrorKind::Conflict, "a batch with a delete at another version")?;
        check_eq!(error.batch_index(), Some(1), "the index of the failed operation");
        check_eq!(w.list(&ns, None).await?, ["k"], "the keys after the rejected batch");
        let current = Condition::IfVersion(version);
        let batch = Batch::new().put("other", V::sample(2)).delete_if("k", current);
        w.store().write(w.ctx(), &ns, batch).await?;
        check_eq!(
            w.list(&ns, None).await?,
            ["other"],
            "the keys after the batch with the current version"
        );
        Ok(())
    }

    /// A batch succeeds if all its conditions hold.
    #[case(tenant, entry)]
    async fn batch_succeeds_if_all_conditions_hold<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let one = w.put_entry(&ns, "one", 1, PutOptions::new(), Condition::Always).await?;
        let two = w.put_entry(&ns, "two", 2, PutOptions::new(), Condition::Always).await?;
        let none = PutOptions::new();
        let batch = Batch::new()
            .put_with("one", V::sample(11), none, Condition::IfVersion(one))
            .delete_if("two", Condition::IfVersion(two))
            .put_with("three", V::sample(13), none, Condition::IfAbsent)
            .delete_if("four", Condition::IfAbsent);
        w.store().write(w.ctx(), &ns, batch).await?;
        check_eq!(w.number(&ns, "one").await?, Some(11), "the value of the key with `IfVersion`");
        check_eq!(w.list(&ns, None).await?, ["one", "three"], "the keys after the batch");
        Ok(())
    }

    /// A batch that names a key twice is `InvalidArgument`, for puts and deletes alike.
    #[case(tenant, entry)]
    async fn duplicate_key_is_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let twice = [
            Batch::new().put("k", V::sample(1)).put("k", V::sample(2)),
            Batch::new().put("k", V::sample(1)).put("j", V::sample(1)).delete("k"),
            Batch::new().delete("k").put("k", V::sample(1)),
            Batch::new().delete("").delete(""),
        ];
        for batch in twice {
            let written = w.store().write(w.ctx(), &ns, batch).await;
            refused(written, ErrorKind::InvalidArgument, "a batch that names a key twice")?;
        }
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the rejected batch");
        Ok(())
    }

    /// An expired entry counts as absent for the conditions of a batch.
    #[case(tenant, entry)]
    async fn expired_entry_counts_as_absent<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let expired = w.put_expired(&ns, "k").await?;
        let stale = Condition::IfVersion(expired);
        let batch = Batch::new().put_with("k", V::sample(1), PutOptions::new(), stale);
        let written = w.store().write(w.ctx(), &ns, batch).await;
        let error =
            refused(written, ErrorKind::Conflict, "a batch at the version of an expired entry")?;
        check_eq!(error.current_version(), None, "the current version in the conflict");
        let absent = Condition::IfAbsent;
        let batch = Batch::new().put_with("k", V::sample(2), PutOptions::new(), absent);
        w.store().write(w.ctx(), &ns, batch).await?;
        check_eq!(
            w.number(&ns, "k").await?,
            Some(2),
            "the value after put if absent of an expired key"
        );
        Ok(())
    }

    /// A put in a batch sets its TTL. A put without a TTL removes the old one.
    #[case(time, entry)]
    async fn batch_sets_and_removes_ttls<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "freed", 1, w.short()).await?;
        let ttl = PutOptions::new().with_ttl(w.short());
        let batch = Batch::new()
            .put_with("short", V::sample(1), ttl, Condition::Always)
            .put("freed", V::sample(2))
            .put("kept", V::sample(3));
        w.store().write(w.ctx(), &ns, batch).await?;
        w.expire().await;
        check_eq!(w.list(&ns, None).await?, ["freed", "kept"], "the keys after the TTL");
        Ok(())
    }

    /// A batch keeps `created_at` of the entries that it overwrites.
    #[case(time, entry)]
    async fn overwrite_keeps_created_at<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put(&ns, "old", 1).await?;
        let before = w.live(&ns, "old").await?.meta;
        w.advance_millis(20).await;
        let batch = Batch::new().put("old", V::sample(2)).put("new", V::sample(2));
        w.store().write(w.ctx(), &ns, batch).await?;
        let (old, new) = (w.live(&ns, "old").await?.meta, w.live(&ns, "new").await?.meta);
        check_eq!(old.created_at, before.created_at, "created_at of the old entry");
        check!(
            old.updated_at > before.updated_at,
            "updated_at must advance when a batch overwrites an entry"
        );
        check_eq!(new.created_at, new.updated_at, "created_at and updated_at of the new entry");
        Ok(())
    }

    /// 1,000 operations are accepted. 1,001 are rejected, and nothing is written.
    #[case(tenant, entry)]
    async fn more_than_1000_operations_are_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let batch = |count: usize| {
            (0..count).fold(Batch::new(), |batch, n| batch.put(format!("{n:04}"), V::sample(1)))
        };
        let written = w.store().write(w.ctx(), &ns, batch(MAX_BATCH_OPERATIONS + 1)).await;
        refused(written, ErrorKind::InvalidArgument, "a batch of 1,001 operations")?;
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the rejected batch");
        let written = w.store().write(w.ctx(), &ns, batch(MAX_BATCH_OPERATIONS)).await?;
        check_eq!(written.len(), MAX_BATCH_OPERATIONS, "the number of results");
        check_eq!(
            w.list(&ns, None).await?.len(),
            MAX_BATCH_OPERATIONS,
            "the number of keys after the puts"
        );
        let deletes = (0..1000).fold(Batch::new(), |batch, n| batch.delete(format!("{n:04}")));
        w.store().write(w.ctx(), &ns, deletes).await?;
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the deletes");
        Ok(())
    }

    /// A batch with more than 64 MiB of keys and values is rejected, and nothing is written.
    #[case(tenant, entry)]
    async fn more_than_64_mib_are_rejected<V: Sample>(w: &World<V>) -> Outcome {
        let largest = w.needs_value_limit()?.min(MAX_BATCH_BYTES / 4);
        let count = MAX_BATCH_BYTES / largest.max(1);
        if count >= MAX_BATCH_OPERATIONS {
            return Err(Stop::ignored("64 MiB need more operations than a batch can have"));
        }
        let ns = w.ns(&["a"])?;
        let value = w.sized(largest)?;
        // The values alone reach the limit, so the keys exceed it.
        let batch =
            (0..=count).fold(Batch::new(), |batch, n| batch.put(format!("{n:04}"), value.clone()));
        let written = w.store().write(w.ctx(), &ns, batch).await;
        let error = refused(written, ErrorKind::InvalidArgument, "a batch of more than 64 MiB")?;
        check!(
            error.message().contains("MAX_BATCH_BYTES"),
            "the error must name MAX_BATCH_BYTES: {error}"
        );
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the rejected batch");
        Ok(())
    }

    /// An invalid key in any operation rejects the whole batch.
    #[case(tenant, entry)]
    async fn invalid_key_rejects_the_whole_batch<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        for bad in ["a\0b".to_owned(), "x".repeat(1025)] {
            let batches = [
                Batch::new().put("good", V::sample(1)).put(bad.clone(), V::sample(2)),
                Batch::new().put("good", V::sample(1)).delete(bad),
            ];
            for batch in batches {
                let written = w.store().write(w.ctx(), &ns, batch).await;
                refused(written, ErrorKind::InvalidArgument, "a batch with an invalid key")?;
            }
        }
        check_eq!(w.list(&ns, None).await?, [""; 0], "the keys after the rejected batch");
        Ok(())
    }

    /// A batch changes only its own namespace.
    #[case(tenant, entry)]
    async fn batch_changes_no_other_namespace<V: Sample>(w: &World<V>) -> Outcome {
        let namespaces = [w.ns(&["ab"])?, w.ns(&["a", "b"])?, w.ns(&[])?];
        for ns in &namespaces {
            w.put_all(ns, &["k", "b:k", "%"]).await?;
        }
        let batch = Batch::new().delete("k").delete("b:k").delete("%").put("n", V::sample(1));
        w.store().write(w.ctx(), &w.ns(&["a"])?, batch).await?;
        for ns in &namespaces {
            check_eq!(w.list(ns, None).await?, ["%", "b:k", "k"], "the keys of {ns:?}");
        }
        Ok(())
    }
}
