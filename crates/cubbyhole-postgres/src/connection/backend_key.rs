//! The process id that the server announced for a connection.
//!
//! The driver keeps it for requests to cancel and does not expose it. So a request is written to a
//! stream in memory and read there; nothing goes over the network.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::CancelToken;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// The request to cancel in place of a version of the protocol.
const CANCEL_CODE: [u8; 4] = 80_877_102_u32.to_be_bytes();

pub(super) async fn announced_backend(cancel: &CancelToken) -> Option<i32> {
    let mut written = Vec::new();
    cancel.cancel_query_raw(Memory { written: &mut written }, Unencrypted).await.ok()?;
    let at = written.windows(4).position(|window| window == CANCEL_CODE)? + 4;
    Some(i32::from_be_bytes(written.get(at..at + 4)?.try_into().ok()?))
}

/// Keeps all written bytes. A request for encryption is accepted, without effect.
struct Memory<'a> {
    written: &'a mut Vec<u8>,
}

impl AsyncRead for Memory<'_> {
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

impl AsyncWrite for Memory<'_> {
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

impl TlsStream for Memory<'_> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

struct Unencrypted;

impl<'a> TlsConnect<Memory<'a>> for Unencrypted {
    type Stream = Memory<'a>;
    type Error = io::Error;
    type Future = Ready<io::Result<Memory<'a>>>;

    fn connect(self, stream: Memory<'a>) -> Self::Future {
        ready(Ok(stream))
    }
}
