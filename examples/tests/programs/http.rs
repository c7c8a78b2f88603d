//! As much of an HTTP client as the tests need: a request a connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::support::Outcome;

/// Longer than anything may take: a service that does not answer fails the test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A request that was sent, and its answer that is still to come.
pub(crate) struct Sent(TcpStream);

pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

/// Sends a request; `headers` are lines of a header each.
pub(crate) fn send(
    address: SocketAddr,
    request: &str,
    headers: &[&str],
    body: &str,
) -> Outcome<Sent> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = format!("{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for header in headers {
        text += &format!("{header}\r\n");
    }
    if !body.is_empty() {
        text += &format!("content-length: {}\r\n", body.len());
    }
    stream.write_all(format!("{text}\r\n{body}").as_bytes())?;
    Ok(Sent(stream))
}

impl Sent {
    pub(crate) fn answer(mut self) -> Outcome<Answer> {
        let mut text = String::new();
        self.0.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("{text:?}"))?;
        let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
        Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Outcome<Value> {
        serde_json::from_str(&self.body).map_err(|error| format!("{:?}: {error}", self.body).into())
    }

    pub(crate) fn etag(&self) -> Outcome<String> {
        let mut lines = self.head.lines();
        let tag = lines.find_map(|line| line.strip_prefix("etag: "));
        Ok(tag.ok_or_else(|| format!("no ETag in {:?}", self.head))?.to_owned())
    }
}
