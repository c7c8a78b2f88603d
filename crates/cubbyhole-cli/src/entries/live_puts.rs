//! Writes entries that may have expired. The store's clock decides, not this machine's.

use std::time::Duration;

use cubbyhole::{
    Backend, Batch, Bytes, Error, ExecutionContext, Expiry, Namespace, Operation, Timestamp,
};

/// The tolerated clock drift between the store and this machine during one write.
const DRIFT: Duration = Duration::from_secs(1);

/// Writes the puts of `batch` that have not expired, atomically. Returns for each operation whether
/// its entry was live after the write. An expired entry is left out, because writing it would
/// remove an existing entry.
///
/// If entries expire, the store's time is read before the write, and again after it if one of them
/// may have expired in between.
///
/// # Errors
/// The errors of the store. If reading the time after the write fails, the outcome is unknown.
pub(crate) async fn write_live(
    store: &dyn Backend,
    ctx: &ExecutionContext,
    namespace: &Namespace,
    batch: Batch<Bytes>,
) -> Result<Vec<bool>, Error> {
    let expiries: Vec<Option<Timestamp>> = batch.operations().iter().map(expires_at).collect();
    if expiries.iter().all(Option::is_none) {
        store.write(ctx, namespace, batch).await?;
        return Ok(vec![true; expiries.len()]);
    }
    let asked = tokio::time::Instant::now();
    let time = store.current_time(ctx, namespace).await?;
    let live = live_at(&expiries, time);
    let kept = batch.into_operations().into_iter().zip(&live).filter(|(_, live)| **live);
    let batch: Batch<Bytes> = kept.map(|(operation, _)| operation).collect();
    if batch.is_empty() {
        return Ok(live);
    }
    store.write(ctx, namespace, batch).await?;
    let by_now = time.checked_add(asked.elapsed() + DRIFT).unwrap_or(Timestamp::MAX);
    if live_at(&expiries, by_now) == live {
        return Ok(live);
    }
    let time = store.current_time(ctx, namespace).await.map_err(Error::with_unknown_outcome)?;
    Ok(live_at(&expiries, time))
}

fn expires_at(operation: &Operation<Bytes>) -> Option<Timestamp> {
    match operation {
        Operation::Put { options, .. } => match options.expiry() {
            Expiry::At(instant) | Expiry::IdleUntil { expires_at: instant, .. } => Some(instant),
            // A TTL is greater than zero, so the entry is live when it is written.
            Expiry::Never | Expiry::After(_) | Expiry::Idle(_) => None,
        },
        Operation::Delete { .. } => None,
    }
}

/// Returns for each expiry whether the entry is live at `time`.
pub(crate) fn live_at(expiries: &[Option<Timestamp>], time: Timestamp) -> Vec<bool> {
    expiries.iter().map(|expiry| expiry.is_none_or(|instant| time < instant)).collect()
}

#[cfg(test)]
mod tests {
    use cubbyhole::{Clock, EntryStore};
    use cubbyhole::{
        Condition, GetOptions, InMemoryStore, ManualClock, PutOptions, Store, SystemClock,
    };

    use super::*;

    /// A store whose clock is ten years ahead of this machine.
    fn ahead() -> (InMemoryStore<Bytes>, ManualClock) {
        let clock = ManualClock::new(SystemClock.now());
        clock.advance(Duration::from_secs(10 * 365 * 86_400));
        (InMemoryStore::builder().with_clock(clock.clone()).build(), clock)
    }

    fn put(key: &str, options: PutOptions) -> Operation<Bytes> {
        let (key, value) = (key.to_owned(), Bytes::from_static(b"new"));
        Operation::Put { key, value, options, condition: Condition::Always }
    }

    #[tokio::test]
    async fn clock_of_the_store_decides_expiry() {
        let (store, clock) = ahead();
        let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme").unwrap());
        store.put(&ctx, &ns, "expired", Bytes::from_static(b"old")).await.unwrap();
        let at = |millis: u64| {
            let instant = Timestamp::from_millis(clock.now().as_millis() + millis - 1).unwrap();
            PutOptions::new().with_expires_at(instant)
        };
        let soon = SystemClock.now().checked_add(Duration::from_secs(86_400)).unwrap();
        let batch = Batch::from_iter([
            put("none", PutOptions::new()),
            put("expired", PutOptions::new().with_expires_at(soon)),
            put("now", at(1)),
            put("later", at(2)),
        ]);
        let live = write_live(&store, &ctx, &ns, batch).await.unwrap();
        assert_eq!(live, [true, false, false, true]);
        assert_eq!(store.list(&ctx, &ns, None).await.unwrap(), ["expired", "later", "none"]);
        let old = store.get_entry(&ctx, &ns, "expired", GetOptions::new()).await.unwrap();
        assert_eq!(old.unwrap().value, "old", "an expired entry replaced a live one");
        let idle = Expiry::IdleUntil { ttl: Duration::from_secs(60), expires_at: soon };
        let idle = PutOptions::new().with_expiry(idle);
        let batch = Batch::from_iter([put("expired", at(1)), put("now", at(1)), put("idle", idle)]);
        assert_eq!(write_live(&store, &ctx, &ns, batch).await.unwrap(), [false; 3]);
    }
}
