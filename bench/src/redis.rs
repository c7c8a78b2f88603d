//! Redis: the store beside the bare commands that it cannot be faster than, and beside
//! `entelix-persistence`, on one server, in turns. Values are JSON strings of 256 bytes; where the
//! peer encodes them, the store does too.

mod contestants;
mod listing;
mod points;
mod replicas;
mod sizing;
mod watch;

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::Result;
use crate::harness::Settings;
use crate::report::Report;
use contestants::Contestants;

/// How much is stored.
pub struct Scale {
    /// Of the store, a multiple of a tenant's thousand.
    entries: usize,
    /// Of the tenants, in which single entries are read and written; the peer holds the same ones.
    tenants: usize,
    /// In a tenant with many.
    namespaces: usize,
    /// Of which the memory is measured.
    sized: usize,
    /// How long the server is left alone before its memory is read: it moves its tables to larger
    /// ones meanwhile.
    settling: Duration,
    /// Listings of the peer may take seconds each.
    peer_rounds: usize,
    has_cluster: bool,
}

impl Scale {
    pub const FULL: Self = Self {
        entries: 1_000_000,
        tenants: 100,
        namespaces: 1000,
        sized: 100_000,
        settling: Duration::from_secs(2),
        peer_rounds: 5,
        has_cluster: true,
    };

    pub const QUICK: Self = Self { sized: 20_000, peer_rounds: 3, ..Self::FULL };
}

/// Compares them and reports it; then what the store alone does, to be watched.
pub fn compare(
    runtime: &Runtime,
    settings: &Settings,
    scale: &Scale,
    report: &mut Report,
) -> Result<()> {
    let server = contestants::server()?;
    println!("\nRedis {}, in memory alone", contestants::info(&server, "server", "redis_version")?);
    let all = Contestants::load(runtime, &server, scale, report)?;
    listing::compare(runtime, settings, scale, &all, report)?;
    points::compare(runtime, settings, &all, report)?;
    report.watch(watch::calls(runtime, settings, scale, &server, &all)?);
    report.watch(watch::sweeps(runtime, settings, scale, &server, &all)?);
    drop((all, server));
    report.sizes(sizing::rows(runtime, scale)?);
    if scale.has_cluster {
        report.rates(replicas::rows(runtime, settings)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_runs_on_a_little() {
        let scale = Scale {
            entries: 2000,
            tenants: 2,
            namespaces: 20,
            sized: 1000,
            settling: Duration::ZERO,
            peer_rounds: 1,
            has_cluster: false,
        };
        let settings = Settings { rounds: 1, turn: Duration::ZERO, warm_up: Duration::ZERO };
        let mut report = Report::new(settings);
        compare(&Runtime::new().unwrap(), &settings, &scale, &mut report).unwrap();
        let names: Vec<String> = report.operations().collect();
        for name in ["get, 16 callers", "list a namespace of 100 keys", "put of a new key"] {
            assert!(names.iter().any(|operation| operation.contains(name)), "{name}: {names:?}");
        }
    }
}
