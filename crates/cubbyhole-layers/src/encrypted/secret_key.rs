//! [`SecretKey`].

use std::fmt;

use cubbyhole_core::{Error, Result};
use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox};

use super::cipher::fill_random;

/// A secret key of 32 bytes. `Debug` does not show it, and its memory is overwritten on drop.
///
/// ```
/// use cubbyhole_layers::SecretKey;
///
/// # fn main() -> cubbyhole_core::Result<()> {
/// let key = SecretKey::generate()?;
/// assert_eq!(key.expose().len(), SecretKey::BYTES);
/// assert_eq!(format!("{key:?}"), "SecretKey");
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct SecretKey(SecretBox<[u8; SecretKey::BYTES]>);

impl SecretKey {
    /// The length of a key: 32 bytes.
    pub const BYTES: usize = 32;

    /// Draws a key from the random source of the operating system.
    ///
    /// # Errors
    /// `Unavailable`: the operating system returned no random bytes.
    pub fn generate() -> Result<Self> {
        let mut key = Self::default();
        fill_random(key.0.expose_secret_mut())?;
        Ok(key)
    }

    /// Copies a key. The caller overwrites its own copy.
    ///
    /// # Errors
    /// `InvalidArgument`: there are not 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self> {
        if bytes.len() != Self::BYTES {
            return Err(Error::invalid_argument(format!(
                "the key has {} bytes instead of {}",
                bytes.len(),
                Self::BYTES
            )));
        }
        let mut key = Self::default();
        key.0.expose_secret_mut().copy_from_slice(bytes);
        Ok(key)
    }

    /// Returns the bytes of the key, for a [`KeyProvider`](crate::KeyProvider) that wraps it.
    #[must_use]
    pub fn expose(&self) -> &[u8; Self::BYTES] {
        self.0.expose_secret()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}
