//! A network that is far away: a proxy that passes everything on a while later.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

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
fn pass(from: TcpStream, to: TcpStream, one_way: Duration) {
    thread::spawn(move || {
        // One that is gone ends the connection for its peer too.
        drop(pass_until_closed(&from, &to, one_way));
        drop(to.shutdown(Shutdown::Write));
    });
}

/// One thread, which looks for the next piece until the first of those under way is due: a second
/// one to be woken would cost what is measured a core.
fn pass_until_closed(
    mut from: &TcpStream,
    mut to: &TcpStream,
    one_way: Duration,
) -> std::io::Result<()> {
    let mut under_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut is_open = true;
    while is_open || !under_way.is_empty() {
        let first = under_way.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
        let timeout = first.map(Timespec::try_from).transpose().map_err(std::io::Error::other)?;
        let mut sources = [PollFd::new(from, PollFlags::IN)];
        let watched = if is_open { &mut sources[..] } else { &mut [] };
        if poll(watched, timeout.as_ref())? > 0 {
            let length = from.read(&mut buffer)?;
            is_open = length > 0;
            if is_open {
                under_way.push_back((Instant::now() + one_way, buffer[..length].to_vec()));
            }
        }
        while let Some((_, piece)) = under_way.pop_front_if(|(due, _)| *due <= Instant::now()) {
            to.write_all(&piece)?;
        }
    }
    Ok(())
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
