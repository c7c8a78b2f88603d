//! Sweeps and refreshes of the same entries at once, while their time runs out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cubbyhole_core::{EntryStore, Expiry, GetOptions, Namespace, Result};

use crate::case::cases;
use crate::outcome::{Outcome, check, check_eq};
use crate::Sample;
use crate::world::World;

const SWEEPERS: usize = 2;
const WRITERS: usize = 4;
/// How many entries each writer refreshes in a round, each in a way of its own.
const KEYS: usize = 15;

/// What a writer does to an entry whose time runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Put,
    PutFor,
    Touch,
    Slide,
    Nothing,
}

const WAYS: [Way; 5] = [Way::Put, Way::PutFor, Way::Touch, Way::Slide, Way::Nothing];

/// What is known of the entries of a round, together.
#[derive(Debug, Default)]
struct Told {
    /// These must be there.
    kept: Vec<String>,
    /// So many had ended for certain, and nobody wrote them again: a sweep removes them.
    ended: usize,
    /// So many were written again. Whether they had ended by then, and were swept, is open.
    rewritten: usize,
}

/// Refreshes the entries of one writer. A touch and a sliding read tell whether they came in time.
async fn refresh<V: Sample>(w: &World<V>, ns: &Namespace, writer: usize) -> Result<Told> {
    let mut told = Told::default();
    for number in 0..KEYS {
        let key = key(writer, number);
        let is_kept = match WAYS[number % WAYS.len()] {
            Way::Put => {
                w.put(ns, &key, 2).await?;
                told.rewritten += 1;
                true
            }
            Way::PutFor => {
                w.put_for(ns, &key, 2, w.long()).await?;
                told.rewritten += 1;
                true
            }
            Way::Touch => w.store().touch(w.ctx(), ns, &key, Expiry::Never).await?,
            Way::Slide => {
                let options = GetOptions::new().with_extended_ttl(w.long());
                w.store().get_entry(w.ctx(), ns, &key, options).await?.is_some()
            }
            Way::Nothing => false,
        };
        if is_kept {
            told.kept.push(key);
        } else {
            told.ended += 1;
        }
        tokio::task::yield_now().await;
    }
    Ok(told)
}

fn key(writer: usize, number: usize) -> String {
    format!("{writer}-{number:02}")
}

/// Entries whose time runs out while they are refreshed and swept.
async fn race<V: Sample>(w: &World<V>, round: usize) -> Outcome {
    let ns = w.ns(&[&format!("round-{round}")])?;
    for writer in 0..WRITERS {
        for number in 0..KEYS {
            w.put_for(&ns, &key(writer, number), 1, w.short()).await?;
        }
    }
    let (is_over, writing) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(WRITERS)));
    let answers = w
        .at_once(1 + SWEEPERS + WRITERS, |task, w| {
            let (ns, is_over, writing) = (ns.clone(), Arc::clone(&is_over), Arc::clone(&writing));
            async move {
                let mut swept = 0;
                let mut told = Told::default();
                match task {
                    0 => {
                        // At any place in the writers' turn.
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
                        // First: who waits for it waits also if this failed.
                        writing.fetch_sub(1, Ordering::AcqRel);
                        told = refreshed?;
                    }
                }
                Ok::<_, cubbyhole_core::Error>((swept, told))
            }
        })
        .await?;
    let mut swept = w.store().evict_expired(w.ctx()).await?;
    let mut all = Told::default();
    for answer in answers {
        let (by_one, told) = answer?;
        swept += by_one;
        all.kept.extend(told.kept);
        all.ended += told.ended;
        all.rewritten += told.rewritten;
    }
    all.kept.sort();
    check_eq!(w.list(&ns, None).await?, all.kept, "what was refreshed in time, in round {round}");
    let most = all.ended + all.rewritten;
    check!(
        (all.ended..=most).contains(&swept),
        "{swept} were swept in round {round}; {} had ended, and at most {most}",
        all.ended
    );
    let usage = w.store().usage(w.ctx(), &ns.into()).await?;
    check_eq!((usage.entries, usage.expired), (all.kept.len() as u64, 0), "what is left");
    Ok(())
}

cases! {
    /// An entry that a put, a touch or a sliding read refreshes during concurrent sweeps is never
    /// removed. An entry that was not refreshed is removed once, and the counts of the sweeps add
    /// up.
    #[case(store, entry)]
    async fn refreshed_entry_is_never_swept<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_kept_expired()?;
        // A real clock has to be waited for in each.
        let rounds = if w.can().real_time.is_some() { 3 } else { 20 };
        for round in 0..rounds {
            race(w, round).await?;
        }
        Ok(())
    }
}
