//! Free ports on 127.0.0.1. Another program may take one before the server does, so callers retry.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use crate::process::folder::random_word;

/// How many ports a server tries if its port is taken.
pub(crate) const ATTEMPTS: usize = 5;

/// Ports below the range from which systems choose the ports of outgoing connections. A connection
/// would otherwise take the port of a stopped server before the server starts again.
const PORTS: Range<u16> = 10_000..32_000;

/// How many ports are tried for each free one.
const DRAWS: usize = 1000;

/// Returns a free port.
pub(crate) fn free() -> Result<u16, String> {
    free_ports::<1>().map(|[port]| port)
}

/// Returns different free ports.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N], String> {
    let mut ports = [0; N];
    // Held until all are found, so no port is drawn twice.
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = listen()?;
        let address = listener.local_addr();
        *port = address.map_err(|error| format!("a listener has no address: {error}"))?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn listen() -> Result<TcpListener, String> {
    let mut result = Err(String::new());
    for _ in 0..DRAWS {
        let port = draw()?;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return Ok(listener),
            Err(error) => result = Err(format!("no free port on 127.0.0.1: {port}: {error}")),
        }
    }
    result
}

fn draw() -> Result<u16, String> {
    let word = random_word()?;
    let number = word.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let place = number.unwrap_or_default() % u32::from(PORTS.end - PORTS.start);
    u16::try_from(place).map(|place| PORTS.start + place).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_are_in_range() {
        let mut ports = free_ports::<20>().unwrap();
        ports.sort_unstable();
        assert!(ports.windows(2).all(|pair| pair[0] < pair[1]), "{ports:?}");
        assert!(ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
        assert!(PORTS.contains(&free().unwrap()));
    }
}
