//! Turning values into bytes and back.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result, json_check};

/// Turns `V` into bytes and back. What `encode` accepts, `decode` must give back equal.
///
/// ```
/// use cubbyhole::{Bytes, Codec, Error, Result};
///
/// /// Text as it is.
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
    /// Turns a value into bytes.
    ///
    /// # Errors
    /// `Codec` for a value that `decode` could not give back equal.
    fn encode(&self, value: &V) -> Result<Bytes>;

    /// Turns bytes into a value.
    ///
    /// # Errors
    /// `Codec` for bytes that are not such a value. The message holds no part of them.
    fn decode(&self, bytes: &Bytes) -> Result<V>;
}

/// JSON, the default codec.
///
/// Floats come back to the last bit. What JSON cannot keep is refused by `encode`: NaN and the
/// infinities anywhere, `Some` of something that serialises to null, nesting deeper than the
/// reader's limit of 127. A `Serialize` that does not mirror its `Deserialize` is the user's.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonCodec;

impl<V: Serialize + DeserializeOwned> Codec<V> for JsonCodec {
    fn encode(&self, value: &V) -> Result<Bytes> {
        json_check::check(value)?;
        // serde_json names the place and the type here, and never a value.
        serde_json::to_vec(value)
            .map(Bytes::from)
            .map_err(|error| Error::codec("the value cannot be written as JSON").with_source(error))
    }

    fn decode(&self, bytes: &Bytes) -> Result<V> {
        // The source of this error would quote the value, so only its place is kept.
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

/// Bytes as they are.
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
