//! The bare cipher and the bare cache: the limits of `Encrypted` and `Cached`.

use std::sync::Arc;

use chacha20poly1305::aead::{AeadInOut, inout::InOutBuf};
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use cubbyhole::{
    Bytes, Entry, EntryMeta, ExecutionContext, InMemoryStore, Store, Timestamp, Version,
};
use moka::sync::Cache;

use crate::Result;
use crate::candidate::Candidate;
use crate::data::{EntryId, Names, Value, Values};
use crate::workload::Ability;

const ABILITIES: &[Ability] = &[Ability::Get, Ability::Put];
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// As long as the part of an envelope that `Encrypted` authenticates with the name of an entry.
const HEADER: [u8; 14] = *b"bare cipher, 1";

/// `InMemoryStore` with values that the caller encrypts. Nonces, key and associated data are those of
/// `Encrypted`: 24 random bytes of the operating system, and header, namespace, NUL and key.
pub struct CipherOverMemory {
    store: InMemoryStore<Bytes>,
    cipher: XChaCha20Poly1305,
    names: Arc<Names>,
    ctx: ExecutionContext,
}

impl CipherOverMemory {
    pub fn new(store: InMemoryStore<Bytes>, names: &Arc<Names>) -> Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        let cipher = XChaCha20Poly1305::new(&key.into());
        Ok(Self { store, cipher, names: Arc::clone(names), ctx: ExecutionContext::new() })
    }

    pub async fn fill(&self, values: &Values) -> Result<()> {
        for index in 0..self.names.entries() {
            self.put(EntryId::nth(index), values.nth(index)).await?;
        }
        Ok(())
    }

    fn associated(&self, id: EntryId) -> Vec<u8> {
        let (ns, key) = self.names.rendered(id);
        [&HEADER, ns.as_bytes(), b"\0", key.as_bytes()].concat()
    }
}

impl Candidate for CipherOverMemory {
    const ABILITIES: &'static [Ability] = ABILITIES;

    async fn get(&self, id: EntryId) -> Result<Option<usize>> {
        let ns = &self.names.namespaces[id.namespace];
        let Some(stored) = self.store.get(&self.ctx, ns, &self.names.keys[id.key]).await? else {
            return Ok(None);
        };
        let parts = stored[HEADER.len()..].split_first_chunk::<NONCE_BYTES>();
        let (nonce, rest) = parts.ok_or("no nonce")?;
        let (text, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or("no tag")?;
        let mut plain = text.to_vec();
        let buffer = InOutBuf::from(plain.as_mut_slice());
        let (nonce, tag) = (XNonce::from(*nonce), Tag::from(*tag));
        let opened = self.cipher.decrypt_inout_detached(&nonce, &self.associated(id), buffer, &tag);
        opened.map_err(|_| "the value does not open")?;
        Ok(Some(Bytes::from(plain).len()))
    }

    async fn put(&self, id: EntryId, value: &Value) -> Result<()> {
        let value = value.owned();
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)?;
        let start = HEADER.len() + NONCE_BYTES;
        let mut sealed = Vec::with_capacity(start + value.len() + TAG_BYTES);
        sealed.extend_from_slice(&HEADER);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&value);
        let tag = self.cipher.encrypt_inout_detached(
            &XNonce::from(nonce),
            &self.associated(id),
            sealed[start..].as_mut().into(),
        );
        sealed.extend_from_slice(&tag.map_err(|_| "the value cannot be encrypted")?);
        let ns = &self.names.namespaces[id.namespace];
        self.store.put(&self.ctx, ns, &self.names.keys[id.key], sealed.into()).await?;
        Ok(())
    }
}

/// `moka::sync::Cache` as a program would use it for the same entries: with its default hasher, and
/// text keys of namespace, NUL and key. A key is built on the stack, so a lookup allocates nothing. A
/// tuple of two strings as the key would need an allocation or a key type, and be slower.
pub struct BareMoka {
    cache: Cache<String, Entry<Bytes>>,
    names: Arc<Names>,
}

impl BareMoka {
    pub fn filled(names: &Arc<Names>, values: &Values) -> Self {
        // As large as the default of `Cached`, and weighed.
        let cache = Cache::builder()
            .max_capacity(64 << 20)
            .weigher(|key: &String, entry: &Entry<Bytes>| (key.len() + entry.value.len()) as u32)
            .build();
        for index in 0..names.entries() {
            let id = EntryId::nth(index);
            cache.insert(names.location(id), entry(values.nth(index)));
        }
        cache.run_pending_tasks();
        Self { cache, names: Arc::clone(names) }
    }
}

impl Candidate for BareMoka {
    const ABILITIES: &'static [Ability] = ABILITIES;

    async fn get(&self, id: EntryId) -> Result<Option<usize>> {
        let found = self.names.with_location(id, |location| self.cache.get(location));
        Ok(found.map(|entry| entry.value.len()))
    }

    async fn put(&self, id: EntryId, value: &Value) -> Result<()> {
        self.cache.insert(self.names.location(id), entry(value));
        Ok(())
    }
}

fn entry(value: &Value) -> Entry<Bytes> {
    let meta = EntryMeta {
        version: Version::draw(),
        created_at: Timestamp::EPOCH,
        updated_at: Timestamp::EPOCH,
        expires_at: None,
        idle_ttl: None,
    };
    Entry { value: value.owned(), meta }
}
