//! The address of a server: name resolution, sockets and TLS.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use cubbyhole_core::{Error, Result};
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::either::Either;

use crate::conninfo::{Host, HostAddress, SocketOptions};
use crate::error;

/// One address of a host.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) address: Address,
    /// The name that the server's certificate is checked against.
    pub(super) host: String,
    pub(super) options: SocketOptions,
}

#[derive(Debug, Clone)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

pub(super) type Socket = Either<TcpStream, UnixStream>;

/// Resolves the addresses of a host.
pub(super) async fn resolve(host: &Host, options: &SocketOptions) -> Result<Vec<Target>> {
    let port = host.port;
    let target =
        |host: &str, address| Target { address, host: host.to_owned(), options: options.clone() };
    let (name, address) = match &host.address {
        HostAddress::Tcp { name, address } => (name, address),
        HostAddress::Unix(folder) => {
            let path = folder.join(format!(".s.PGSQL.{port}"));
            return Ok(vec![target("localhost", Address::Unix(path))]);
        }
    };
    let tcp = |address| target(name, Address::Tcp(address));
    if let Some(address) = address {
        return Ok(vec![tcp(SocketAddr::new(*address, port))]);
    }
    let found = tokio::net::lookup_host((name.as_str(), port)).await;
    let found: io::Result<Vec<Target>> = found.map(|found| found.map(tcp).collect());
    found
        .and_then(|found| match found.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            false => Ok(found),
        })
        .map_err(|error| error::from_connect_io(error, &format!("{name}:{port}")))
}

impl Target {
    /// The address for messages.
    pub(super) fn display(&self) -> String {
        match &self.address {
            Address::Tcp(address) => format!("{}:{}", self.host, address.port()),
            Address::Unix(path) => path.display().to_string(),
        }
    }

    pub(super) async fn open(&self) -> io::Result<Socket> {
        Ok(match &self.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                set_options(&self.options, &stream)?;
                Either::Left(stream)
            }
            Address::Unix(path) => Either::Right(UnixStream::connect(path).await?),
        })
    }

    /// The TLS handshake for this host.
    pub(super) fn tls(
        &self,
        tls: &MakeRustlsConnect,
    ) -> Result<<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect> {
        MakeTlsConnect::<Socket>::make_tls_connect(&mut tls.clone(), &self.host)
            .map_err(|error| Error::internal("cannot set up TLS").with_source(error))
    }
}

fn set_options(options: &SocketOptions, stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if let Some(keepalive) = &options.keepalive {
        socket.set_tcp_keepalive(keepalive)?;
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    Ok(())
}
