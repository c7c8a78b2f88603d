//! No message and no `Debug` output contains key material or a value.

use std::error::Error as _;
use std::sync::Arc;

use base64::Engine as _;
use cubbyhole_core::{Error, ManualClock};
use cubbyhole_layers::{Encrypted, KeyFile, KeyProvider as _, KeyRing, KeyStore, SecretKey};

use crate::common::{ctx, get, layer, memory, ns, put};

const KEY: [u8; 32] = *b"the secret bytes of a ring's key";

fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!("{cause} {cause:?}");
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn no_message_or_debug_output_contains_a_key() {
    let ring = KeyRing::new("ring", SecretKey::from_slice(&KEY).unwrap()).unwrap();
    let clock = ManualClock::default();
    let (inner, keys) = (memory(&clock), memory(&clock));
    let store = layer(&inner, &ring, &clock);
    put(&store, "acme", "k", "a private value").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let file = KeyFile::create(&path).unwrap();
    std::fs::write(&path, format!("{}{}", ring.to_text().as_str(), "nonsense")).unwrap();

    let secret = SecretKey::from_slice(&KEY).unwrap();
    let wrapped = ring.wrap(&ctx(), &secret, b"").await.unwrap();
    let apart = store.clone().with_key_store(KeyStore::apart(Arc::new(keys)));
    let mut texts = vec![
        format!(
            "{store:?} {store:#?} {apart:?} {ring:?} {ring:#?} {file:?} {secret:?} {wrapped:?}"
        ),
        shown(&file.reload().unwrap_err()),
        shown(&get(&apart, "acme", "k").await.unwrap_err()),
        shown(&KeyRing::parse(&ring.to_text()[4..]).unwrap_err()),
        shown(&ring.clone().with_key("ring", SecretKey::from_slice(&KEY).unwrap()).unwrap_err()),
        shown(&ring.clone().with_key("a b", SecretKey::from_slice(&KEY).unwrap()).unwrap_err()),
        shown(&SecretKey::from_slice(&KEY[1..]).unwrap_err()),
        shown(&ring.unwrap(&ctx(), &wrapped, b"other").await.unwrap_err()),
    ];
    let lost = Encrypted::new(inner.clone(), Arc::new(KeyRing::generate().unwrap()));
    texts.push(shown(&get(&lost, "acme", "k").await.unwrap_err()));
    put(&inner, "acme", "moved", get(&inner, "acme", "k").await.unwrap().unwrap()).await.unwrap();
    texts.push(shown(&get(&store, "acme", "moved").await.unwrap_err()));
    texts.push(format!("{:?}", store.shred(&ctx(), &ns("acme").tenant()).await.unwrap()));
    texts.push(shown(&get(&store, "acme", "k").await.unwrap_err()));
    texts.push(shown(&put(&store, "acme", "k", "a private value").await.unwrap_err()));

    let hex: String = KEY.iter().map(|byte| format!("{byte:02x}")).collect();
    let base64 = base64::engine::general_purpose::STANDARD.encode(KEY);
    let raw = String::from_utf8(KEY.to_vec()).unwrap();
    let list = format!("{KEY:?}");
    for text in texts {
        for secret in [&hex, &base64, &raw, &list, &hex.to_uppercase()] {
            // A part of a key is a leak too.
            for part in [&secret[..12], &secret[secret.len() - 14..secret.len() - 2]] {
                assert!(!text.contains(part), "{text}");
            }
        }
        assert!(!text.contains("a private value"), "{text}");
    }
}
