//! Reads the process id that the server announced for a connection.
//!
//! The driver keeps the id for cancel requests and does not expose it. This module lets the driver
//! write a cancel request to an in-memory stream and parses it. Nothing is sent over the network.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::CancelToken;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// Identifies a cancel request. It takes the place of the protocol version.
const CANCEL_CODE: [u8; 4] = 80_877_102_u32.to_be_bytes();

pub(super) async fn announced_backend(cancel: &CancelToken) -> Option<i32> {
    let mut written = Vec::new();
    cancel.cancel_query_raw(CaptureStream { written: &mut written }, Unencrypted).await.ok()?;
    let at = written.windows(4).position(|window| window == CANCEL_CODE)? + 4;
    Some(i32::from_be_bytes(written.get(at..at + 4)?.try_into().ok()?))
}

/// Captures all written bytes. It accepts a request for encryption and does not encrypt.
struct CaptureStream<'a> {
    written: &'a mut Vec<u8>,
}

impl AsyncRead for CaptureStream<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() > 0 {
            buf.put_slice(b"S");
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CaptureStream<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl TlsStream for CaptureStream<'_> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

struct Unencrypted;

impl<'a> TlsConnect<CaptureStream<'a>> for Unencrypted {
    type Stream = CaptureStream<'a>;
    type Error = io::Error;
    type Future = Ready<io::Result<CaptureStream<'a>>>;

    fn connect(self, stream: CaptureStream<'a>) -> Self::Future {
        ready(Ok(stream))
    }
}
