//! Truncated and corrupted files: every call returns a clear error or the right answer, never a
//! wrong answer or a panic.
//!
//! - `CUBBYHOLE_DAMAGES`: the number of damaged files; [`DAMAGES`] by default.
//! - `CUBBYHOLE_CRASH_SEED`: the seed that a failed test printed.
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
/// The length of the log. Damage of the log of a killed store is tested in `log.rs`.
const LOG: usize = 1024 * 1024;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Creates a store with short and long values. Returns its contents, its image, and the image of
/// one commit earlier.
async fn intact_store() -> (BTreeMap<String, Bytes>, Vec<u8>, Vec<u8>) {
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

/// Damages an image in a random way. Returns a description.
fn damage(image: &mut Vec<u8>, earlier: &[u8], random: &mut fastrand::Rng) -> String {
    let at = match random.u8(0..4) {
        // The start of the engine region, with its header and first checksum blocks.
        0 => LOG + random.usize(0..4 * BLOCK),
        1 => random.usize(0..image.len()),
        _ => random.usize(LOG..image.len()),
    };
    let sector = at / SECTOR * SECTOR;
    let sector_end = image.len().min(sector + SECTOR);
    match random.u8(0..7) {
        0 => {
            image.truncate(at);
            format!("truncated at {at}")
        }
        1 | 2 => {
            image[at] ^= 1 << random.u8(0..8);
            format!("bit flipped at {at}")
        }
        3 => {
            image[sector..sector_end].fill(0);
            format!("sector of zeros at {sector}")
        }
        4 => {
            random.fill(&mut image[sector..sector_end]);
            format!("sector of noise at {sector}")
        }
        5 => {
            let from = random.usize(0..image.len() / BLOCK) * BLOCK;
            let to = (at / BLOCK * BLOCK).min(image.len() - BLOCK);
            image.copy_within(from..from + BLOCK, to);
            format!("block at {to} replaced by the one at {from}")
        }
        _ => {
            // The header is excluded: with the earlier header, the whole store would be one commit
            // older, which no checksum can detect.
            let last = earlier.len().min(image.len()) - BLOCK;
            let to = (at / BLOCK * BLOCK).clamp(LOG + 3 * BLOCK, last);
            image[to..to + BLOCK].copy_from_slice(&earlier[to..to + BLOCK]);
            format!("block at {to} reverted by one commit")
        }
    }
}

/// Whether an error has the properties that errors of damaged files must have.
fn is_clear(error: &Error) -> bool {
    let kinds = [ErrorKind::Corrupt, ErrorKind::InvalidArgument];
    kinds.contains(&error.kind()) && !error.may_have_been_applied() && !error.is_retryable()
}

/// The numbers of results of a damaged store.
#[derive(Debug, Default)]
struct Outcomes {
    refused_to_open: u64,
    errors: u64,
    answers: u64,
}

/// Opens the image and calls all reads. If `later` is given, it replaces the image after opening.
async fn examine(
    image: Vec<u8>,
    later: Option<Vec<u8>>,
    whole: &BTreeMap<String, Bytes>,
) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let disk = Disk::holding(image);
    // An empty image must not become a new store. With a tiny cache, reads access the disk.
    let config = disk.config().with_create(false).with_cache_bytes(BLOCK);
    let opened = EmbeddedStore::open(&ctx(), config).await;
    later.into_iter().for_each(|later| disk.replace(later));
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            assert!(is_clear(&error), "while opening: {error:?}");
            outcomes.refused_to_open = 1;
            return outcomes;
        }
    };
    let mut judge = |call: &str, answer: Result<bool, Error>| match answer {
        Ok(is_right) => {
            assert!(is_right, "wrong answer: {call}");
            outcomes.answers += 1;
        }
        Err(error) => {
            assert!(is_clear(&error), "{call}: {error:?}");
            outcomes.errors += 1;
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
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_file_gives_clear_error_or_right_answer() {
    let panics = std::sync::Arc::new(AtomicBool::new(false));
    let panicked = std::sync::Arc::clone(&panics);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        panicked.store(true, Ordering::SeqCst);
        before(panic);
    }));
    let seed = number("CUBBYHOLE_CRASH_SEED", fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let (whole, image, earlier) = intact_store().await;
    let mut total = Outcomes::default();
    for _ in 0..number("CUBBYHOLE_DAMAGES", DAMAGES) {
        let mut damaged = image.clone();
        let change = damage(&mut damaged, &earlier, &mut random);
        let is_changed = damaged != image;
        let (image, later, when) = match random.bool() {
            true => (damaged, None, "before it was opened"),
            false => (image.clone(), Some(damaged), "while it was open"),
        };
        let change = format!("{change} {when}");
        // A separate task, so a failed assertion can be reported with the damage.
        let whole = whole.clone();
        let examined = tokio::spawn(async move { examine(image, later, &whole).await }).await;
        let outcomes = examined.unwrap_or_else(|error| panic!("{change} (seed {seed}): {error}"));
        assert!(!panics.load(Ordering::SeqCst), "{change} (seed {seed}): a thread panicked");
        assert!(is_changed || outcomes.errors == 0, "{change} (seed {seed}): error without damage");
        total.refused_to_open += outcomes.refused_to_open;
        total.errors += outcomes.errors;
        total.answers += outcomes.answers;
    }
    // Each kind of result occurred.
    assert!(total.refused_to_open > 10 && total.errors > 100 && total.answers > 1_000, "{total:?}");
}

#[tokio::test]
async fn intact_file_gives_only_right_answers() {
    let (whole, image, _) = intact_store().await;
    let outcomes = examine(image, None, &whole).await;
    assert_eq!((outcomes.refused_to_open, outcomes.errors), (0, 0), "{outcomes:?}");
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&ctx(), Config::new(folder.path().join("s"))).await;
    store.unwrap().verify(&ctx()).await.unwrap();
}
