//! [`Codec`]: encoding and decoding of values.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result, json_check};

/// Encodes and decodes values of type `V`. `decode` must return a value equal to the one that `encode`
/// accepted.
///
/// ```
/// use cubbyhole::{Bytes, Codec, Error, Result};
///
/// /// Stores text as UTF-8.
/// #[derive(Debug, Clone, Copy, Default)]
/// struct TextCodec;
///
/// impl Codec<String> for TextCodec {
///     fn encode(&self, value: &String) -> Result<Bytes> {
///         Ok(Bytes::copy_from_slice(value.as_bytes()))
///     }
///
///     fn decode(&self, bytes: &Bytes) -> Result<String> {
///         String::from_utf8(bytes.to_vec())
///             .map_err(|error| Error::codec("the value is not UTF-8").with_source(error.utf8_error()))
///     }
/// }
/// ```
pub trait Codec<V>: Send + Sync + 'static {
    /// Encodes a value.
    ///
    /// # Errors
    /// `Codec` for a value that `decode` could not restore.
    fn encode(&self, value: &V) -> Result<Bytes>;

    /// Decodes a value.
    ///
    /// # Errors
    /// `Codec` for bytes that do not encode a `V`. The message contains no part of the bytes.
    fn decode(&self, bytes: &Bytes) -> Result<V>;
}

/// JSON, the default codec.
///
/// Floats round-trip exactly. `encode` refuses values that JSON cannot represent: NaN, infinities,
/// `Some` of a value that serialises to null, and nesting deeper than 127 levels, the limit of the
/// parser. It cannot detect a `Serialize` implementation that does not match its `Deserialize`.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonCodec;

impl<V: Serialize + DeserializeOwned> Codec<V> for JsonCodec {
    fn encode(&self, value: &V) -> Result<Bytes> {
        json_check::check(value)?;
        // This error of serde_json contains the position and the type, never a value.
        serde_json::to_vec(value)
            .map(Bytes::from)
            .map_err(|error| Error::codec("the value cannot be written as JSON").with_source(error))
    }

    fn decode(&self, bytes: &Bytes) -> Result<V> {
        // The error of serde_json would quote the value, so only its position is kept.
        serde_json::from_slice(bytes).map_err(|error| {
            Error::codec(format!(
                "the stored value is not JSON of the type asked for: {:?} error at line {} column {}",
                error.classify(),
                error.line(),
                error.column()
            ))
        })
    }
}

/// Stores bytes unchanged.
#[derive(Debug, Clone, Copy, Default)]
pub struct BytesCodec;

impl Codec<Bytes> for BytesCodec {
    fn encode(&self, value: &Bytes) -> Result<Bytes> {
        Ok(value.clone())
    }

    fn decode(&self, bytes: &Bytes) -> Result<Bytes> {
        Ok(bytes.clone())
    }
}
