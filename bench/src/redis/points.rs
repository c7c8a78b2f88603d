//! Single entries by one caller and by several, beside the bare commands and the peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::redis::cmd;
use cubbyhole::{EntryStore, ExecutionContext, TypedExt};
use entelix_memory::Store as _;
use tokio::runtime::Runtime;

use super::contestants::{Contestants, encoded, value};
use super::listing::PEER;
use crate::callers::{self, Work, work};
use crate::data::{Names, Place};
use crate::harness::{Settings, exactly, interleave};
use crate::report::{Comparison, Report};
use crate::{REDIS, Result};

const BARE: &str = "bare GET or SET";

pub fn compare(
    runtime: &Runtime,
    settings: &Settings,
    all: &Contestants,
    report: &mut Report,
) -> Result<()> {
    let settings = &Settings { rounds: 2 * settings.rounds + 1, ..*settings };
    println!("\nget and put, {} rounds:", settings.rounds);
    let (mut beside_bare, mut beside_peer) = (Vec::new(), Vec::new());
    for callers in [1, 16] {
        let settings = &callers::settings(settings, callers);
        for (name, works) in [("get", gets(all)), ("put", puts(all))] {
            let mut cases = works.map(|work| callers::case(runtime, callers, all.place(), work));
            let samples = exactly(interleave(settings, &mut cases)?)?;
            push(
                format!("{name}, {}", callers::count(callers)),
                samples,
                [&mut beside_bare, &mut beside_peer],
            );
        }
        let draw = next_place(all);
        let mut cases =
            new_puts(all).map(|work| callers::case(runtime, callers, draw.clone(), work));
        let samples = exactly(interleave(settings, &mut cases)?)?;
        push(
            format!("put of a new key, {}", callers::count(callers)),
            samples,
            [&mut beside_bare, &mut beside_peer],
        );
    }
    report.rates(beside_bare);
    report.rates(beside_peer);
    Ok(())
}

/// Bytes beside the bare command, JSON beside the peer.
fn push(
    operation: String,
    [ours, bare, typed, peer]: [crate::harness::Samples; 4],
    [beside_bare, beside_peer]: [&mut Vec<Comparison>; 2],
) {
    beside_bare.push(Comparison::new(REDIS, operation.clone(), &ours, BARE, bare));
    beside_peer.push(Comparison::new(REDIS, operation + ", JSON", &typed, PEER, peer));
}

fn gets(all: &Contestants) -> [Work<Place>; 4] {
    let names = &all.names;
    [get(&all.ours, names), bare_get(all), get(&all.ours_typed, names), peer_get(all)]
}

fn puts(all: &Contestants) -> [Work<Place>; 4] {
    let names = &all.names;
    [
        put(&all.ours, names, encoded, old_key),
        bare_set(all, &all.stems, old_key),
        put(&all.ours_typed, names, value, old_key),
        peer_put(all, old_key),
    ]
}

fn new_puts(all: &Contestants) -> [Work<Place>; 4] {
    let names = &all.names;
    let ours: Arc<dyn EntryStore<cubbyhole::Bytes>> = Arc::new(all.new.clone());
    let typed: Arc<dyn EntryStore<String>> = Arc::new(all.new.clone().typed());
    [
        put(&ours, names, encoded, new_key),
        bare_set(all, &all.new_stems, new_key),
        put(&typed, names, value, new_key),
        peer_put(all, new_key),
    ]
}

/// How a place names its key.
type Key = fn(&Names, Place) -> String;

fn old_key(names: &Names, place: Place) -> String {
    names.keys[place.key].clone()
}

/// As long as an old one.
fn new_key(_: &Names, place: Place) -> String {
    format!("new-{:08}", place.key)
}

/// Places where nobody has been, through the namespaces in turn.
fn next_place(all: &Contestants) -> impl Fn(&mut fastrand::Rng) -> Place + Clone + use<> {
    // Of all calls: the second set of cases goes on where the first one ended.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let namespaces = all.new_namespaces;
    move |_| {
        let key = NEXT.fetch_add(1, Ordering::Relaxed);
        Place { namespace: key % namespaces, key }
    }
}

fn get<V: Send + 'static>(store: &Arc<dyn EntryStore<V>>, names: &Arc<Names>) -> Work<Place> {
    let (store, names) = (Arc::clone(store), Arc::clone(names));
    work(move |place: Place| {
        let (store, names) = (Arc::clone(&store), Arc::clone(&names));
        async move {
            let ns = &names.namespaces[place.namespace];
            let value = store.get(&ExecutionContext::new(), ns, &names.keys[place.key]).await?;
            found(value.is_some())
        }
    })
}

/// Of the store's own values.
fn bare_get(all: &Contestants) -> Work<Place> {
    let (bare, stems, names) = (all.bare.clone(), Arc::clone(&all.stems), Arc::clone(&all.names));
    work(move |place: Place| {
        let (mut bare, stems, names) = (bare.clone(), Arc::clone(&stems), Arc::clone(&names));
        async move {
            let name = [&stems[place.namespace], &*names.keys[place.key]].concat();
            let value: Option<Vec<u8>> = cmd("GET").arg(name).query_async(&mut bare).await?;
            found(value.is_some())
        }
    })
}

fn peer_get(all: &Contestants) -> Work<Place> {
    let (peer, namespaces) = (Arc::clone(&all.peer), Arc::clone(&all.peer_namespaces));
    let names = Arc::clone(&all.names);
    work(move |place: Place| {
        let (peer, namespaces) = (Arc::clone(&peer), Arc::clone(&namespaces));
        let names = Arc::clone(&names);
        async move {
            let ctx = entelix_core::ExecutionContext::new();
            let ns = &namespaces[place.namespace];
            found(peer.get(&ctx, ns, &names.keys[place.key]).await?.is_some())
        }
    })
}

fn put<V: Send + 'static>(
    store: &Arc<dyn EntryStore<V>>,
    names: &Arc<Names>,
    value: fn() -> V,
    key: Key,
) -> Work<Place> {
    let (store, names) = (Arc::clone(store), Arc::clone(names));
    work(move |place: Place| {
        let (store, names) = (Arc::clone(&store), Arc::clone(&names));
        async move {
            let ns = &names.namespaces[place.namespace];
            let key = key(&names, place);
            Ok(store.put(&ExecutionContext::new(), ns, &key, value()).await?)
        }
    })
}

fn bare_set(all: &Contestants, stems: &Arc<Vec<String>>, key: Key) -> Work<Place> {
    let (bare, stems, names) = (all.bare.clone(), Arc::clone(stems), Arc::clone(&all.names));
    work(move |place: Place| {
        let (mut bare, stems, names) = (bare.clone(), Arc::clone(&stems), Arc::clone(&names));
        async move {
            let name = [&*stems[place.namespace], &key(&names, place)].concat();
            let value = encoded();
            cmd("SET").arg(name).arg(&*value).query_async::<()>(&mut bare).await?;
            Ok(())
        }
    })
}

fn peer_put(all: &Contestants, key: Key) -> Work<Place> {
    let (peer, namespaces) = (Arc::clone(&all.peer), Arc::clone(&all.peer_namespaces));
    let names = Arc::clone(&all.names);
    work(move |place: Place| {
        let (peer, namespaces) = (Arc::clone(&peer), Arc::clone(&namespaces));
        let names = Arc::clone(&names);
        async move {
            let ctx = entelix_core::ExecutionContext::new();
            let (ns, key) = (&namespaces[place.namespace], key(&names, place));
            Ok(peer.put(&ctx, ns, &key, value()).await?)
        }
    })
}

/// A store that finds nothing must not look fast.
fn found(is_found: bool) -> Result<()> {
    if is_found { Ok(()) } else { Err("an entry is not there".into()) }
}
