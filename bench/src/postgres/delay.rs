//! A proxy that simulates a slow network: it forwards all data after a delay.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Result;

/// Starts a proxy for the server at `port` that adds `one_way` in each direction. Returns its port.
/// The proxy runs until the process exits.
///
/// It uses threads instead of tasks, because tokio's timers round up to whole milliseconds: a delay
/// of 2 ms would be nearly 3 ms.
pub fn start_proxy(port: u16, one_way: Duration) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let own_port = listener.local_addr()?.port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // If the server refuses the connection, the client's connection is closed.
            drop(connect(client, port, one_way));
        }
    });
    Ok(own_port)
}

fn connect(client: TcpStream, port: u16, one_way: Duration) -> Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    forward(client.try_clone()?, server.try_clone()?, one_way);
    forward(server, client, one_way);
    Ok(())
}

/// Starts a thread that forwards each chunk `one_way` after its arrival.
fn forward(from: TcpStream, to: TcpStream, one_way: Duration) {
    thread::spawn(move || {
        // If one side closes its connection, the other side's is closed too.
        drop(forward_until_closed(&from, &to, one_way));
        drop(to.shutdown(Shutdown::Write));
    });
}

/// One thread both reads and writes: it waits for the next chunk until the first delayed chunk is
/// due. A second thread would take CPU time from the measured programs.
fn forward_until_closed(
    mut from: &TcpStream,
    mut to: &TcpStream,
    one_way: Duration,
) -> std::io::Result<()> {
    let mut delayed: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut is_open = true;
    while is_open || !delayed.is_empty() {
        let first = delayed.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
        let timeout = first.map(Timespec::try_from).transpose().map_err(std::io::Error::other)?;
        let mut sources = [PollFd::new(from, PollFlags::IN)];
        let polled = if is_open { &mut sources[..] } else { &mut [] };
        if poll(polled, timeout.as_ref())? > 0 {
            let length = from.read(&mut buffer)?;
            is_open = length > 0;
            if is_open {
                delayed.push_back((Instant::now() + one_way, buffer[..length].to_vec()));
            }
        }
        while let Some((_, chunk)) = delayed.pop_front_if(|(due, _)| *due <= Instant::now()) {
            to.write_all(&chunk)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_delays_both_directions_without_queueing() {
        const CHUNKS: usize = 100;
        let one_way = Duration::from_millis(20);
        let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = start_proxy(echo.local_addr().unwrap().port(), one_way).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = echo.accept().unwrap();
            let mut answers = stream.try_clone().unwrap();
            std::io::copy(&mut stream, &mut answers)
        });
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let start = Instant::now();
        for _ in 0..CHUNKS {
            client.write_all(b"x").unwrap();
        }
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), CHUNKS);
        let took = start.elapsed();
        assert!(took >= 2 * one_way && took < one_way * CHUNKS as u32, "{took:?}");
    }
}
