//! A damaged image of an embedded store, or any bytes: opening the image succeeds or is rejected, and a
//! read returns the written value or an error.
#![no_main]

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use cubbyhole::embedded::EmbeddedStore;
use cubbyhole::{
    Backend as _, Bytes, EntryStore, ExecutionContext, Namespace, PutOptions, Result, ScanOptions,
    Store, embedded,
};
use cubbyhole_embedded::StorageBackend;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;

/// The lengths of the values in the images: some are stored in their records, some separately.
const VALUES: [usize; 4] = [0, 10, 900, 5_000];

/// The unit of a disk write.
const SECTOR: usize = 512;

/// The unit that an image copies when one of its bytes changes.
const BLOCK: usize = 4096;

/// The size of the disk. A damaged header may request any size.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// A file in memory: bytes that all runs share, and the blocks that this run has changed. Copying the
/// whole file would take longer than the rest of a run.
#[derive(Debug, Clone)]
struct Image(Arc<Mutex<Contents>>);

#[derive(Debug)]
struct Contents {
    shared: Arc<[u8]>,
    /// The length of `shared` that is still valid after truncations.
    valid: usize,
    length: usize,
    changed: HashMap<usize, [u8; BLOCK]>,
}

impl Image {
    fn holding(bytes: Arc<[u8]>) -> Self {
        let (valid, length) = (bytes.len(), bytes.len());
        Self(Arc::new(Mutex::new(Contents {
            shared: bytes,
            valid,
            length,
            changed: HashMap::new(),
        })))
    }

    fn bytes(&self) -> Arc<[u8]> {
        let contents = self.0.lock().unwrap();
        let mut bytes = vec![0; contents.length];
        contents.read(0, &mut bytes);
        bytes.into()
    }

    async fn open(&self) -> Result<EmbeddedStore> {
        let image = self.clone();
        let config = embedded::Config::new("image")
            .with_cache_bytes(1024 * 1024)
            .with_storage(move || Ok(Box::new(image.clone())));
        EmbeddedStore::open(&ExecutionContext::new(), config).await
    }
}

impl Contents {
    /// Reads within the file. The caller checks the length.
    fn read(&self, mut at: usize, mut out: &mut [u8]) {
        while !out.is_empty() {
            let (block, within) = (at / BLOCK, at % BLOCK);
            let (part, rest) = out.split_at_mut(out.len().min(BLOCK - within));
            match self.changed.get(&block) {
                Some(changed) => part.copy_from_slice(&changed[within..within + part.len()]),
                None => self.read_shared(at, part),
            }
            at += part.len();
            out = rest;
        }
    }

    fn read_shared(&self, at: usize, out: &mut [u8]) {
        let there = &self.shared[at.min(self.valid)..(at + out.len()).min(self.valid)];
        out[..there.len()].copy_from_slice(there);
        out[there.len()..].fill(0);
    }

    fn write(&mut self, mut at: usize, mut data: &[u8]) {
        self.length = self.length.max(at + data.len());
        while !data.is_empty() {
            let (block, within) = (at / BLOCK, at % BLOCK);
            let (part, rest) = data.split_at(data.len().min(BLOCK - within));
            if !self.changed.contains_key(&block) {
                let mut copy = [0; BLOCK];
                self.read_shared(block * BLOCK, &mut copy);
                self.changed.insert(block, copy);
            }
            let changed = self.changed.get_mut(&block).unwrap();
            changed[within..within + part.len()].copy_from_slice(part);
            at += part.len();
            data = rest;
        }
    }

    fn set_length(&mut self, length: usize) {
        if length < self.length {
            self.valid = self.valid.min(length);
            self.changed.retain(|block, _| block * BLOCK < length);
            if let Some(last) = self.changed.get_mut(&(length / BLOCK)) {
                last[length % BLOCK..].fill(0);
            }
        }
        self.length = length;
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl StorageBackend for Image {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().length as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (contents, start) = (self.0.lock().unwrap(), place(offset)?);
        let end = start.checked_add(out.len());
        if end.is_none_or(|end| end > contents.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        contents.read(start, out);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if length > MOST_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.lock().unwrap().set_length(place(length)?);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset.saturating_add(data.len() as u64) > MOST_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.lock().unwrap().write(place(offset)?, data);
        Ok(())
    }
}

/// Runs a future on a runtime that all runs share.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let new = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    RUNTIME.get_or_init(new).block_on(future)
}

fn name() -> Namespace {
    Namespace::parse("acme:a").unwrap()
}

/// An undamaged image, and the positions of its non-zero sectors. Damage elsewhere would mostly hit free
/// space.
struct Whole {
    bytes: Arc<[u8]>,
    sectors: Vec<usize>,
}

impl Whole {
    fn new(bytes: Arc<[u8]>) -> Self {
        let sectors = bytes.chunks(SECTOR).enumerate();
        let used = sectors.filter(|(_, sector)| sector.iter().any(|byte| *byte != 0));
        let sectors = used.map(|(number, _)| number * SECTOR).collect();
        let whole = Self { bytes, sectors };
        // Without damage every value must be readable, or the target would show nothing.
        assert_eq!(run(Image::holding(Arc::clone(&whole.bytes)), true), VALUES.len());
        whole
    }

    /// Returns the image after some disk faults. Six bytes of `faults` describe each.
    fn damaged(&self, faults: &[u8]) -> Image {
        let image = Image::holding(Arc::clone(&self.bytes));
        let mut contents = image.0.lock().unwrap();
        for fault in faults.chunks_exact(6) {
            let number = u32::from_le_bytes(fault[1..5].try_into().unwrap()) as usize;
            let sector = |number: usize| self.sectors[number % self.sectors.len()];
            let (start, last) = (sector(number / SECTOR), fault[5]);
            if start + SECTOR > contents.length {
                continue;
            }
            match fault[0] % 8 {
                // A write to the wrong place.
                0 => {
                    let mut other = [0; SECTOR];
                    self.bytes[sector(number / SECTOR + usize::from(last))..]
                        .iter()
                        .zip(&mut other)
                        .for_each(|(from, to)| *to = *from);
                    contents.write(start, &other);
                }
                // A lost write.
                1 => contents.write(start, &[0; SECTOR]),
                // A truncated copy.
                2 => contents.set_length(start + number % SECTOR),
                // A changed byte.
                _ => contents.write(start + number % SECTOR, &[last]),
            }
        }
        drop(contents);
        image
    }
}

/// The images of a killed store, whose log must be replayed, and of a closed store.
fn wholes() -> &'static [Whole; 2] {
    static WHOLES: OnceLock<[Whole; 2]> = OnceLock::new();
    WHOLES.get_or_init(|| {
        let image = Image::holding(Arc::new([]));
        let (killed, closed) = block_on(async {
            let (store, ctx) = (image.open().await.unwrap(), ExecutionContext::new());
            store.put(&ctx, &name(), "deleted", Bytes::from_static(b"v")).await.unwrap();
            for length in VALUES {
                let options = PutOptions::new().with_ttl(Duration::from_secs(1 << 30));
                let value = Bytes::from(vec![b'v'; length]);
                let key = length.to_string();
                store.put_with_options(&ctx, &name(), &key, value, options).await.unwrap();
            }
            store.delete(&ctx, &name(), "deleted").await.unwrap();
            let killed = image.bytes();
            store.close(&ctx).await.unwrap();
            (killed, image.bytes())
        });
        assert_ne!(killed, closed);
        [Whole::new(killed), Whole::new(closed)]
    })
}

/// Makes every reading call on the store in an image, and the writing calls if `writes` is set: their
/// commits take most of a run. Returns how many of the values were read.
fn run(image: Image, writes: bool) -> usize {
    block_on(async {
        let Ok(store) = image.open().await else { return 0 };
        let (ctx, mut found) = (ExecutionContext::new(), 0);
        for length in VALUES {
            if let Ok(Some(value)) = store.get(&ctx, &name(), &length.to_string()).await {
                assert!(value.len() == length && value.iter().all(|byte| *byte == b'v'));
                found += 1;
            }
        }
        drop(store.verify(&ctx).await);
        drop(store.scan(&ctx, &name(), ScanOptions::new()).await);
        drop(store.list_namespaces(&ctx, &name().into()).await);
        if !writes {
            return found;
        }
        drop(store.put(&ctx, &name(), "new", Bytes::from_static(b"v")).await);
        drop(store.evict_expired(&ctx).await);
        drop(store.erase(&ctx, &name().into(), 1000).await);
        drop(store.close(&ctx).await);
        found
    })
}

/// Silences panics of the engine about a damaged file, which the store catches. Any other panic ends the
/// run.
fn tolerate_panics_of_the_engine() {
    let end = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_engine = |at: &std::panic::Location<'_>| at.file().contains("/redb-");
        if !panic.location().is_some_and(is_engine) {
            end(panic);
        }
    }));
}

// The first byte selects whether the rest is an image or faults, the store, and whether calls write.
fuzz_target!(init: tolerate_panics_of_the_engine(), |data: &[u8]| {
    let Some((how, rest)) = data.split_first() else { return };
    let image = match how % 8 {
        0 => Image::holding(rest.into()),
        how => wholes()[usize::from(how % 2)].damaged(rest),
    };
    run(image, how & 8 != 0);
});
