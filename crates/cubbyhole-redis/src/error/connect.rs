//! Why a connection was not made, as an error of the contract.

use std::io;
use std::sync::Arc;

use cubbyhole_core::Error;
use redis::RedisError;

use super::known::{known_as, refused};
use crate::config::Address;

/// Why a server could not be connected to.
pub(crate) fn unreachable(address: &Address, error: io::Error, has_certificate: bool) -> Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        None => Error::unavailable(format!("the Redis server {address} cannot be reached")),
        Some(rustls::Error::InvalidCertificate(_)) => Error::unavailable(format!(
            "the certificate of the Redis server {address} is refused: name the host as it does, \
             and its authority with `tls_ca`"
        ))
        .permanent(),
        Some(rustls::Error::AlertReceived(_)) => client_refused(address, has_certificate),
        Some(_) => Error::unavailable(format!(
            "the Redis server {address} does not speak TLS: write `redis://`, or use its TLS port"
        ))
        .permanent(),
    }
    .with_source(error)
}

/// The server ended the handshake, which it does if it asks for a certificate of the client's.
fn client_refused(address: &Address, has_certificate: bool) -> Error {
    let message = if has_certificate {
        format!(
            "the Redis server {address} refuses the TLS connection: its authorities must have signed \
             the certificate of `tls_cert`, which must be in force"
        )
    } else {
        format!(
            "the Redis server {address} refuses the TLS connection: if it asks for a client \
             certificate (`tls-auth-clients`), name one with `tls_cert` and `tls_key`"
        )
    };
    Error::permission_denied(message).permanent()
}

/// Whether the server ended the TLS connection and said so.
fn is_alert(error: &RedisError) -> bool {
    // As the client shares it.
    type Shared = Arc<dyn std::error::Error + Send + Sync>;
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<Shared>());
    let io = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    let tls = io.and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::AlertReceived(_)))
}

/// Why a connection that stands cannot be used.
pub(crate) fn not_admitted(address: &Address, error: RedisError, has_certificate: bool) -> Error {
    // With TLS 1.3 a server judges the client after the client has judged the server.
    if is_alert(&error) {
        return client_refused(address, has_certificate).with_source(error);
    }
    if known_as(&error).is_some() {
        return refused(error);
    }
    // The client gives what `SELECT` was told in words of its own, without the code.
    if error.detail().is_some_and(|detail| detail.contains("no permissions to run")) {
        return Error::permission_denied(
            "the Redis user may not run a command that connecting needs (for a database after the \
             `/` of the URL it is `SELECT`); see its ACL",
        )
        .with_source(error)
        .permanent();
    }
    if error.kind() == redis::ErrorKind::AuthenticationFailed {
        return Error::permission_denied("Redis refuses the user or password")
            .with_source(error)
            .permanent();
    }
    let message = if error.is_connection_dropped() {
        format!(
            "the Redis server {address} ended the connection at once: it takes no more \
             (`maxclients`), expects TLS or another client certificate, or is no Redis"
        )
    } else {
        format!("the Redis server {address} does not answer as one")
    };
    Error::unavailable(message).with_source(error)
}
