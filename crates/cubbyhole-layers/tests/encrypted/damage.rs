//! Damaged, moved and plain values.

use std::sync::Arc;

use cubbyhole_core::{
    Bytes, EntryStore, ErrorKind, ExecutionContext, GetOptions, ManualClock, RecursiveScanOptions,
    Result, ScanOptions, Store, async_trait,
};
use cubbyhole_layers::{Encrypted, KeyProvider, KeyRing, Plaintext, SecretKey, WrappedKey};

use crate::common::{assert_says, ctx, get, layer, memory, ns, put};

#[tokio::test]
async fn every_flipped_bit_and_every_truncation_is_corrupt() {
    let clock = ManualClock::default();
    let (inner, ring) = (memory(&clock), KeyRing::generate().unwrap());
    let store = layer(&inner, &ring, &clock);
    put(&store, "acme:a", "k", "value").await.unwrap();
    let stored = get(&inner, "acme:a", "k").await.unwrap().unwrap();
    assert_eq!(stored.len(), 54 + "value".len());
    assert!(std::str::from_utf8(&stored).is_err());

    for bit in 0..stored.len() * 8 {
        let mut flipped = stored.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        put(&inner, "acme:a", "k", flipped).await.unwrap();
        let error = get(&store, "acme:a", "k").await.unwrap_err();
        let text = match bit / 8 {
            0..4 => "not encrypted",
            4..6 => "newer version",
            _ => "",
        };
        assert_says(&error, ErrorKind::Corrupt, text);
    }
    for length in 0..stored.len() {
        put(&inner, "acme:a", "k", stored.slice(..length)).await.unwrap();
        let error = get(&store, "acme:a", "k").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
    put(&inner, "acme:a", "k", stored).await.unwrap();
    assert_eq!(get(&store, "acme:a", "k").await.unwrap().unwrap(), "value");
}

/// The tenants' records are exchanged too: without the tenant in the associated data, the other
/// tenant's key would be unwrapped.
#[tokio::test]
async fn value_moved_to_another_entry_is_corrupt() {
    let clock = ManualClock::default();
    let (inner, ring) = (memory(&clock), KeyRing::generate().unwrap());
    let store = layer(&inner, &ring, &clock);
    put(&store, "acme:a", "k", "value").await.unwrap();
    put(&store, "other:a", "x", "other").await.unwrap();
    let stored = get(&inner, "acme:a", "k").await.unwrap().unwrap();

    let places =
        [("acme:a", "l"), ("acme:a", "K"), ("acme:b", "k"), ("acme", "k"), ("other:a", "k")];
    for (place, key) in places {
        put(&inner, place, key, stored.clone()).await.unwrap();
        let error = get(&store, place, key).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{place} {key}");
    }
    let record = get(&inner, "cubbyhole.keys", "acme").await.unwrap().unwrap();
    put(&inner, "cubbyhole.keys", "other", record).await.unwrap();
    let store = layer(&inner, &ring, &clock);
    let error = get(&store, "other:a", "k").await.unwrap_err();
    assert_says(&error, ErrorKind::Corrupt, "cannot unwrap a data key of tenant `other`");
}

/// Here the data key itself is the same for both tenants, so only the associated data differ.
#[tokio::test]
async fn every_flipped_bit_of_namespace_and_key_is_corrupt() {
    let clock = ManualClock::default();
    let (inner, ring) = (memory(&clock), KeyRing::generate().unwrap());
    let store = layer(&inner, &ring, &clock);
    put(&store, "acme:ab", "key", "value").await.unwrap();
    let stored = get(&inner, "acme:ab", "key").await.unwrap().unwrap();
    let flips = |text: &str, first: usize| -> Vec<String> {
        let bits = first * 8..text.len() * 8;
        let flip = |bit: usize| {
            let mut bytes = text.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            String::from_utf8(bytes).ok()
        };
        bits.filter_map(flip).filter(|text| !text.contains('\0')).collect()
    };
    let namespaces = flips("acme:ab", 5).into_iter().map(|place| (place, "key".to_owned()));
    let keys = flips("key", 0).into_iter().map(|key| ("acme:ab".to_owned(), key));
    let mut tried = 0;
    for (place, key) in namespaces.chain(keys) {
        if cubbyhole_core::Namespace::parse(&place).is_err() {
            continue;
        }
        put(&inner, &place, &key, stored.clone()).await.unwrap();
        let error = get(&store, &place, &key).await.unwrap_err();
        assert_says(&error, ErrorKind::Corrupt, "belongs to another entry");
        tried += 1;
    }
    assert!(tried >= 30, "{tried}");
}

#[tokio::test]
async fn damaged_entry_is_one_error_among_many() {
    let clock = ManualClock::default();
    let (inner, ring) = (memory(&clock), KeyRing::generate().unwrap());
    let store = layer(&inner, &ring, &clock);
    for key in ["a", "b", "c"] {
        put(&store, "acme", key, key).await.unwrap();
    }
    put(&inner, "acme", "b", "plain").await.unwrap();
    let expect = |at: usize, kind: Option<ErrorKind>| {
        assert_eq!(kind, (at == 1).then_some(ErrorKind::Corrupt), "{at}");
    };

    let many = store.get_many(&ctx(), &ns("acme"), &["a", "b", "c"], GetOptions::new()).await;
    for (at, entry) in many.unwrap().into_iter().enumerate() {
        expect(at, entry.err().map(|error| error.kind()));
    }
    let page = store.scan(&ctx(), &ns("acme"), ScanOptions::new()).await.unwrap();
    for (at, item) in page.items.into_iter().enumerate() {
        expect(at, item.value.unwrap().err().map(|error| error.kind()));
    }
    let options = RecursiveScanOptions::new();
    let page = store.scan_recursive(&ctx(), &ns("acme").into(), options).await.unwrap();
    for (at, (_, item)) in page.items.into_iter().enumerate() {
        expect(at, item.value.unwrap().err().map(|error| error.kind()));
    }
    let error = store.take(&ctx(), &ns("acme"), "b").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(get(&inner, "acme", "b").await.unwrap().is_some(), "take removed an unreadable value");
    assert_eq!(store.list(&ctx(), &ns("acme"), None).await.unwrap(), ["a", "b", "c"]);
}

#[tokio::test]
async fn plain_values_are_refused_or_accepted() {
    let clock = ManualClock::default();
    let (inner, ring) = (memory(&clock), KeyRing::generate().unwrap());
    for value in ["", "{}", "\u{fffd}cbe"] {
        put(&inner, "acme", "k", value).await.unwrap();
        let refusing = layer(&inner, &ring, &clock);
        let error = get(&refusing, "acme", "k").await.unwrap_err();
        assert_says(&error, ErrorKind::Corrupt, "not encrypted");
        let accepting = layer(&inner, &ring, &clock).with_plaintext(Plaintext::Accept);
        assert_eq!(get(&accepting, "acme", "k").await.unwrap().unwrap(), Bytes::from(value));
    }
}

/// Wraps nothing, and ignores the associated data.
#[derive(Debug)]
struct Careless;

#[async_trait]
impl KeyProvider for Careless {
    async fn current_key_id(&self, _: &ExecutionContext) -> Result<String> {
        Ok("careless".to_owned())
    }

    async fn wrap(&self, _: &ExecutionContext, key: &SecretKey, _: &[u8]) -> Result<WrappedKey> {
        let bytes = Bytes::copy_from_slice(key.expose());
        Ok(WrappedKey { key_id: "careless".to_owned(), bytes })
    }

    async fn unwrap(&self, _: &ExecutionContext, key: &WrappedKey, _: &[u8]) -> Result<SecretKey> {
        SecretKey::from_slice(&key.bytes)
    }
}

/// Both tenants have the same data key, so only the associated data of the value differ.
#[tokio::test]
async fn value_moved_to_a_tenant_with_the_same_data_key_is_corrupt() {
    let inner = memory(&ManualClock::default());
    let store = Encrypted::new(inner.clone(), Arc::new(Careless));
    put(&store, "acme:a", "k", "value").await.unwrap();
    for (from, to) in [(("cubbyhole.keys", "acme"), "other"), (("acme:a", "k"), "k")] {
        let place = if to == "other" { "cubbyhole.keys" } else { "other:a" };
        let stored = get(&inner, from.0, from.1).await.unwrap().unwrap();
        put(&inner, place, to, stored).await.unwrap();
    }
    let error = get(&store, "other:a", "k").await.unwrap_err();
    assert_says(&error, ErrorKind::Corrupt, "belongs to another entry");
    assert_eq!(get(&store, "acme:a", "k").await.unwrap().unwrap(), "value");
}
