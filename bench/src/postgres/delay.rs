//! A network that is far away: a proxy that passes everything on a while later.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Result;

/// The port of a proxy before the server at `port`, which takes `one_way` longer in each
/// direction. It lives as long as the runtime.
pub async fn before(port: u16, one_way: Duration) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let own_port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(connect(client, port, one_way));
        }
    });
    Ok(own_port)
}

async fn connect(client: TcpStream, port: u16, one_way: Duration) -> Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(pass(from_client, to_server, one_way), pass(from_server, to_client, one_way));
    Ok(())
}

/// Each piece leaves that much after it came; none waits for the one before it.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, one_way: Duration) {
    let (queue, mut pieces) = mpsc::unbounded_channel();
    let read = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if queue.send((Instant::now() + one_way, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // The peer has gone already where this fails.
        drop(to.shutdown().await);
    };
    tokio::join!(read, write);
}
