//! Layers: stores that wrap a store and add one property to it.

#[cfg(feature = "cache")]
mod cached;
#[cfg(feature = "compression")]
mod compressed;
#[cfg(feature = "encryption")]
mod encrypted;
mod layers;
#[cfg(feature = "limits")]
mod limited;
mod retry;
mod scoped;
mod timeout;
#[cfg(any(feature = "compression", feature = "encryption"))]
mod transform;
mod ttl_policy;

#[cfg(feature = "cache")]
pub use cached::{CacheOptions, Cached};
#[cfg(feature = "compression")]
pub use compressed::{Compressed, DEFAULT_COMPRESSION_LEVEL};
/// A layer that refuses writes. It needs nothing but the contract, so it is in `cubbyhole-core`.
pub use cubbyhole_core::ReadOnly;
#[cfg(feature = "encryption")]
pub use encrypted::{
    Encrypted, KeyFile, KeyProvider, KeyRing, KeyStore, Plaintext, ReencryptStep, Rekeyed,
    SecretKey, Shredded, UnreadableEntry, WrappedKey,
};
#[cfg(feature = "encryption")]
pub use layers::Encryption;
pub use layers::Layers;
#[cfg(feature = "limits")]
pub use limited::{Limited, Limits};
pub use retry::{Retry, RetryOptions};
pub use scoped::Scoped;
pub use timeout::{Timeout, Timeouts};
pub use ttl_policy::{TooLong, TtlPolicy, TtlRule};
