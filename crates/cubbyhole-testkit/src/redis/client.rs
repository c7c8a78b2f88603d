//! A client that sends commands to a server. `redis-cli` would start a process for each command, which
//! takes most of the time in which a cluster forms, and it hangs with a paused server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a reply may take. A paused server sends none.
const LIMIT: Duration = Duration::from_secs(5);

/// A connection to a server on 127.0.0.1.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
}

/// A reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Nil,
    Text(Vec<u8>),
    /// Occurs only within an array, as in the reply to a transaction.
    Error(String),
    Array(Vec<Reply>),
}

impl Client {
    pub(super) fn connect(port: u16) -> Result<Self, String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, LIMIT).and_then(|stream| {
            stream.set_read_timeout(Some(LIMIT))?;
            stream.set_write_timeout(Some(LIMIT))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        let stream = stream.map_err(|error| format!("Redis at {address}: {error}"))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command and returns the reply. An error of the server is an error here.
    pub(super) fn call<T: AsRef<[u8]>>(&mut self, command: &[T]) -> Result<Reply, String> {
        let mut request = format!("*{}\r\n", command.len()).into_bytes();
        for argument in command {
            let argument = argument.as_ref();
            request.extend(format!("${}\r\n", argument.len()).bytes());
            request.extend(argument);
            request.extend(b"\r\n");
        }
        let sent = self.stream.get_mut().write_all(&request);
        sent.map_err(|error| format!("Redis accepts no command: {error}"))?;
        match read(&mut self.stream)? {
            Reply::Error(error) => Err(error),
            reply => Ok(reply),
        }
    }
}

fn read(stream: &mut impl BufRead) -> Result<Reply, String> {
    let explain = |error: std::io::Error| format!("Redis does not reply: {error}");
    let mut line = String::new();
    stream.read_line(&mut line).map_err(explain)?;
    let line = line.strip_suffix("\r\n").ok_or("Redis closed the connection")?;
    let kind = line.chars().next().unwrap_or_default();
    let rest = line.get(1..).unwrap_or_default();
    let unknown = || format!("Redis sent the unknown reply `{line}`");
    let count = || rest.parse::<i64>().map_err(|_| unknown());
    match kind {
        '+' | ':' => Ok(Reply::Text(rest.into())),
        '-' => Ok(Reply::Error(rest.to_owned())),
        '$' | '*' if count()? < 0 => Ok(Reply::Nil),
        '$' => {
            let mut text = Vec::new();
            let length = count()?.unsigned_abs() + 2;
            let read = stream.take(length).read_to_end(&mut text).map_err(explain)?;
            text.truncate(read.saturating_sub(2));
            if u64::try_from(read) != Ok(length) {
                return Err("Redis closed the connection within a reply".to_owned());
            }
            Ok(Reply::Text(text))
        }
        '*' => (0..count()?).map(|_| read(stream)).collect::<Result<_, _>>().map(Reply::Array),
        _ => Err(unknown()),
    }
}

impl Reply {
    /// Formats the reply as `redis-cli --raw` does, without the last newline.
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Nil => String::new(),
            Self::Text(text) => String::from_utf8_lossy(&text).into_owned(),
            Self::Error(error) => error,
            Self::Array(replies) => {
                replies.into_iter().map(Self::into_text).collect::<Vec<_>>().join("\n")
            }
        }
    }

    /// Returns the elements of a list of texts.
    pub(super) fn into_texts(self) -> Vec<Vec<u8>> {
        match self {
            Self::Array(replies) => replies.into_iter().flat_map(Self::into_texts).collect(),
            Self::Text(text) => vec![text],
            Self::Nil | Self::Error(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_parsed_and_formatted() {
        let cases = [
            ("+OK\r\n", "OK"),
            (":-7\r\n", "-7"),
            ("$-1\r\n", ""),
            ("*-1\r\n", ""),
            ("$0\r\n\r\n", ""),
            ("$4\r\na\r\nb\r\n", "a\r\nb"),
            ("*3\r\n:1\r\n*2\r\n$1\r\na\r\n-ERR b\r\n+c\r\n", "1\na\nERR b\nc"),
        ];
        for (bytes, text) in cases {
            let mut bytes = bytes.as_bytes();
            assert_eq!(read(&mut bytes).unwrap().into_text(), text);
            assert!(bytes.is_empty());
        }
        for broken in ["", "+OK", "$4\r\na\r\n", "?\r\n", "$x\r\n", "*2\r\n+a\r\n"] {
            assert!(read(&mut broken.as_bytes()).is_err(), "{broken:?}");
        }
        let list = read(&mut "*2\r\n$2\r\na\0\r\n$1\r\nb\r\n".as_bytes()).unwrap();
        assert_eq!(list.into_texts(), [b"a\0".to_vec(), b"b".to_vec()]);
    }
}
