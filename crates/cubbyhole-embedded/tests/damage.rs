//! A file that is cut off, or whose bytes are not what was written: a clear error or the right
//! answer, never a wrong one, never a panic.
//!
//! - `CUBBYHOLE_DAMAGES`: how many files are damaged, in place of [`DAMAGES`].
//! - `CUBBYHOLE_CRASH_SEED`: the seed that a failure printed.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cubbyhole_core::{
    Batch, Bytes, EntryStore, Error, ErrorKind, NamespacePrefix, PutOptions, ScanOptions, Store,
};
use cubbyhole_embedded::{Config, EmbeddedStore};
use support::{Disk, contents, ctx, ns};

const DAMAGES: u64 = 120;
const SECTOR: usize = 512;
const BLOCK: usize = 4096;
/// What stands before the engine's part. It is used where a store was killed: `log.rs`.
const LOG: usize = 1024 * 1024;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// A store with short and long values, and what was in the file one commit earlier.
async fn sound() -> (BTreeMap<String, Bytes>, Vec<u8>, Vec<u8>) {
    let disk = Disk::new();
    let store = disk.open().await;
    for chunk in 0..10 {
        let put = |batch: Batch<Bytes>, n: usize| {
            let value = format!("{chunk}-{n} ").repeat(n * 3);
            let hour = PutOptions::new().with_ttl(Duration::from_secs(3_600));
            let options = if n.is_multiple_of(3) { hour } else { PutOptions::new() };
            let always = cubbyhole_core::Condition::Always;
            batch.put_with(format!("k{chunk}-{n:02}"), value.into(), options, always)
        };
        store.write(&ctx(), &ns(), (0..40).fold(Batch::new(), put)).await.unwrap();
    }
    let long = Bytes::from(vec![7; 100_000]);
    store.put(&ctx(), &ns(), "long", long).await.unwrap();
    let earlier = disk.image();
    store.put(&ctx(), &ns(), "last", Bytes::from_static(b"the last")).await.unwrap();
    let whole = contents(&store).await;
    drop(store);
    (whole, disk.image(), earlier)
}

/// Damages an image in one of the ways in which disks and people do. What was done.
fn damage(image: &mut Vec<u8>, earlier: &[u8], random: &mut fastrand::Rng) -> String {
    let at = match random.u8(0..4) {
        // The beginning of the engine's part, where the header is and the sums are.
        0 => LOG + random.usize(0..4 * BLOCK),
        1 => random.usize(0..image.len()),
        _ => random.usize(LOG..image.len()),
    };
    let sector = at / SECTOR * SECTOR;
    let sector_end = image.len().min(sector + SECTOR);
    match random.u8(0..7) {
        0 => {
            image.truncate(at);
            format!("cut off at {at}")
        }
        1 | 2 => {
            image[at] ^= 1 << random.u8(0..8);
            format!("a bit flipped at {at}")
        }
        3 => {
            image[sector..sector_end].fill(0);
            format!("a sector of zeros at {sector}")
        }
        4 => {
            random.fill(&mut image[sector..sector_end]);
            format!("a sector of noise at {sector}")
        }
        5 => {
            let from = random.usize(0..image.len() / BLOCK) * BLOCK;
            let to = (at / BLOCK * BLOCK).min(image.len() - BLOCK);
            image.copy_within(from..from + BLOCK, to);
            format!("the block at {from} where that at {to} was")
        }
        _ => {
            // Not the header: with that the whole store is one commit earlier, which nothing in the
            // file can tell.
            let last = earlier.len().min(image.len()) - BLOCK;
            let to = (at / BLOCK * BLOCK).clamp(LOG + 3 * BLOCK, last);
            image[to..to + BLOCK].copy_from_slice(&earlier[to..to + BLOCK]);
            format!("the block at {to} as it was one commit earlier")
        }
    }
}

/// How an error must be, on opening and afterwards.
fn is_clear(error: &Error) -> bool {
    let kinds = [ErrorKind::Corrupt, ErrorKind::InvalidArgument];
    kinds.contains(&error.kind()) && !error.may_have_been_applied() && !error.is_retryable()
}

/// What a damaged store answered.
#[derive(Debug, Default)]
struct Told {
    refused_to_open: u64,
    errors: u64,
    answers: u64,
}

/// Opens the image and asks it everything. `later` is what the file becomes once it is open.
async fn examine(image: Vec<u8>, later: Option<Vec<u8>>, whole: &BTreeMap<String, Bytes>) -> Told {
    let mut told = Told::default();
    let disk = Disk::holding(image);
    // Never created anew: an image that is cut off at nothing is no store. And with hardly a cache,
    // so that the disk is asked.
    let config = disk.config().with_create(false).with_cache_bytes(BLOCK);
    let opened = EmbeddedStore::open(&ctx(), config).await;
    later.into_iter().for_each(|later| disk.replace(later));
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            assert!(is_clear(&error), "on opening: {error:?}");
            told.refused_to_open = 1;
            return told;
        }
    };
    let mut judge = |what: &str, answer: Result<bool, Error>| match answer {
        Ok(is_right) => {
            assert!(is_right, "a wrong answer: {what}");
            told.answers += 1;
        }
        Err(error) => {
            assert!(is_clear(&error), "{what}: {error:?}");
            told.errors += 1;
        }
    };
    for (key, value) in whole {
        let got = store.get(&ctx(), &ns(), key).await;
        judge(key, got.map(|got| got.as_ref() == Some(value)));
    }
    judge("absent", store.get(&ctx(), &ns(), "absent").await.map(|got| got.is_none()));
    let keys = store.list(&ctx(), &ns(), None).await;
    judge("list", keys.map(|keys| keys.iter().eq(whole.keys())));
    let page = store.scan(&ctx(), &ns(), ScanOptions::new().with_limit(1000)).await;
    let fits = |page: cubbyhole_core::Page<cubbyhole_core::ScanItem<Bytes>, String>| {
        page.items.len() == whole.len()
            && page.items.iter().zip(whole).all(|(item, (key, value))| {
                let got = item.value.as_ref().unwrap();
                item.key == *key && got.as_ref().map_or_else(is_clear, |got| got == value)
            })
    };
    judge("scan", page.map(fits));
    let everything = NamespacePrefix::from(ns());
    let names = store.list_namespaces(&ctx(), &everything).await;
    judge("namespaces", names.map(|names| names == [ns()]));
    let usage = store.usage(&ctx(), &everything).await;
    judge("usage", usage.map(|usage| usage.entries == whole.len() as u64 && usage.expired == 0));
    judge("sweep", store.evict_expired(&ctx()).await.map(|swept| swept == 0));
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_gives_an_error_or_the_right_answer() {
    let panics = std::sync::Arc::new(AtomicBool::new(false));
    let noticed = std::sync::Arc::clone(&panics);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        noticed.store(true, Ordering::SeqCst);
        before(panic);
    }));
    let seed = number("CUBBYHOLE_CRASH_SEED", fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let (whole, image, earlier) = sound().await;
    let mut total = Told::default();
    for _ in 0..number("CUBBYHOLE_DAMAGES", DAMAGES) {
        let mut damaged = image.clone();
        let what = damage(&mut damaged, &earlier, &mut random);
        let is_changed = damaged != image;
        let (image, later, when) = match random.bool() {
            true => (damaged, None, "before it was opened"),
            false => (image.clone(), Some(damaged), "while it was open"),
        };
        let what = format!("{what} {when}");
        // A task of its own, so that a wrong answer is told with what was done.
        let whole = whole.clone();
        let examined = tokio::spawn(async move { examine(image, later, &whole).await }).await;
        let told = examined.unwrap_or_else(|error| panic!("{what} (seed {seed}): {error}"));
        assert!(!panics.load(Ordering::SeqCst), "{what} (seed {seed}): something panicked");
        assert!(is_changed || told.errors == 0, "{what} (seed {seed}): nothing was damaged");
        total.refused_to_open += told.refused_to_open;
        total.errors += told.errors;
        total.answers += told.answers;
    }
    // Each sort of ending was seen.
    assert!(total.refused_to_open > 10 && total.errors > 100 && total.answers > 1_000, "{total:?}");
}

#[tokio::test]
async fn an_intact_file_has_no_damage() {
    let (whole, image, _) = sound().await;
    let told = examine(image, None, &whole).await;
    assert_eq!((told.refused_to_open, told.errors), (0, 0), "{told:?}");
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&ctx(), Config::new(folder.path().join("s"))).await;
    store.unwrap().verify(&ctx()).await.unwrap();
}
