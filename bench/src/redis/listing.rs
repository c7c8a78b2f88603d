//! Listing beside a server that holds little, and beside the peer, which looks through the names of
//! all keys of the server.

use std::sync::Arc;

use cubbyhole::ExecutionContext;
use cubbyhole_redis::DEFAULT_PREFIX;
use entelix_memory::Store as _;
use tokio::runtime::Runtime;

use super::Scale;
use super::contestants::{self, Contestants};
use crate::callers::{self, Work, work};
use crate::contestant::{Contestant as _, Ours};
use crate::data::{KEYS, NAMESPACES_OF_A_TENANT, Names, Place};
use crate::harness::{Settings, exactly, interleave};
use crate::report::{self, Comparison, Report};
use crate::workloads::Read;
use crate::{REDIS, Result};

pub const PEER: &str = "entelix-persistence 0.6.1";
const READS: [Read; 4] = [Read::Get, Read::List, Read::Scan, Read::ListNamespaces];

pub fn compare(
    runtime: &Runtime,
    settings: &Settings,
    scale: &Scale,
    all: &Contestants,
    report: &mut Report,
) -> Result<()> {
    let server = contestants::server()?;
    let names = Arc::new(Names::of(KEYS * NAMESPACES_OF_A_TENANT)?);
    let opened = runtime.block_on(contestants::open(server.url(), DEFAULT_PREFIX))?;
    let alone = Arc::new(Ours::redis(names, opened));
    contestants::load(runtime, &alone, report)?;
    // In one tenant of both, so that both touch equally much data; then anywhere.
    for tenants in [1, all.names.tenants.len()] {
        let mut rows = Vec::new();
        for read in READS {
            let mut cases =
                [read.case(runtime, &*alone, 1), read.case(runtime, &*all.store, tenants)];
            let [small, large] = exactly(interleave(settings, &mut cases)?)?;
            rows.push(report::Read {
                store: REDIS,
                operation: read.name(),
                small_entries: alone.names().entries(),
                large_entries: all.names.entries(),
                large_tenants_read: tenants,
                ratio: large.ratio(&small),
                small,
                large,
            });
        }
        report.reads(rows);
    }
    report.times(vec![beside_the_peer(runtime, settings, scale, all)?]);
    Ok(())
}

fn beside_the_peer(
    runtime: &Runtime,
    settings: &Settings,
    scale: &Scale,
    all: &Contestants,
) -> Result<Comparison> {
    let settings = Settings { rounds: scale.peer_rounds, ..*settings };
    let both = [list(all), peer_list(all)];
    let mut cases = both.map(|work| callers::case(runtime, 1, all.place(), work));
    let [ours, theirs] = exactly(interleave(&settings, &mut cases)?)?;
    let operation = format!("list {KEYS} keys among {}", all.names.entries());
    Ok(Comparison::new(REDIS, operation, &ours, PEER, theirs))
}

fn list(all: &Contestants) -> Work<Place> {
    let (store, names) = (Arc::clone(&all.ours), Arc::clone(&all.names));
    work(move |place: Place| {
        let (store, names) = (Arc::clone(&store), Arc::clone(&names));
        async move {
            let ns = &names.namespaces[place.namespace];
            whole(store.list(&ExecutionContext::new(), ns, None).await?.len())
        }
    })
}

fn peer_list(all: &Contestants) -> Work<Place> {
    let (peer, namespaces) = (Arc::clone(&all.peer), Arc::clone(&all.peer_namespaces));
    work(move |place: Place| {
        let (peer, namespaces) = (Arc::clone(&peer), Arc::clone(&namespaces));
        async move {
            let ctx = entelix_core::ExecutionContext::new();
            whole(peer.list(&ctx, &namespaces[place.namespace], None).await?.len())
        }
    })
}

fn whole(listed: usize) -> Result<()> {
    if listed == KEYS { Ok(()) } else { Err(format!("{listed} listed of {KEYS}").into()) }
}
