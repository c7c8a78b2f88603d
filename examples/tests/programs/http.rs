//! A minimal HTTP client: one request per connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::support::TestResult;

/// The time limit of each step. A service that does not respond fails the test.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// A sent request whose response has not been read.
pub(crate) struct PendingRequest(TcpStream);

pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

/// Sends a request. Each item of `headers` is one header line.
pub(crate) fn send(
    address: SocketAddr,
    request: &str,
    headers: &[&str],
    body: &str,
) -> TestResult<PendingRequest> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut text = format!("{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for header in headers {
        text += &format!("{header}\r\n");
    }
    if !body.is_empty() {
        text += &format!("content-length: {}\r\n", body.len());
    }
    stream.write_all(format!("{text}\r\n{body}").as_bytes())?;
    Ok(PendingRequest(stream))
}

impl PendingRequest {
    pub(crate) fn response(mut self) -> TestResult<Response> {
        let mut text = String::new();
        self.0.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("{text:?}"))?;
        let status = head.split(' ').nth(1).ok_or("no status line")?.parse()?;
        Ok(Response { status, head: head.to_owned(), body: body.to_owned() })
    }
}

impl Response {
    pub(crate) fn json(&self) -> TestResult<Value> {
        serde_json::from_str(&self.body).map_err(|error| format!("{:?}: {error}", self.body).into())
    }

    pub(crate) fn etag(&self) -> TestResult<String> {
        let mut lines = self.head.lines();
        let tag = lines.find_map(|line| line.strip_prefix("etag: "));
        Ok(tag.ok_or_else(|| format!("no ETag in {:?}", self.head))?.to_owned())
    }
}
