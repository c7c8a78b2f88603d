//! The stored form of a value, and its encryption.
//!
//! An envelope is: magic (4 bytes), format, algorithm, data key id (8), nonce (24), ciphertext, tag (16).
//! The associated data are the bytes before the nonce, the namespace, NUL and the key. No namespace
//! contains NUL, so two entries never have the same associated data.

use cubbyhole_core::{Bytes, Error, ExecutionContext, Namespace, Result};

use super::Plaintext;
use super::cipher::{Cipher, NONCE_BYTES, TAG_BYTES};
use super::data_keys::{DataKey, DataKeys, TenantKeys};
use super::record::{DATA_KEY_ID_BYTES, DataKeyId};
use crate::transform::Transform;

/// `0xC8` is never followed by an ASCII letter in UTF-8, so no text begins so.
const MAGIC: [u8; 4] = *b"\xC8cbe";
const FORMAT: u8 = 1;
const XCHACHA20_POLY1305: u8 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 2 + DATA_KEY_ID_BYTES;
/// The number of bytes by which an envelope is longer than its value.
pub(super) const OVERHEAD: usize = HEADER_BYTES + NONCE_BYTES + TAG_BYTES;

/// Encrypts and decrypts values with the data keys of their tenants.
#[derive(Debug, Clone)]
pub(super) struct Sealer {
    pub(super) keys: DataKeys,
    pub(super) plaintext: Plaintext,
}

/// A stored value.
enum Stored<'v> {
    Plain,
    Sealed { id: DataKeyId, header: &'v [u8], sealed: &'v [u8] },
}

impl Sealer {
    /// Encrypts with the current key of `keys`.
    pub(super) async fn seal_with(
        &self,
        ctx: &ExecutionContext,
        keys: &TenantKeys,
        ns: &Namespace,
        key: &str,
        value: &[u8],
    ) -> Result<Bytes> {
        let tenant = tenant_of(ns);
        let current = keys.current(tenant)?;
        let cipher = self.keys.cipher(ctx, tenant, current).await?;
        seal(cipher, current.id, ns, key, value)
    }

    /// Returns whether a stored value is encrypted with the current key of `keys`.
    pub(super) fn is_current(keys: &TenantKeys, ns: &Namespace, stored: &[u8]) -> Result<bool> {
        let current = keys.current(tenant_of(ns))?;
        Ok(matches!(parse(stored), Ok(Stored::Sealed { id, .. }) if id == current.id))
    }

    async fn open_plain(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        value: Bytes,
    ) -> Result<Bytes> {
        let tenant = tenant_of(ns);
        if let Some(keys) = self.keys.get(ctx, tenant).await? {
            // A value of a shredded tenant is not returned, even if it was never encrypted.
            keys.keys(tenant)?;
        }
        match self.plaintext {
            Plaintext::Accept => Ok(value),
            Plaintext::Refuse => Err(Error::corrupt(
                "the value is not encrypted; to migrate plain values, accept them and run a \
                 reencryption",
            )),
        }
    }

    /// Calls `open` with the key that `id` names. Reads the record again if the key is not cached.
    async fn open_sealed(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        id: DataKeyId,
        open: impl Fn(&Cipher) -> Option<Vec<u8>> + Send + Sync,
    ) -> Result<Bytes> {
        let tenant = tenant_of(ns);
        let mut keys = self.keys.get(ctx, tenant).await?;
        if let Some(cached) = &keys
            && find(cached.keys(tenant)?, id).is_none()
        {
            keys = self.keys.read(ctx, tenant).await?;
        }
        let known = match &keys {
            Some(keys) => keys.keys(tenant)?,
            None => &[],
        };
        let Some(key) = find(known, id) else {
            return Err(Error::corrupt(format!(
                "the value is encrypted with data key {id}, which the key store does not have: the \
                 value is damaged, or this is another key store"
            )));
        };
        let cipher = self.keys.cipher(ctx, tenant, key).await?;
        open(cipher).map(Bytes::from).ok_or_else(|| {
            Error::corrupt("the encrypted value is damaged, or belongs to another entry")
        })
    }
}

impl Transform for Sealer {
    const OVERHEAD: usize = OVERHEAD;

    async fn seal(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        value: Bytes,
    ) -> Result<Bytes> {
        let keys = self.keys.get_or_create(ctx, tenant_of(ns)).await?;
        self.seal_with(ctx, &keys, ns, key, &value).await
    }

    async fn open(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        key: &str,
        stored: Bytes,
    ) -> Result<Bytes> {
        match parse(&stored)? {
            Stored::Plain => self.open_plain(ctx, ns, stored).await,
            Stored::Sealed { id, header, sealed } => {
                let open = |cipher: &Cipher| cipher.open(&associated(header, ns, key), sealed);
                self.open_sealed(ctx, ns, id, open).await
            }
        }
    }
}

fn find(keys: &[DataKey], id: DataKeyId) -> Option<&DataKey> {
    keys.iter().find(|key| key.id == id)
}

fn parse(stored: &[u8]) -> Result<Stored<'_>> {
    let Some(rest) = stored.strip_prefix(&MAGIC) else { return Ok(Stored::Plain) };
    let damaged = || Error::corrupt("the encrypted value is damaged: it is too short");
    let (&[format, algorithm], rest) = rest.split_first_chunk().ok_or_else(damaged)?;
    if (format, algorithm) != (FORMAT, XCHACHA20_POLY1305) {
        return Err(Error::corrupt(format!(
            "the value is encrypted in format {format} with algorithm {algorithm}, which a newer \
             version wrote; upgrade this program"
        )));
    }
    let (id, sealed) = rest.split_first_chunk().ok_or_else(damaged)?;
    Ok(Stored::Sealed { id: DataKeyId(*id), header: &stored[..HEADER_BYTES], sealed })
}

fn seal(cipher: &Cipher, id: DataKeyId, ns: &Namespace, key: &str, value: &[u8]) -> Result<Bytes> {
    let mut out = Vec::with_capacity(OVERHEAD + value.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[FORMAT, XCHACHA20_POLY1305]);
    out.extend_from_slice(&id.0);
    let associated = associated(&out, ns, key);
    cipher.seal(&associated, value, &mut out)?;
    Ok(out.into())
}

fn associated(header: &[u8], ns: &Namespace, key: &str) -> Vec<u8> {
    [header, ns.as_str().as_bytes(), b"\0", key.as_bytes()].concat()
}

/// Returns the tenant of a namespace as it is written there: the text before the first `:` that no `\`
/// escapes. `Namespace::tenant` would allocate.
pub(super) fn tenant_of(ns: &Namespace) -> &str {
    let text = ns.as_str();
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b':' => return &text[..at],
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_of_a_namespace_is_its_rendered_tenant() {
        for (tenant, rendered) in [("acme", "acme"), ("a:b\\", "a\\:b\\\\"), ("é", "é")] {
            for segments in [vec![], vec![""], vec!["chat", "x:y"]] {
                let ns = Namespace::from_parts(tenant, segments).unwrap();
                assert_eq!(tenant_of(&ns), rendered);
                assert_eq!(tenant_of(&ns), ns.tenant().as_rendered());
            }
        }
    }
}
