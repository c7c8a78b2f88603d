//! Controls a connection while a call uses it: cancels its statement, retires it or closes it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use cubbyhole_core::Result;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;
use tokio_postgres::CancelToken;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::target::{Socket, Target};
use crate::error;

/// Cancels or closes a connection while a call owns it.
pub(crate) struct ConnectionControl {
    cancel: CancelToken,
    target: Target,
    tls: MakeRustlsConnect,
    driver: AbortHandle,
    is_retired: AtomicBool,
}

impl ConnectionControl {
    pub(super) fn new(
        cancel: CancelToken,
        target: Target,
        tls: MakeRustlsConnect,
        driver: AbortHandle,
    ) -> Self {
        Self { cancel, target, tls, driver, is_retired: AtomicBool::new(false) }
    }

    /// Asks the server to cancel the statement, and waits until the server has processed the
    /// request. After that the request cannot affect a later statement of the connection.
    pub(crate) async fn cancel(&self) -> Result<()> {
        let socket = self
            .target
            .open()
            .await
            .map_err(|error| error::from_connect_io(error, &self.target.display()))?;
        let tls = self.target.tls(&self.tls)?;
        self.cancel
            .cancel_query_raw(WaitForClose { inner: socket, is_shut_down: false }, tls)
            .await
            .map_err(|error| error::from_connect(&error))
    }

    /// Excludes the connection from further calls. The current call continues.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// Closes the connection immediately, even during a call.
    pub(crate) fn close(&self) {
        self.retire();
        self.driver.abort();
    }
}

/// A stream whose shutdown waits until the peer has closed its side. PostgreSQL closes the
/// connection after it has processed a cancel request, and `tokio-postgres` does not wait for that.
struct WaitForClose {
    inner: Socket,
    is_shut_down: bool,
}

impl AsyncRead for WaitForClose {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for WaitForClose {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut_down {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            self.is_shut_down = true;
        }
        loop {
            let mut space = [0_u8; 64];
            let mut buf = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                // A reset closes the connection too.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
