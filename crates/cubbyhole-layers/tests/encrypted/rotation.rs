//! Rotation of keys.

use std::time::Duration;

use cubbyhole_core::{
    EntryMeta, EntryStore, ErrorKind, GetOptions, ManualClock, Position, PutOptions, Store,
};
use cubbyhole_layers::{Encrypted, KeyRing, Plaintext, Rekeyed};

use crate::common::{Inner, assert_says, ctx, get, layer, memory, ns, put};

const PLACES: [&str; 3] = ["acme", "acme:a", "acme:b"];

async fn fill(store: &impl Store<cubbyhole_core::Bytes>) {
    for place in PLACES {
        for n in 0_u64..5 {
            let options = match n {
                0 => PutOptions::new(),
                1 => PutOptions::new().with_idle_ttl(Duration::from_secs(500)),
                n => PutOptions::new().with_ttl(Duration::from_secs(1_000 * n)),
            };
            let (ns, key) = (ns(place), n.to_string());
            let value = format!("{place} {n}").into();
            store.put_with_options(&ctx(), &ns, &key, value, options).await.unwrap();
        }
    }
}

async fn metas(store: &Inner) -> Vec<EntryMeta> {
    let mut metas = Vec::new();
    for place in PLACES {
        for n in 0..5 {
            let key = n.to_string();
            let entry = store.get_entry(&ctx(), &ns(place), &key, GetOptions::new()).await;
            // `updated_at` is the only field that a rewrite may change.
            let meta = entry.unwrap().unwrap().meta;
            metas.push(EntryMeta { updated_at: meta.created_at, ..meta });
        }
    }
    metas
}

async fn assert_values(store: &Encrypted<Inner>) {
    for place in PLACES {
        for n in 0..5 {
            let value = get(store, place, &n.to_string()).await.unwrap().unwrap();
            assert_eq!(value, format!("{place} {n}"));
        }
    }
}

#[tokio::test]
async fn interrupted_reencryption_has_the_same_result() {
    for (plain, restart) in [(false, false), (false, true), (true, true)] {
        for interrupted in 0..6 {
            let clock = ManualClock::default();
            let (inner, mut ring) = (memory(&clock), KeyRing::generate().unwrap());
            if plain {
                fill(&inner).await;
            } else {
                fill(&layer(&inner, &ring, &clock)).await;
            }
            let mut before = metas(&inner).await;
            clock.advance(Duration::from_secs(1));
            ring.rotate().unwrap();
            let mode = if plain { Plaintext::Accept } else { Plaintext::Refuse };
            let make = || layer(&inner, &ring, &clock).with_plaintext(mode);
            let running = make();
            assert_values(&running).await;
            let rekeyed = make().rekey(&ctx(), &ns("acme").tenant()).await.unwrap();
            assert_eq!(rekeyed.new_data_key, !plain);

            let (mut after, mut rewritten, mut steps) = (None::<Position>, 0, 0);
            loop {
                // A new process for each step.
                let step =
                    make().reencrypt_step(&ctx(), &ns("acme").into(), after, 3).await.unwrap();
                assert!(step.unreadable.is_empty() && step.changed == 0);
                rewritten += step.rewritten;
                after = step.next;
                if after.is_none() {
                    break;
                }
                if steps == 0 {
                    // A process that has cached the old data key writes in between.
                    put(&running, "acme:b", "4", "acme:b 4").await.unwrap();
                    before[14] = metas(&inner).await[14];
                }
                if steps == interrupted && restart {
                    after = None;
                }
                steps += 1;
            }
            // The first write to a plain store creates the key, so it is current.
            assert_eq!(rewritten, if plain { 14 } else { 15 });
            assert_eq!(metas(&inner).await, before);
            // The running process finds the new data key by its id.
            assert_values(&running).await;
            assert_values(&layer(&inner, &ring, &clock)).await;
            let again = make().reencrypt_step(&ctx(), &ns("acme").into(), None, 100).await.unwrap();
            assert_eq!((again.checked, again.rewritten, again.next), (15, 0, None));
        }
    }
}

#[tokio::test]
async fn values_no_longer_need_the_old_ring_key_after_rekey() {
    let clock = ManualClock::default();
    let (inner, mut ring) = (memory(&clock), KeyRing::generate().unwrap());
    fill(&layer(&inner, &ring, &clock)).await;
    let first = ring.current_id().to_owned();
    let second = ring.rotate().unwrap();
    let store = layer(&inner, &ring, &clock);
    let tenant = ns("acme").tenant();
    let rekeyed = store.rekey(&ctx(), &tenant).await.unwrap();
    assert_eq!(rekeyed, Rekeyed { new_data_key: true, rewrapped: 1, shredded: false });
    assert_eq!(store.rekey(&ctx(), &tenant).await.unwrap(), Rekeyed::default());

    let text = ring.to_text();
    let lines = text.lines().filter(|line| !line.starts_with(&format!("key {first} ")));
    let only_second = KeyRing::parse(&lines.collect::<Vec<_>>().join("\n")).unwrap();
    assert_eq!(only_second.key_ids().collect::<Vec<_>>(), [&second]);
    assert_values(&layer(&inner, &only_second, &clock)).await;
}

#[tokio::test]
async fn writer_with_cached_old_key_loses_nothing() {
    let clock = ManualClock::default();
    let (inner, mut ring) = (memory(&clock), KeyRing::generate().unwrap());
    let writer = layer(&inner, &ring, &clock);
    put(&writer, "acme", "k", "old").await.unwrap();
    ring.rotate().unwrap();
    let store = layer(&inner, &ring, &clock);
    store.rekey(&ctx(), &ns("acme").tenant()).await.unwrap();
    store.reencrypt_step(&ctx(), &ns("acme").into(), None, 10).await.unwrap();

    put(&writer, "acme", "k", "new").await.unwrap();
    assert_eq!(get(&store, "acme", "k").await.unwrap().unwrap(), "new");
    let step = store.reencrypt_step(&ctx(), &ns("acme").into(), None, 10).await.unwrap();
    assert_eq!(step.rewritten, 1);
    assert_eq!(get(&store, "acme", "k").await.unwrap().unwrap(), "new");
}

#[tokio::test]
async fn unreadable_entries_are_reported_and_kept() {
    let clock = ManualClock::default();
    let (inner, mut ring) = (memory(&clock), KeyRing::generate().unwrap());
    fill(&layer(&inner, &ring, &clock)).await;
    put(&inner, "acme:a", "2", "plain").await.unwrap();
    ring.rotate().unwrap();
    let store = layer(&inner, &ring, &clock);
    store.rekey(&ctx(), &ns("acme").tenant()).await.unwrap();
    let step = store.reencrypt_step(&ctx(), &ns("acme").into(), None, 100).await.unwrap();
    assert_eq!((step.checked, step.rewritten), (15, 14));
    let [entry] = step.unreadable.as_slice() else { panic!("{step:?}") };
    assert_eq!((entry.namespace.as_str(), entry.key.as_str()), ("acme:a", "2"));
    assert_says(&entry.error, ErrorKind::Corrupt, "not encrypted");
    assert_eq!(get(&inner, "acme:a", "2").await.unwrap().unwrap(), "plain");
}
