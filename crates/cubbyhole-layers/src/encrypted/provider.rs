//! [`KeyProvider`].

use std::fmt;

use cubbyhole_core::{Bytes, ExecutionContext, Result, async_trait};

use super::SecretKey;

/// A source of the keys that wrap data keys: a [`KeyRing`](crate::KeyRing), a
/// [`KeyFile`](crate::KeyFile), or a client of a key management service.
///
/// [`Encrypted`](crate::Encrypted) calls it when it creates a data key, when it first reads one, and in
/// [`rekey`](crate::Encrypted::rekey). It keeps unwrapped data keys in memory, so calls on entries
/// rarely wait for the provider.
///
/// The error of a provider contains no key material. A key id is not secret: messages and `Debug` show
/// it. An error that repeating the call cannot fix is [permanent](cubbyhole_core::Error::permanent).
///
/// # Examples
///
/// ```
/// use cubbyhole_core::{Error, ExecutionContext, Result, async_trait};
/// use cubbyhole_layers::{KeyProvider, KeyRing, SecretKey, WrappedKey};
///
/// /// The client of a key management service. A key ring takes its place in this example.
/// #[derive(Debug)]
/// struct Service(KeyRing);
///
/// #[async_trait]
/// impl KeyProvider for Service {
///     async fn current_key_id(&self, ctx: &ExecutionContext) -> Result<String> {
///         self.0.current_key_id(ctx).await
///     }
///
///     async fn wrap(
///         &self,
///         ctx: &ExecutionContext,
///         data_key: &SecretKey,
///         associated: &[u8],
///     ) -> Result<WrappedKey> {
///         ctx.race(self.0.wrap(ctx, data_key, associated)).await?
///     }
///
///     async fn unwrap(
///         &self,
///         ctx: &ExecutionContext,
///         wrapped: &WrappedKey,
///         associated: &[u8],
///     ) -> Result<SecretKey> {
///         ctx.race(self.0.unwrap(ctx, wrapped, associated)).await?
///     }
/// }
/// ```
#[async_trait]
pub trait KeyProvider: fmt::Debug + Send + Sync + 'static {
    /// Returns the id of the key that [`wrap`](Self::wrap) uses: at most 255 bytes.
    ///
    /// # Errors
    /// Any error of the provider.
    async fn current_key_id(&self, ctx: &ExecutionContext) -> Result<String>;

    /// Encrypts a data key with the current key.
    ///
    /// `associated` is the encryption context: [`unwrap`](Self::unwrap) must fail with any other. It is
    /// not secret. It has at most 1,100 bytes.
    ///
    /// # Errors
    /// Any error of the provider.
    async fn wrap(
        &self,
        ctx: &ExecutionContext,
        data_key: &SecretKey,
        associated: &[u8],
    ) -> Result<WrappedKey>;

    /// Decrypts a data key with the key that its [`key_id`](WrappedKey::key_id) names.
    ///
    /// # Errors
    /// - `Corrupt`: the wrapped key is damaged, or was wrapped with other `associated` data.
    /// - `Unavailable`, permanent: the provider does not have the key with this id.
    /// - Any error of the provider.
    async fn unwrap(
        &self,
        ctx: &ExecutionContext,
        wrapped: &WrappedKey,
        associated: &[u8],
    ) -> Result<SecretKey>;
}

/// A data key that a [`KeyProvider`] encrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The id of the provider's key that encrypted it: at most 255 bytes.
    pub key_id: String,
    /// The encrypted data key: at most 65,535 bytes.
    pub bytes: Bytes,
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrappedKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}
