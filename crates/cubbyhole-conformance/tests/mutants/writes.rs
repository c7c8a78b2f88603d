//! Mutants that break writes: conditions, batches, takes, versions and values.

use cubbyhole_core::{
    Batch, Bytes, Condition, Entry, EntryStore, Error, Expiry, GetOptions, Namespace, Operation,
    PutOptions, Result, Store, Version, Written, async_trait, limits,
};

use crate::mutant::{Context, Inner, Mutant, catches, mutants};

mutants! {
    /// `put_entry` ignores its condition.
    #[caught_by(
        "conditions::if_version_conflicts_with_other_version",
        "concurrency::one_concurrent_put_if_absent_wins"
    )]
    PutEntryIgnoresCondition {
        async fn put_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions, _: Condition) -> Result<Version> {
            self.inner.put_entry(c, ns, key, v, o, Condition::Always).await
        }
    }

    /// `delete_entry` ignores its condition.
    #[caught_by("conditions::delete_if_version_conflicts_with_other_version")]
    DeleteIgnoresCondition {
        async fn delete_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, _: Condition)
            -> Result<bool> {
            self.inner.delete_entry(c, ns, key, Condition::Always).await
        }
    }

    /// `put_entry` checks its condition in a separate step before the write.
    #[caught_by("concurrency::concurrent_increments_are_all_counted")]
    ConditionCheckedOutsideWrite {
        async fn put_entry(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes,
            o: PutOptions, condition: Condition) -> Result<Version> {
            let current = self.inner.get_entry(c, ns, key, GetOptions::new()).await?;
            condition.check(current.map(|entry| entry.meta.version))?;
            tokio::task::yield_now().await;
            self.inner.put_entry(c, ns, key, v, o, Condition::Always).await
        }
    }

    /// `take` does not delete the entry.
    #[caught_by("take::take_returns_and_removes_the_entry")]
    TakeDoesNotDelete {
        async fn take(&self, c: Context<'_>, ns: &Namespace, key: &str)
            -> Result<Option<Entry<Bytes>>> {
            self.inner.get_entry(c, ns, key, GetOptions::new()).await
        }
    }

    /// `take` reads the entry, and deletes it in a separate step.
    #[caught_by("take::one_concurrent_take_gets_the_entry")]
    TakeInTwoSteps {
        async fn take(&self, c: Context<'_>, ns: &Namespace, key: &str)
            -> Result<Option<Entry<Bytes>>> {
            let entry = self.inner.get_entry(c, ns, key, GetOptions::new()).await?;
            tokio::task::yield_now().await;
            self.inner.delete(c, ns, key).await?;
            Ok(entry)
        }
    }

    /// A batch is applied up to the first condition that fails.
    #[caught_by("batches::failed_condition_writes_nothing", "model::random_operations")]
    BatchIsNotAtomic {
        async fn write(&self, c: Context<'_>, ns: &Namespace, batch: Batch<Bytes>)
            -> Result<Vec<Written>> {
            let mut results = Vec::new();
            for (index, operation) in batch.into_operations().into_iter().enumerate() {
                let one = Batch::from_iter([operation]);
                let written = self.inner.write(c, ns, one).await;
                results.extend(written.map_err(|error| error.at_batch_index(index))?);
            }
            Ok(results)
        }
    }

    /// A batch may name a key twice, and the last operation counts.
    #[caught_by("batches::duplicate_key_is_rejected")]
    BatchKeepsLastDuplicateKey {
        async fn write(&self, c: Context<'_>, ns: &Namespace, batch: Batch<Bytes>)
            -> Result<Vec<Written>> {
            let mut last: Vec<Operation<Bytes>> = Vec::new();
            for operation in batch.into_operations() {
                last.retain(|other| other.key() != operation.key());
                last.push(operation);
            }
            self.inner.write(c, ns, last.into_iter().collect()).await
        }
    }

    /// `put` deletes the entry first, which resets `created_at`.
    #[caught_by("entries::overwrite_keeps_created_at")]
    OverwriteResetsCreatedAt {
        async fn put(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes) -> Result<()> {
            self.inner.delete(c, ns, key).await?;
            self.inner.put(c, ns, key, v).await
        }
    }

    /// `touch` writes the value again.
    #[caught_by("versions::touch_keeps_the_version", "model::random_operations")]
    TouchRewritesValue {
        async fn touch(&self, c: Context<'_>, ns: &Namespace, key: &str, e: Expiry,
            condition: Condition) -> Result<bool> {
            let entry = self.inner.get_entry(c, ns, key, GetOptions::new()).await?;
            condition.check(entry.as_ref().map(|entry| entry.meta.version))?;
            let Some(Entry { value, .. }) = entry else {
                return Ok(false);
            };
            let o = PutOptions::new().with_expiry(e);
            self.inner.put_with_options(c, ns, key, value, o).await?;
            Ok(true)
        }
    }

    /// Values are stored as text.
    #[caught_by("values::awkward_values_are_returned_unchanged")]
    ValuesBecomeText {
        async fn put(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes) -> Result<()> {
            let text = String::from_utf8_lossy(&v).into_owned();
            self.inner.put(c, ns, key, Bytes::from(text)).await
        }
    }

    /// Keys over the limit are truncated.
    #[caught_by("limits::key_of_1025_bytes_is_rejected")]
    TruncatesLongKeys {
        async fn put(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes) -> Result<()> {
            let cut = key.get(..limits::MAX_KEY_BYTES).unwrap_or(key);
            self.inner.put(c, ns, cut, v).await
        }
    }

    /// An error contains the value.
    #[caught_by("errors::core_error_contains_no_value")]
    ErrorsContainValues {
        async fn put(&self, c: Context<'_>, ns: &Namespace, key: &str, v: Bytes) -> Result<()> {
            let text = String::from_utf8_lossy(&v).into_owned();
            let put = self.inner.put(c, ns, key, v).await;
            put.map_err(|error| Error::new(error.kind(), format!("cannot put {text}")))
        }
    }
}
