//! PostgreSQL: the store beside `entelix-persistence`, on one server, with one role that row
//! security binds, in turns. Both are given JSON strings of 256 bytes and encode them.

mod delay;
mod places;
mod stores;
mod watch;
mod work;

use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{ExecutionContext, NamespacePrefix};
use entelix_memory::Store as _;
use tokio::runtime::Runtime;

use crate::harness::{Samples, Settings, exactly, interleave};
use crate::report::{Comparison, Report};
use crate::{POSTGRES, Result, callers};
use places::{NAMESPACES, PER_GROUP, TENANT};
use stores::Stores;
use work::{Work, work};

const ONE_WAY: Duration = Duration::from_millis(2);
const PEER: &str = "entelix-persistence 0.6.1";
const UNTESTED_PEER: &str = "the same, connections untested";
/// Any group is like another.
const GROUP: &str = "g77";

/// Compares the two and reports it; then what the store alone does, to be watched.
pub fn compare(runtime: &Runtime, settings: &Settings, report: &mut Report) -> Result<()> {
    let server = runtime.block_on(stores::prepare())?;
    let version = server.psql("SHOW server_version")?;
    let (entries, per_value) = (places::ENTRIES, stores::value().len() + "\"\"".len());
    println!(
        "PostgreSQL {version}, durable, row security on: {entries} entries of {per_value} bytes \
         in {NAMESPACES} namespaces"
    );
    let near = runtime.block_on(stores::open(&server))?;
    points(runtime, settings, &near, "", report)?;
    report.times(namespaces(runtime, settings, &near)?);
    report.watch(watch::rows(runtime, settings, &server, &near.ours)?);
    // Its connections count against the server's limit.
    drop(near);
    let far = runtime.block_on(stores::open_far_away(&server, ONE_WAY))?;
    points(runtime, settings, &far, ", 2 ms one-way delay", report)
}

/// `get` and `put` of entries anywhere, by one caller and by as many as there are connections.
fn points(
    runtime: &Runtime,
    settings: &Settings,
    stores: &Stores,
    note: &str,
    report: &mut Report,
) -> Result<()> {
    let Stores { ours, peer, untested_peer } = stores;
    // The disk and the scheduler have moods that last longer than a turn.
    let settings = &Settings { rounds: 2 * settings.rounds + 1, ..*settings };
    println!("\nget and put, {} rounds:", settings.rounds);
    let (mut rows, mut untested_rows) = (Vec::new(), Vec::new());
    for callers in [1, 16] {
        let settings = &callers::settings(settings, callers);
        let gets = [work::get(ours), work::peer_get(peer), work::peer_get(untested_peer)];
        let puts = [work::put(ours), work::peer_put(peer), work::peer_put(untested_peer)];
        for (name, all) in [("get", gets), ("put", puts)] {
            let mut cases = all.map(|work| work::case(runtime, callers, work));
            let [own, theirs, untested] = exactly(interleave(settings, &mut cases)?)?;
            let operation = format!("{name}, {}{note}", callers::count(callers));
            rows.push(comparison(operation.clone(), &own, PEER, theirs));
            untested_rows.push(comparison(operation, &own, UNTESTED_PEER, untested));
        }
    }
    report.rates(rows);
    report.rates(untested_rows);
    Ok(())
}

/// Listing all namespaces of the tenant, and those of one group.
fn namespaces(runtime: &Runtime, settings: &Settings, stores: &Stores) -> Result<Vec<Comparison>> {
    let mut rows = Vec::new();
    for (group, count) in [(None, NAMESPACES), (Some(GROUP), PER_GROUP)] {
        let both = [list_namespaces(stores, group, count)?, peer_list(stores, group, count)];
        let mut cases = both.map(|work| work::case(runtime, 1, work));
        let [own, theirs] = exactly(interleave(settings, &mut cases)?)?;
        let operation = format!("list_namespaces, {count} of {NAMESPACES}");
        rows.push(comparison(operation, &own, PEER, theirs));
    }
    Ok(rows)
}

fn list_namespaces(stores: &Stores, group: Option<&str>, count: usize) -> Result<Work> {
    let store = Arc::clone(&stores.ours);
    let prefix = group.map_or(TENANT.to_owned(), |group| format!("{TENANT}:{group}"));
    let prefix = NamespacePrefix::parse(&prefix)?;
    Ok(work(move |_| {
        let (store, prefix) = (Arc::clone(&store), prefix.clone());
        async move {
            let listed = store.list_namespaces(&ExecutionContext::new(), &prefix).await?;
            all_of_them(listed.len(), count)
        }
    }))
}

fn peer_list(stores: &Stores, group: Option<&str>, count: usize) -> Work {
    let store = Arc::clone(&stores.peer);
    let prefix = entelix_memory::NamespacePrefix::new(entelix_core::TenantId::new(TENANT));
    let prefix = group.into_iter().fold(prefix, |prefix, group| prefix.with_scope(group));
    work(move |_| {
        let (store, prefix) = (Arc::clone(&store), prefix.clone());
        async move {
            let ctx = entelix_core::ExecutionContext::new();
            let listed = store.list_namespaces(&ctx, &prefix).await?;
            all_of_them(listed.len(), count)
        }
    })
}

fn all_of_them(listed: usize, count: usize) -> Result<()> {
    if listed == count { Ok(()) } else { Err(format!("{listed} listed of {count}").into()) }
}

fn comparison(
    operation: String,
    ours: &Samples,
    peer: &'static str,
    theirs: Samples,
) -> Comparison {
    Comparison::new(POSTGRES, operation, ours, peer, theirs)
}
