//! Mutants that break conditions of touches and batches, and `IfPresent`.

use cubbyhole_core::{
    Batch, Bytes, Condition, Entry, EntryStore, ErrorKind, Expiry, GetOptions, Namespace,
    Operation, PutOptions, Result, Version, Written, async_trait,
};

use crate::mutant::{Context, Inner, Mutant, catches, mutants};

mutants! {
    /// `touch` ignores its condition.
    #[caught_by(
        "leases::lost_lease_is_a_conflict",
        "leases::ended_lease_is_a_conflict",
        "model::random_operations"
    )]
    TouchIgnoresCondition {
        async fn touch(&self, c: Context<'_>, ns: &Namespace, key: &str, e: Expiry, _: Condition)
            -> Result<bool> {
            self.inner.touch(c, ns, key, e, Condition::Always).await
        }
    }

    /// `touch` returns `false` if its condition does not hold.
    #[caught_by("leases::lost_lease_is_a_conflict", "if_present::absent_entry_is_a_conflict")]
    TouchReturnsFalseOnConflict {
        async fn touch(&self, c: Context<'_>, ns: &Namespace, key: &str, e: Expiry,
            condition: Condition) -> Result<bool> {
            match self.inner.touch(c, ns, key, e, condition).await {
                Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
                touched => touched,
            }
        }
    }

    /// `touch` extends a lease that has expired.
    #[caught_by("leases::ended_lease_is_a_conflict", "leases::lease_ends_exactly_at_its_expiry")]
    TouchExtendsExpiredLease {
        async fn touch(&self, c: Context<'_>, ns: &Namespace, key: &str, e: Expiry,
            condition: Condition) -> Result<bool> {
            let live = self.inner.get_entry(c, ns, key, GetOptions::new()).await?;
            let expired = self.inner.usage(c, &ns.into()).await?.expired;
            if let (Condition::IfVersion(version), None, 1..) = (condition, live, expired) {
                let o = PutOptions::new().with_version(version);
                self.inner.put_entry(c, ns, key, Bytes::new(), o, Condition::Always).await?;
            }
            self.inner.touch(c, ns, key, e, condition).await
        }
    }

    /// `touch` checks its condition before its TTL.
    #[caught_by(
        "leases::arguments_are_checked_before_the_condition",
        "idle::idle_ttl_is_checked_before_conditions"
    )]
    TouchChecksConditionFirst {
        async fn touch(&self, c: Context<'_>, ns: &Namespace, key: &str, e: Expiry,
            condition: Condition) -> Result<bool> {
            let entry = self.inner.get_entry(c, ns, key, GetOptions::new()).await?;
            condition.check(entry.map(|entry| entry.meta.version))?;
            self.inner.touch(c, ns, key, e, condition).await
        }
    }

    /// `IfPresent` means `Always`.
    #[caught_by(
        "if_present::absent_entry_is_a_conflict",
        "if_present::expired_entry_is_a_conflict",
        "if_present::batch_with_absent_entry_writes_nothing",
        "model::random_operations"
    )]
    IfPresentMeansAlways {
        async fn put_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions, condition: Condition) -> Result<Version> {
            self.inner.put_entry(c, ns, key, v, o, always_if_present(condition)).await
        }

        async fn write(&self, c: Context<'_>, ns: &Namespace, batch: Batch<Bytes>)
            -> Result<Vec<Written>> {
            let changed = |operation| match operation {
                Operation::Put { key, value, options, condition } => {
                    let condition = always_if_present(condition);
                    Operation::Put { key, value, options, condition }
                }
                Operation::Delete { key, condition } => {
                    Operation::Delete { key, condition: always_if_present(condition) }
                }
            };
            let batch = batch.into_operations().into_iter().map(changed).collect();
            self.inner.write(c, ns, batch).await
        }
    }

    /// `delete_entry` returns `false` if `IfPresent` does not hold.
    #[caught_by("if_present::absent_entry_is_a_conflict")]
    DeleteIfPresentReturnsFalse {
        async fn delete_entry(&self, c: Context<'_>, ns: &Namespace, key: &str,
            condition: Condition) -> Result<bool> {
            self.inner.delete_entry(c, ns, key, always_if_present(condition)).await
        }
    }

    /// `IfPresent` holds for an expired entry that is not swept yet.
    #[caught_by(
        "if_present::expired_entry_is_a_conflict",
        "if_present::condition_agrees_with_reads_on_the_expiry"
    )]
    IfPresentHoldsForExpired {
        async fn put_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions, condition: Condition) -> Result<Version> {
            let expired = self.inner.usage(c, &ns.into()).await?.expired;
            let condition = if expired > 0 { always_if_present(condition) } else { condition };
            self.inner.put_entry(c, ns, key, v, o, condition).await
        }
    }

    /// `write` reports that every delete removed an entry.
    #[caught_by("batches::delete_reports_whether_entry_was_live", "model::random_operations")]
    WriteReportsEveryDelete {
        async fn write(&self, c: Context<'_>, ns: &Namespace, batch: Batch<Bytes>)
            -> Result<Vec<Written>> {
            let mut written = self.inner.write(c, ns, batch).await?;
            for result in &mut written {
                if let Written::Deleted(found) = result {
                    *found = true;
                }
            }
            Ok(written)
        }
    }

    /// `write` reports that it deleted expired entries.
    #[caught_by("batches::delete_reports_whether_entry_was_live")]
    WriteReportsExpiredDelete {
        async fn write(&self, c: Context<'_>, ns: &Namespace, batch: Batch<Bytes>)
            -> Result<Vec<Written>> {
            let mut before = self.inner.usage(c, &ns.into()).await?.expired;
            let mut written = self.inner.write(c, ns, batch).await?;
            for result in &mut written {
                if *result == Written::Deleted(false) && before > 0 {
                    *result = Written::Deleted(true);
                    before -= 1;
                }
            }
            Ok(written)
        }
    }

    /// `write` checks its conditions in a separate step before it writes.
    #[caught_by("sequences::concurrent_appends_leave_no_gap")]
    WriteChecksConditionsOutside {
        async fn write(&self, c: Context<'_>, ns: &Namespace, batch: Batch<Bytes>)
            -> Result<Vec<Written>> {
            let mut unconditional = Batch::new();
            for operation in batch.into_operations() {
                let entry = self.inner.get_entry(c, ns, operation.key(), GetOptions::new()).await?;
                operation.condition().check(entry.map(|Entry { meta, .. }| meta.version))?;
                unconditional = match operation {
                    Operation::Put { key, value, options, .. } => {
                        unconditional.put_with(key, value, options, Condition::Always)
                    }
                    Operation::Delete { key, .. } => unconditional.delete(key),
                };
            }
            tokio::task::yield_now().await;
            self.inner.write(c, ns, unconditional).await
        }
    }
}

fn always_if_present(condition: Condition) -> Condition {
    match condition {
        Condition::IfPresent => Condition::Always,
        condition => condition,
    }
}
