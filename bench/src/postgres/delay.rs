//! A network that is far away: a proxy that passes everything on a while later.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;

/// The port of a proxy before the server at `port`, which takes `one_way` longer in each
/// direction. It lives as long as the process.
///
/// It has threads, and not tasks: the timers of tokio round up to whole milliseconds, so that two
/// would be nearly three.
pub fn before(port: u16, one_way: Duration) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let own_port = listener.local_addr()?.port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A client that the server refuses sees its connection close.
            drop(connect(client, port, one_way));
        }
    });
    Ok(own_port)
}

fn connect(client: TcpStream, port: u16, one_way: Duration) -> Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    pass(client.try_clone()?, server.try_clone()?, one_way);
    pass(server, client, one_way);
    Ok(())
}

/// Each piece leaves that much after it came; none waits for the one before it.
fn pass(mut from: TcpStream, mut to: TcpStream, one_way: Duration) {
    let (queue, pieces) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if queue.send((Instant::now() + one_way, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, piece) in pieces {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                return;
            }
        }
        // The peer has gone already where this fails.
        drop(to.shutdown(Shutdown::Write));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_are_delayed_and_pieces_do_not_wait_for_each_other() {
        const PIECES: usize = 100;
        let one_way = Duration::from_millis(20);
        let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = before(echo.local_addr().unwrap().port(), one_way).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = echo.accept().unwrap();
            let mut answers = stream.try_clone().unwrap();
            std::io::copy(&mut stream, &mut answers)
        });
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let start = Instant::now();
        for _ in 0..PIECES {
            client.write_all(b"x").unwrap();
        }
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), PIECES);
        let took = start.elapsed();
        assert!(took >= 2 * one_way && took < one_way * PIECES as u32, "{took:?}");
    }
}
