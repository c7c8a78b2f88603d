//! Mapping of failures to connect to errors of the contract.

use std::io;
use std::sync::Arc;

use cubbyhole_core::Error;
use redis::RedisError;

use super::known::{known_as, refused};
use crate::config::Address;

/// Returns the error for a server that could not be reached.
pub(crate) fn unreachable(address: &Address, error: io::Error, has_certificate: bool) -> Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        None => Error::unavailable(format!("the Redis server {address} cannot be reached")),
        Some(rustls::Error::InvalidCertificate(_)) => Error::unavailable(format!(
            "the certificate of the Redis server {address} is not trusted: use the host name in \
             the certificate, and name its certificate authority with `tls_ca`"
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

/// Returns the error for a TLS alert of the server, which usually concerns the client certificate.
fn client_refused(address: &Address, has_certificate: bool) -> Error {
    let message = if has_certificate {
        format!(
            "the Redis server {address} rejects the TLS connection: `tls_cert` must be a valid \
             certificate, signed by an authority that the server trusts"
        )
    } else {
        format!(
            "the Redis server {address} rejects the TLS connection: if it requires a client \
             certificate (`tls-auth-clients`), name one with `tls_cert` and `tls_key`"
        )
    };
    Error::permission_denied(message).permanent()
}

/// Returns whether the server ended the TLS connection with an alert.
fn is_alert(error: &RedisError) -> bool {
    // The Redis client wraps the cause in an `Arc`.
    type Shared = Arc<dyn std::error::Error + Send + Sync>;
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<Shared>());
    let io = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    let tls = io.and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::AlertReceived(_)))
}

/// Returns the error for a connection that was established but cannot be used.
pub(crate) fn not_admitted(address: &Address, error: RedisError, has_certificate: bool) -> Error {
    // With TLS 1.3, the server rejects the client certificate only after the handshake.
    if is_alert(&error) {
        return client_refused(address, has_certificate).with_source(error);
    }
    if known_as(&error).is_some() {
        return refused(error);
    }
    // The Redis client rewords the error reply to `SELECT` and drops its code.
    if error.detail().is_some_and(|detail| detail.contains("no permissions to run")) {
        return Error::permission_denied(
            "the Redis user may not run a command that connecting needs (`SELECT`, if the URL has \
             a database after the `/`); see its ACL",
        )
        .with_source(error)
        .permanent();
    }
    if error.kind() == redis::ErrorKind::AuthenticationFailed {
        return Error::permission_denied("Redis rejects the user or the password")
            .with_source(error)
            .permanent();
    }
    let message = if error.is_connection_dropped() {
        format!(
            "the Redis server {address} closed the connection immediately: it accepts no more \
             connections (`maxclients`), expects TLS or another client certificate, or is not Redis"
        )
    } else {
        format!("the server {address} does not reply like a Redis server")
    };
    Error::unavailable(message).with_source(error)
}
