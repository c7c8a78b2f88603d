//! [`Encryption`]: the options of the layer [`Encrypted`].

use std::sync::Arc;

use cubbyhole_core::{Bytes, EntryStore};

use crate::{Encrypted, KeyProvider, KeyStore, Plaintext};

/// The options of the layer [`Encrypted`] in a stack of [`Layers`](crate::Layers).
///
/// ```
/// use std::sync::Arc;
///
/// use cubbyhole_core::Bytes;
/// use cubbyhole_layers::{Encryption, KeyRing, Layers, Plaintext};
/// use cubbyhole_memory::InMemoryStore;
///
/// # fn main() -> cubbyhole_core::Result<()> {
/// let ring = Arc::new(KeyRing::generate()?);
/// let encryption = Encryption::new(ring).with_plaintext(Plaintext::Accept);
/// let layers = Layers::new().with_encryption(encryption);
/// let store = layers.around(Arc::new(InMemoryStore::<Bytes>::new()))?;
/// # drop(store);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Encryption {
    provider: Arc<dyn KeyProvider>,
    key_store: KeyStore,
    plaintext: Plaintext,
}

impl Encryption {
    /// Creates the options with the defaults of [`Encrypted::new`].
    #[must_use]
    pub fn new(provider: Arc<dyn KeyProvider>) -> Self {
        Self { provider, key_store: KeyStore::in_store(), plaintext: Plaintext::Refuse }
    }

    /// Sets where the data keys are stored, as [`Encrypted::with_key_store`] does.
    #[must_use]
    pub fn with_key_store(mut self, key_store: KeyStore) -> Self {
        self.key_store = key_store;
        self
    }

    /// Sets whether values that are not encrypted are readable, as [`Encrypted::with_plaintext`] does.
    #[must_use]
    pub const fn with_plaintext(mut self, plaintext: Plaintext) -> Self {
        self.plaintext = plaintext;
        self
    }

    /// Encrypts the values of `inner` with these options.
    #[must_use]
    pub fn around<S: EntryStore<Bytes>>(&self, inner: S) -> Encrypted<S> {
        Encrypted::new(inner, Arc::clone(&self.provider))
            .with_key_store(self.key_store.clone())
            .with_plaintext(self.plaintext)
    }
}
