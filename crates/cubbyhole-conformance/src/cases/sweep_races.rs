//! Races between sweeps and refreshes of the same entries, while their TTLs end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cubbyhole_core::{Condition, EntryStore, Expiry, GetOptions, Namespace, PutOptions, Result};

use crate::Sample;
use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq};
use crate::world::World;

const SWEEPERS: usize = 2;
const WRITERS: usize = 4;
/// The number of entries that each writer refreshes in a round.
const KEYS: usize = 18;

/// The way in which a writer refreshes an entry whose TTL ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refresh {
    Put,
    PutWithTtl,
    Touch,
    SlidingRead,
    RefreshingRead,
    None,
}

const REFRESHES: [Refresh; 6] = [
    Refresh::Put,
    Refresh::PutWithTtl,
    Refresh::Touch,
    Refresh::SlidingRead,
    Refresh::RefreshingRead,
    Refresh::None,
];

/// The results of the refreshes of a round.
#[derive(Debug, Default)]
struct RefreshResults {
    /// The keys that were refreshed, and must exist.
    kept: Vec<String>,
    /// The number of entries that certainly expired without a refresh. A sweep removes them.
    expired: usize,
    /// The number of entries that were written again. They may have expired and been swept before.
    rewritten: usize,
}

/// Refreshes the entries of one writer. A touch and a sliding read report whether they were in
/// time.
async fn refresh<V: Sample>(w: &World<V>, ns: &Namespace, writer: usize) -> Result<RefreshResults> {
    let mut results = RefreshResults::default();
    for number in 0..KEYS {
        let key = key(writer, number);
        let is_kept = match REFRESHES[number % REFRESHES.len()] {
            Refresh::Put => {
                w.put(ns, &key, 2).await?;
                results.rewritten += 1;
                true
            }
            Refresh::PutWithTtl => {
                w.put_for(ns, &key, 2, w.long()).await?;
                results.rewritten += 1;
                true
            }
            Refresh::Touch => w.touch(ns, &key, Expiry::Never).await?,
            Refresh::SlidingRead => {
                let options = GetOptions::new().with_extended_ttl(w.long());
                w.store().get_entry(w.ctx(), ns, &key, options).await?.is_some()
            }
            Refresh::RefreshingRead => {
                let options = GetOptions::new().refreshing();
                w.store().get_entry(w.ctx(), ns, &key, options).await?.is_some()
            }
            Refresh::None => false,
        };
        if is_kept {
            results.kept.push(key);
        } else {
            results.expired += 1;
        }
        tokio::task::yield_now().await;
    }
    Ok(results)
}

fn key(writer: usize, number: usize) -> String {
    format!("{writer}-{number:02}")
}

/// Writes the entries of all writers. They expire soon unless they are refreshed.
async fn fill<V: Sample>(w: &World<V>, ns: &Namespace) -> Outcome {
    for writer in 0..WRITERS {
        for number in 0..KEYS {
            let key = key(writer, number);
            if REFRESHES[number % REFRESHES.len()] != Refresh::RefreshingRead {
                w.put_for(ns, &key, 1, w.short()).await?;
                continue;
            }
            // A refresh extends this entry beyond the round.
            let expires_at = w.store().current_time(w.ctx(), ns).await?.checked_add(w.short())?;
            let expiry = Expiry::IdleUntil { ttl: w.long(), expires_at };
            let options = PutOptions::new().with_expiry(expiry);
            w.put_entry(ns, &key, 1, options, Condition::Always).await?;
        }
    }
    Ok(())
}

/// Runs a round: entries whose TTLs end while writers refresh them and sweepers remove them.
async fn race<V: Sample>(w: &World<V>, round: usize) -> Outcome {
    let ns = w.ns(&[&format!("round-{round}")])?;
    fill(w, &ns).await?;
    let (is_over, writing) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(WRITERS)));
    let results = w
        .at_once(1 + SWEEPERS + WRITERS, |task, w| {
            let (ns, is_over, writing) = (ns.clone(), Arc::clone(&is_over), Arc::clone(&writing));
            async move {
                let mut swept = 0;
                let mut results = RefreshResults::default();
                match task {
                    0 => {
                        // Each round advances the clock at another point of the refreshes.
                        for _ in 0..round * 7 {
                            tokio::task::yield_now().await;
                        }
                        w.expire().await;
                        while writing.load(Ordering::Acquire) > 0 {
                            tokio::task::yield_now().await;
                        }
                        is_over.store(true, Ordering::Release);
                    }
                    1..=SWEEPERS => {
                        while !is_over.load(Ordering::Acquire) {
                            swept += w.store().evict_expired(w.ctx()).await?;
                            tokio::task::yield_now().await;
                        }
                    }
                    _ => {
                        let refreshed = refresh(&w, &ns, task - 1 - SWEEPERS).await;
                        // This comes before the `?`: the clock task waits for it even if the
                        // refresh failed.
                        writing.fetch_sub(1, Ordering::AcqRel);
                        results = refreshed?;
                    }
                }
                Ok::<_, cubbyhole_core::Error>((swept, results))
            }
        })
        .await?;
    let mut swept = w.store().evict_expired(w.ctx()).await?;
    let mut all = RefreshResults::default();
    for result in results {
        let (by_one, results) = result?;
        swept += by_one;
        all.kept.extend(results.kept);
        all.expired += results.expired;
        all.rewritten += results.rewritten;
    }
    all.kept.sort();
    check_eq!(
        w.list(&ns, None).await?,
        all.kept,
        "the keys that were refreshed in time, in round {round}"
    );
    let most = all.expired + all.rewritten;
    check!(
        (all.expired..=most).contains(&swept),
        "the sweeps of round {round} must count {} to {most} entries, but count {swept}",
        all.expired
    );
    let usage = w.store().usage(w.ctx(), &ns.into()).await?;
    check_eq!(
        (usage.entries, usage.expired),
        (all.kept.len() as u64, 0),
        "live and expired entries after the sweeps"
    );
    Ok(())
}

cases! {
    /// An entry that a put, a touch, a sliding or a refreshing read refreshes during concurrent
    /// sweeps is never removed. An entry that was not refreshed is removed once, and the counts of
    /// the sweeps add up.
    #[case(store, entry)]
    async fn refreshed_entry_is_never_swept<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_kept_expired()?;
        // With a real clock, each round waits for the TTLs.
        let rounds = if w.can().real_time.is_some() { 3 } else { 20 };
        for round in 0..rounds {
            race(w, round).await?;
        }
        Ok(())
    }
}
