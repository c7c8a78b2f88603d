//! A TCP listener on 127.0.0.1 that runs a task for each connection.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// A listener on a free port. Dropping it ends the listener and the tasks of its connections.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    _accept: AbortOnDropHandle<()>,
}

impl Listener {
    /// Starts listening, and spawns the future that `serve` returns for each connection.
    pub async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let accept = async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(serve(client));
                while connections.try_join_next().is_some() {}
            }
        };
        Self { address, _accept: AbortOnDropHandle::new(tokio::spawn(accept)) }
    }

    /// Returns the address that clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the port of the [`address`](Self::address).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}
