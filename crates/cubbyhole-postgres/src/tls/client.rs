//! Loads the private key of the client certificate.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cubbyhole_core::{Error, Result};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use crate::conninfo::ClientFiles;

/// The file of the private key. A certificate in use requires one.
pub(super) fn key_file(files: &ClientFiles) -> Result<&Path> {
    files.key.as_deref().ok_or_else(|| {
        Error::invalid_argument(format!(
            "the client certificate {} has no private key: name its file with `sslkey`",
            files.certificate.display()
        ))
    })
}

/// Reads a private key in PKCS#8, PKCS#1 or SEC1. Rejects a file that other users can read.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let file = path.display();
    let unreadable = |error: std::io::Error| {
        Error::invalid_argument(format!("cannot read the private key {file} (`sslkey`)"))
            .with_source(error)
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        let message = format!("the private key {file} (`sslkey`) is not a regular file");
        return Err(Error::invalid_argument(message));
    }
    // As in libpq, the group may read a key that root owns.
    let (forbidden, allowed) = if metadata.uid() == 0 { (0o037, "0640") } else { (0o077, "0600") };
    if metadata.mode() & forbidden != 0 {
        return Err(Error::invalid_argument(format!(
            "the private key {file} (`sslkey`) is accessible to others; run `chmod {allowed} {file}`"
        )));
    }
    let text = fs::read(path).map_err(unreadable)?;
    let is_encrypted = [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| text.windows(mark.len()).any(|window| window == *mark));
    if is_encrypted {
        return Err(Error::unsupported(format!(
            "the private key {file} (`sslkey`) is encrypted, which is not supported; decrypt it with \
             `openssl pkey -in {file} -out NEW`"
        )));
    }
    // Drop the parser's error: it may quote the file.
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        Error::invalid_argument(format!(
            "the file {file} (`sslkey`) contains no PEM private key (PKCS#8, PKCS#1 or SEC1)"
        ))
    })
}
