//! The image of an embedded store with some of its bytes changed, or any bytes at all: it is opened
//! or refused, and what is read of it is what was written or an error.
#![no_main]

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use cubbyhole::{
    Backend as _, Bytes, EmbeddedConfig, EmbeddedStore, EntryStore, ExecutionContext, Namespace,
    PutOptions, ScanOptions, Store,
};
use cubbyhole_embedded::StorageBackend;
use libfuzzer_sys::fuzz_target;

/// Some that stand in their records, and some that do not.
const VALUES: [usize; 4] = [0, 10, 900, 5_000];

#[derive(Debug, Clone)]
struct Image(Arc<Mutex<Vec<u8>>>);

impl Image {
    fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(bytes)))
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }

    async fn open(&self) -> cubbyhole::Result<EmbeddedStore> {
        let image = self.clone();
        let config = EmbeddedConfig::new("image")
            .with_cache_bytes(1024 * 1024)
            .with_storage(move || Ok(Box::new(image.clone())));
        EmbeddedStore::open(&ExecutionContext::new(), config).await
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

/// A damaged header may ask for anything; more than this no disk of this test has.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

impl StorageBackend for Image {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (image, start) = (self.0.lock().unwrap(), place(offset)?);
        let end = start.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(image.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if length > MOST_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.lock().unwrap().resize(place(length)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.saturating_add(data.len() as u64);
        if end > MOST_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (mut image, start, end) = (self.0.lock().unwrap(), place(offset)?, place(end)?);
        if image.len() < end {
            image.resize(end, 0);
        }
        image[start..end].copy_from_slice(data);
        Ok(())
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn name() -> Namespace {
    Namespace::parse("acme:a").unwrap()
}

/// A whole store, made once.
fn whole() -> &'static Vec<u8> {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let image = Image::holding(Vec::new());
        block_on(async {
            let (store, ctx) = (image.open().await.unwrap(), ExecutionContext::new());
            for length in VALUES {
                let options = PutOptions::new().with_ttl(std::time::Duration::from_secs(1 << 30));
                let value = Bytes::from(vec![b'v'; length]);
                let key = length.to_string();
                store.put_with_options(&ctx, &name(), &key, value, options).await.unwrap();
            }
            store.close(&ctx).await.unwrap();
        });
        image.bytes()
    })
}

/// The first byte says whether the rest is the image or changes of it: a place, and what is there.
fn image(data: &[u8]) -> Option<Vec<u8>> {
    let (how, rest) = data.split_first()?;
    if *how == 0 {
        return Some(rest.to_vec());
    }
    let mut image = whole().clone();
    for change in rest.chunks_exact(5) {
        let at = u32::from_le_bytes(change[..4].try_into().unwrap()) as usize % image.len();
        image[at] = change[4];
    }
    Some(image)
}

fuzz_target!(|data: &[u8]| {
    let Some(image) = image(data) else { return };
    block_on(async {
        let Ok(store) = Image::holding(image).open().await else { return };
        let ctx = ExecutionContext::new();
        for length in VALUES {
            if let Ok(Some(value)) = store.get(&ctx, &name(), &length.to_string()).await {
                assert!(value.len() == length && value.iter().all(|byte| *byte == b'v'));
            }
        }
        drop(store.scan(&ctx, &name(), ScanOptions::new()).await);
        drop(store.list_namespaces(&ctx, &name().into()).await);
        drop(store.put(&ctx, &name(), "new", Bytes::from_static(b"v")).await);
        drop(store.evict_expired(&ctx).await);
        drop(store.erase(&ctx, &name().into(), 1000).await);
        drop(store.close(&ctx).await);
    });
});
