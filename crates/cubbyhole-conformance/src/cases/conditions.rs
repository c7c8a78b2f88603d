//! Conditions of `put_entry` and `delete_entry`.

use cubbyhole_core::{Condition, ErrorKind, PutOptions, Version};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq, refused};
use crate::world::World;

cases! {
    /// `Always` writes to an absent key, and overwrites an entry.
    #[case(tenant, entry)]
    async fn always_creates_and_overwrites<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_entry(&ns, "k", 1, PutOptions::new(), Condition::Always).await?;
        w.put_entry(&ns, "k", 2, PutOptions::new(), Condition::Always).await?;
        check_eq!(w.number(&ns, "k").await?, Some(2), "the value after the second put");
        Ok(())
    }

    /// `IfAbsent` writes to an absent key. It conflicts with an existing entry, and the conflict
    /// has its version.
    #[case(tenant, entry)]
    async fn if_absent_conflicts_with_existing_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let first = w.put_entry(&ns, "k", 1, PutOptions::new(), Condition::IfAbsent).await?;
        let put = w.put_entry(&ns, "k", 2, PutOptions::new(), Condition::IfAbsent).await;
        let error = refused(put, ErrorKind::Conflict, "put if absent of an existing key")?;
        check_eq!(error.current_version(), Some(first), "the current version in the conflict");
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value after the conflict");
        w.delete(&ns, "k").await?;
        w.put_entry(&ns, "k", 3, PutOptions::new(), Condition::IfAbsent).await?;
        check_eq!(
            w.number(&ns, "k").await?,
            Some(3),
            "the value after a delete and a put if absent"
        );
        Ok(())
    }

    /// `IfVersion` overwrites this version, and conflicts with any other version.
    #[case(tenant, entry)]
    async fn if_version_conflicts_with_other_version<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let first = w.put_entry(&ns, "k", 1, PutOptions::new(), Condition::Always).await?;
        let at = Condition::IfVersion;
        let second = w.put_entry(&ns, "k", 2, PutOptions::new(), at(first)).await?;
        for stale in [first, Version::draw()] {
            let put = w.put_entry(&ns, "k", 3, PutOptions::new(), at(stale)).await;
            let error = refused(put, ErrorKind::Conflict, "put at another version")?;
            check_eq!(error.current_version(), Some(second), "the current version in the conflict");
        }
        check_eq!(w.number(&ns, "k").await?, Some(2), "the value after the conflict");
        Ok(())
    }

    /// `IfVersion` conflicts with an absent entry, and the conflict has no version.
    #[case(tenant, entry)]
    async fn if_version_conflicts_with_absent_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let put =
            w.put_entry(&ns, "k", 1, PutOptions::new(), Condition::IfVersion(Version::draw()));
        let error = refused(put.await, ErrorKind::Conflict, "put at a version of an absent key")?;
        check_eq!(error.current_version(), None, "the current version in the conflict");
        check_eq!(w.get(&ns, "k").await?, None, "get after the conflict");
        Ok(())
    }

    /// `IfVersion` conflicts if the version is that of another key.
    #[case(tenant, entry)]
    async fn if_version_conflicts_with_version_of_other_key<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let other = w.put_entry(&ns, "other", 1, PutOptions::new(), Condition::Always).await?;
        let mine = w.put_entry(&ns, "k", 1, PutOptions::new(), Condition::Always).await?;
        let put = w.put_entry(&ns, "k", 2, PutOptions::new(), Condition::IfVersion(other)).await;
        let error = refused(put, ErrorKind::Conflict, "put at the version of another key")?;
        check_eq!(error.current_version(), Some(mine), "the current version in the conflict");
        Ok(())
    }

    /// An expired entry counts as absent for the conditions of `put_entry`.
    #[case(tenant, entry)]
    async fn put_treats_expired_entry_as_absent<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let expired = w.put_expired(&ns, "k").await?;
        let at = Condition::IfVersion(expired);
        let put = w.put_entry(&ns, "k", 1, PutOptions::new(), at).await;
        let error = refused(put, ErrorKind::Conflict, "a call at the version of an expired entry")?;
        check_eq!(error.current_version(), None, "the current version in the conflict");
        w.put_entry(&ns, "k", 2, PutOptions::new(), Condition::IfAbsent).await?;
        check_eq!(
            w.number(&ns, "k").await?,
            Some(2),
            "the value after put if absent of an expired key"
        );
        Ok(())
    }

    /// An expired entry counts as absent for the conditions of `delete_entry`.
    #[case(tenant, entry)]
    async fn delete_treats_expired_entry_as_absent<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let expired = w.put_expired(&ns, "k").await?;
        let at = Condition::IfVersion(expired);
        let deleted = w.store().delete_entry(w.ctx(), &ns, "k", at).await;
        let error =
            refused(deleted, ErrorKind::Conflict, "a call at the version of an expired entry")?;
        check_eq!(error.current_version(), None, "the current version in the conflict");
        let absent = Condition::IfAbsent;
        check!(
            !w.store().delete_entry(w.ctx(), &ns, "k", absent).await?,
            "delete_entry of an expired entry must return false, but returned true"
        );
        Ok(())
    }

    /// A failed condition changes neither the value nor the version nor the expiry. Its error is
    /// not retryable.
    #[case(tenant, entry)]
    async fn failed_condition_changes_nothing<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        w.put_for(&ns, "k", 1, w.long()).await?;
        let before = w.live(&ns, "k").await?;
        for condition in [Condition::IfAbsent, Condition::IfVersion(Version::draw())] {
            for options in [PutOptions::new(), PutOptions::new().with_ttl(w.short())] {
                let put = w.put_entry(&ns, "k", 2, options, condition).await;
                let error = refused(put, ErrorKind::Conflict, format_args!("{condition:?}"))?;
                check!(
                    !error.may_have_been_applied(),
                    "a conflict must have no effect, but says that it may have been applied"
                );
                check!(!error.is_retryable(), "a conflict must not be retryable, but is");
            }
            let deleted = w.store().delete_entry(w.ctx(), &ns, "k", condition).await;
            refused(deleted, ErrorKind::Conflict, format_args!("delete_entry with {condition:?}"))?;
        }
        check_eq!(w.live(&ns, "k").await?, before, "the entry after the failed calls");
        Ok(())
    }

    /// `delete_entry` returns whether the entry existed.
    #[case(tenant, entry)]
    async fn delete_reports_whether_entry_existed<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let always = Condition::Always;
        check!(
            !w.store().delete_entry(w.ctx(), &ns, "k", always).await?,
            "delete_entry of an absent key must return false, but returned true"
        );
        w.put(&ns, "k", 1).await?;
        check!(
            w.store().delete_entry(w.ctx(), &ns, "k", always).await?,
            "delete_entry of an existing key must return true, but returned false"
        );
        check!(
            !w.store().delete_entry(w.ctx(), &ns, "k", always).await?,
            "delete_entry of a deleted key must return false, but returned true"
        );
        check_eq!(w.get(&ns, "k").await?, None, "get after the delete");
        Ok(())
    }

    /// `delete_entry` with `IfVersion` deletes this version, and conflicts with any other version.
    #[case(tenant, entry)]
    async fn delete_if_version_conflicts_with_other_version<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let first = w.put_entry(&ns, "k", 1, PutOptions::new(), Condition::Always).await?;
        let second = w.put_entry(&ns, "k", 2, PutOptions::new(), Condition::Always).await?;
        let stale = Condition::IfVersion(first);
        let deleted = w.store().delete_entry(w.ctx(), &ns, "k", stale).await;
        let error = refused(deleted, ErrorKind::Conflict, "delete at an old version")?;
        check_eq!(error.current_version(), Some(second), "the current version in the conflict");
        check_eq!(w.number(&ns, "k").await?, Some(2), "the value after the conflict");
        let current = Condition::IfVersion(second);
        check!(
            w.store().delete_entry(w.ctx(), &ns, "k", current).await?,
            "delete_entry at the current version must return true, but returned false"
        );
        check_eq!(w.get(&ns, "k").await?, None, "get after the delete");
        let deleted = w.store().delete_entry(w.ctx(), &ns, "k", current).await;
        let error =
            refused(deleted, ErrorKind::Conflict, "delete at the version of a deleted entry")?;
        check_eq!(error.current_version(), None, "the current version in the conflict");
        Ok(())
    }

    /// `delete_entry` with `IfAbsent` succeeds for an absent key, and conflicts with an existing
    /// entry.
    #[case(tenant, entry)]
    async fn delete_if_absent_conflicts_with_existing_entry<V: Sample>(w: &World<V>) -> Outcome {
        let ns = w.ns(&["a"])?;
        let absent = Condition::IfAbsent;
        check!(
            !w.store().delete_entry(w.ctx(), &ns, "k", absent).await?,
            "delete_entry of an absent key must return false, but returned true"
        );
        let version = w.put_entry(&ns, "k", 1, PutOptions::new(), Condition::Always).await?;
        let deleted = w.store().delete_entry(w.ctx(), &ns, "k", absent).await;
        let error = refused(deleted, ErrorKind::Conflict, "delete if absent of an existing key")?;
        check_eq!(error.current_version(), Some(version), "the current version in the conflict");
        check_eq!(w.number(&ns, "k").await?, Some(1), "the value after the conflict");
        Ok(())
    }
}
