//! `OpenOptions::open_encrypted`.
#![cfg(all(feature = "embedded", feature = "encryption"))]

use std::sync::Arc;
use std::time::Duration;

use cubbyhole::layers::{Encryption, KeyRing, Layers, Timeouts};
use cubbyhole::{ErrorKind, ExecutionContext, OpenOptions};

#[tokio::test]
async fn wrong_layer_is_refused_before_a_file_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let keys = Arc::new(KeyRing::generate().unwrap());
    let layers = Layers::new()
        .with_encryption(Encryption::new(keys))
        .with_timeouts(Timeouts::new().with_read(Duration::ZERO));
    let options = OpenOptions::new().with_layers(layers);
    let url = format!("redb:{}", path.display());
    let opened = options.open_encrypted(&ExecutionContext::new(), &url).await;
    let error = opened.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("layer `timeout`"), "{error}");
    assert!(!path.exists());
}
