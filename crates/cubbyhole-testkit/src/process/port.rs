//! Free ports on 127.0.0.1. Another program may take one before the server does, so whoever asks
//! here tries again.

use std::net::{Ipv4Addr, TcpListener};

/// How many ports a server tries that finds the one it was given taken.
pub(crate) const ATTEMPTS: usize = 5;

/// A port that was free a moment ago.
pub(crate) fn free() -> Result<u16, String> {
    free_ports::<1>().map(|[port]| port)
}

/// Different ports that were free a moment ago.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N], String> {
    let mut ports = [0; N];
    // Held until all are found: the system may hand out one again that was let go.
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let explain = |error| format!("no free port on 127.0.0.1: {error}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(explain)?;
        *port = listener.local_addr().map_err(explain)?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_free() {
        let mut ports = free_ports::<20>().unwrap();
        ports.sort_unstable();
        assert!(ports.windows(2).all(|pair| pair[0] < pair[1]), "{ports:?}");
        assert!(free().unwrap() > 0);
    }
}
