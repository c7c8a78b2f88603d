//! XChaCha20-Poly1305 and random bytes.

use chacha20poly1305::aead::{AeadInOut, inout::InOutBuf};
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use cubbyhole_core::{Error, Result};

use super::SecretKey;

pub(super) const NONCE_BYTES: usize = 24;
pub(super) const TAG_BYTES: usize = 16;

/// XChaCha20-Poly1305 with one key. Overwrites the key when it is dropped.
#[derive(Clone)]
pub(super) struct Cipher(XChaCha20Poly1305);

impl Cipher {
    pub(super) fn new(key: &SecretKey) -> Self {
        Self(XChaCha20Poly1305::new(key.expose().into()))
    }

    /// Appends a random nonce, the ciphertext and the tag to `out`.
    pub(super) fn seal(&self, associated: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let nonce = random::<NONCE_BYTES>()?;
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(plain);
        let tag = self.encrypt(nonce, associated, &mut out[start..])?;
        out.extend_from_slice(&tag);
        Ok(())
    }

    /// Returns the plain text of a nonce, a ciphertext and a tag, or `None` if they or the associated
    /// data differ from those that were sealed.
    pub(super) fn open(&self, associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let (text, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        let mut plain = text.to_vec();
        let buffer = InOutBuf::from(plain.as_mut_slice());
        let (nonce, tag) = (XNonce::from(*nonce), Tag::from(*tag));
        self.0.decrypt_inout_detached(&nonce, associated, buffer, &tag).ok()?;
        Some(plain)
    }

    fn encrypt(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES]> {
        let sealed = self.0.encrypt_inout_detached(&XNonce::from(nonce), associated, text.into());
        // Only a text of more than 256 GiB fails.
        sealed.map(Into::into).map_err(|_| Error::internal("a value cannot be encrypted"))
    }
}

/// Returns random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    fill_random(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn fill_random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| {
        Error::unavailable("the operating system returned no random bytes").with_source(error)
    })
}

/// Returns bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
        let pairs = digits.chunks(2).map(|pair| pair.iter().collect::<String>());
        pairs.map(|pair| u8::from_str_radix(&pair, 16).unwrap()).collect()
    }

    /// Appendix A.3.1 of draft-irtf-cfrg-xchacha.
    #[test]
    fn cipher_matches_the_published_test_vector() {
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
                      for the future, sunscreen would be it.";
        let associated = bytes("50515253c0c1c2c3c4c5c6c7");
        let key = SecretKey::from_slice(&(0x80..=0x9f).collect::<Vec<u8>>()).unwrap();
        let nonce: Vec<u8> = (0x40..=0x57).collect();
        let sealed = bytes(
            "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb
             731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452
             2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9
             21f9664c97637da9768812f615c68b13b52e",
        );
        let tag = bytes("c0875924c1c7987947deafd8780acf49");

        let cipher = Cipher::new(&key);
        let mut text = plain.to_vec();
        let made = cipher.encrypt(nonce.clone().try_into().unwrap(), &associated, &mut text);
        assert_eq!((text, made.unwrap().to_vec()), (sealed.clone(), tag.clone()));

        let whole = [nonce, sealed, tag].concat();
        assert_eq!(cipher.open(&associated, &whole).unwrap(), plain);
        assert_eq!(cipher.open(b"", &whole), None);
    }

    #[test]
    fn ten_thousand_seals_have_distinct_nonces() {
        let cipher = Cipher::new(&SecretKey::generate().unwrap());
        let mut nonces = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let mut sealed = Vec::new();
            cipher.seal(b"", b"the same value", &mut sealed).unwrap();
            assert!(nonces.insert(sealed[..NONCE_BYTES].to_vec()));
        }
    }

    #[test]
    fn text_shorter_than_nonce_and_tag_does_not_open() {
        let cipher = Cipher::new(&SecretKey::generate().unwrap());
        let mut sealed = Vec::new();
        cipher.seal(b"", b"", &mut sealed).unwrap();
        assert_eq!(cipher.open(b"", &sealed), Some(Vec::new()));
        for length in 0..sealed.len() {
            assert_eq!(cipher.open(b"", &sealed[..length]), None);
        }
    }
}
