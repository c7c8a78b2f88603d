//! [`KeyRing`]: wrapping keys in memory.

mod text;

use std::fmt;
use std::sync::Arc;

use cubbyhole_core::{Error, ExecutionContext, Result, async_trait, runtime};

use super::cipher::{Cipher, hex, random};
use super::{KeyProvider, SecretKey, WrappedKey};

const MAX_ID_BYTES: usize = 64;

/// The keys that wrap data keys: a current key, and others that only unwrap. `Debug` shows ids only.
///
/// # Text form
///
/// One entry a line, in any order. Blank lines and lines that start with `#` are ignored. A key is 32
/// random bytes in base64. An id has 1 to 64 letters, digits, `-`, `_` and `.`:
///
/// ```text
/// current 7f3a9c21
/// key 7f3a9c21 BASE64
/// key 2026-01 BASE64
/// ```
///
/// # Examples
///
/// ```
/// use cubbyhole_layers::KeyRing;
///
/// # fn main() -> cubbyhole_core::Result<()> {
/// let mut ring = KeyRing::generate()?;
/// let first = ring.current_id().to_owned();
/// let second = ring.rotate()?;
/// assert_eq!(ring.current_id(), second);
/// assert_eq!(ring.key_ids().collect::<Vec<_>>(), [&second, &first]);
///
/// let copy = KeyRing::parse(&ring.to_text())?;
/// assert_eq!(copy.current_id(), second);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct KeyRing {
    /// The current key first.
    keys: Vec<(String, Arc<SecretKey>)>,
}

impl KeyRing {
    /// Creates a ring with one key, which is current.
    ///
    /// # Errors
    /// `InvalidArgument`: the id is invalid.
    pub fn new(id: impl Into<String>, key: SecretKey) -> Result<Self> {
        let id = id.into();
        check_id(&id)?;
        Ok(Self { keys: vec![(id, Arc::new(key))] })
    }

    /// Creates a ring with one random key, which is current. Its id is 8 random hexadecimal digits.
    ///
    /// # Errors
    /// `Unavailable`: the operating system returned no random bytes.
    pub fn generate() -> Result<Self> {
        Self::new(hex(&random::<4>()?), SecretKey::generate()?)
    }

    /// Adds a key that only unwraps.
    ///
    /// # Errors
    /// `InvalidArgument`: the id is invalid, or the ring has a key with this id.
    pub fn with_key(mut self, id: impl Into<String>, key: SecretKey) -> Result<Self> {
        let id = id.into();
        check_id(&id)?;
        if self.find(&id).is_some() {
            return Err(Error::invalid_argument(format!(
                "the key ring has two keys with the id `{id}`; give each key its own id"
            )));
        }
        self.keys.push((id, Arc::new(key)));
        Ok(self)
    }

    /// Adds a random key, makes it current, and returns its id. The other keys stay and unwrap.
    ///
    /// Data keys stay wrapped with the old key until [`Encrypted::rekey`](crate::Encrypted::rekey).
    ///
    /// # Errors
    /// `Unavailable`: the operating system returned no random bytes.
    pub fn rotate(&mut self) -> Result<String> {
        let mut id = hex(&random::<4>()?);
        while self.find(&id).is_some() {
            id = hex(&random::<4>()?);
        }
        self.keys.insert(0, (id.clone(), Arc::new(SecretKey::generate()?)));
        Ok(id)
    }

    /// Parses an environment variable that contains the text form. A `;` may replace a line break.
    ///
    /// ```
    /// use cubbyhole_core::ErrorKind;
    /// use cubbyhole_layers::KeyRing;
    ///
    /// let error = KeyRing::from_env("UNSET_VARIABLE").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument`: the variable is not set, or the text is invalid. The message names the variable
    /// and the line.
    pub fn from_env(name: &str) -> Result<Self> {
        text::from_env(name)
    }

    /// Parses the text form.
    ///
    /// # Errors
    /// `InvalidArgument`: a line is invalid, two keys have the same id, or there is no current key. The
    /// message names the line and does not quote it.
    pub fn parse(text: &str) -> Result<Self> {
        text::parse(text)
    }

    /// Returns the text form, which contains the keys. It is overwritten when it is dropped.
    #[must_use]
    pub fn to_text(&self) -> zeroize::Zeroizing<String> {
        text::render(self)
    }

    /// Returns the id of the current key.
    #[must_use]
    pub fn current_id(&self) -> &str {
        self.keys.first().map_or("", |(id, _)| id)
    }

    /// Returns the ids of all keys, that of the current key first.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(id, _)| id.as_str())
    }

    pub(super) fn find(&self, id: &str) -> Option<&SecretKey> {
        self.keys.iter().find(|(known, _)| known == id).map(|(_, key)| &**key)
    }

    pub(super) fn wrap_key(&self, data_key: &SecretKey, associated: &[u8]) -> Result<WrappedKey> {
        let Some((id, key)) = self.keys.first() else {
            return Err(Error::internal("a key ring without a key"));
        };
        let mut bytes = Vec::new();
        Cipher::new(key).seal(associated, data_key.expose(), &mut bytes)?;
        Ok(WrappedKey { key_id: id.clone(), bytes: bytes.into() })
    }

    pub(super) fn unwrap_key(&self, wrapped: &WrappedKey, associated: &[u8]) -> Result<SecretKey> {
        let id = &wrapped.key_id;
        let Some(key) = self.find(id) else {
            return Err(Error::unavailable(format!(
                "the key ring has no key `{id}`; add this key to the ring"
            ))
            .permanent());
        };
        let plain = Cipher::new(key).open(associated, &wrapped.bytes).ok_or_else(|| {
            Error::corrupt(format!(
                "the data key does not open with key `{id}`: the data key is damaged, or the ring \
                 has another key under this id"
            ))
        })?;
        SecretKey::from_slice(&zeroize::Zeroizing::new(plain))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others: Vec<_> = self.key_ids().skip(1).collect();
        f.debug_struct("KeyRing")
            .field("current", &self.current_id())
            .field("others", &others)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyProvider for KeyRing {
    async fn current_key_id(&self, _: &ExecutionContext) -> Result<String> {
        runtime::cooperate().await;
        Ok(self.current_id().to_owned())
    }

    async fn wrap(
        &self,
        _: &ExecutionContext,
        data_key: &SecretKey,
        associated: &[u8],
    ) -> Result<WrappedKey> {
        runtime::cooperate().await;
        self.wrap_key(data_key, associated)
    }

    async fn unwrap(
        &self,
        _: &ExecutionContext,
        wrapped: &WrappedKey,
        associated: &[u8],
    ) -> Result<SecretKey> {
        runtime::cooperate().await;
        self.unwrap_key(wrapped, associated)
    }
}

fn check_id(id: &str) -> Result<()> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(valid) {
        return Ok(());
    }
    // Does not quote the id: it could be a key in the wrong place.
    Err(Error::invalid_argument(format!(
        "a key id has 1 to {MAX_ID_BYTES} letters, digits, `-`, `_` and `.`"
    )))
}
