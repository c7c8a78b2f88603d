//! Forms a cluster of running nodes, with single commands: `redis-cli --cluster create` asks
//! questions, polls once a second, and does not work with a manual clock.

use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{MASTERS, RedisCluster, SLOTS};
use crate::process::server::LIMIT;
use crate::process::wait;
use crate::redis::client::Client;
use crate::redis::clock::Clock;
use crate::redis::{Plan, RedisServer, Time};

/// How far the manual clock advances between two polls. New nodes wait for some seconds on their clock
/// before they trust the cluster.
const STEP: Duration = Duration::from_secs(1);

/// Starts `count` nodes that do not know each other, in parallel, with a shared manual clock or the
/// system's clock.
pub(super) fn start_nodes(
    count: usize,
    lines: &[&str],
    with_clock: bool,
) -> Result<Vec<RedisServer>, String> {
    let start = |time| RedisServer::start_as(Plan { lines, time, has_disk: false, is_node: true });
    let mut nodes = Vec::with_capacity(count);
    let mut clock: Option<Arc<Clock>> = None;
    if with_clock {
        // The other nodes share its clock.
        let first = start(Time::Own)?;
        clock = first.clock.clone();
        nodes.push(first);
    }
    let time = || clock.clone().map_or(Time::System, Time::Shared);
    thread::scope(|scope| {
        let starts: Vec<_> = (nodes.len()..count)
            .map(|_| {
                let time = time();
                scope.spawn(move || start(time))
            })
            .collect();
        for start in starts {
            nodes.push(start.join().map_err(|_| "the start of a node panicked")??);
        }
        Ok::<_, String>(())
    })?;
    Ok(nodes)
}

/// Distributes all slots over the first three nodes, and makes each other node a replica of one.
pub(super) fn form(cluster: &RedisCluster) -> Result<(), String> {
    for (index, node) in cluster.nodes.iter().enumerate() {
        let mut client = Client::connect(node.port)?;
        // Set the epochs before the nodes meet: a node that knows another one rejects
        // `SET-CONFIG-EPOCH`. Without epochs the nodes would have to negotiate whose slots are the newest.
        client.call(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])?;
        if index < MASTERS {
            let bound = |index: usize| index * usize::from(SLOTS) / MASTERS;
            let (first, last) = (bound(index).to_string(), (bound(index + 1) - 1).to_string());
            client.call(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])?;
        }
    }
    for index in 0..cluster.nodes.len() {
        // Each pair meets explicitly, because gossip takes longer.
        introduce(cluster, index, index + 1..cluster.nodes.len())?;
    }
    until(cluster, || {
        (0..cluster.nodes.len()).try_for_each(|index| cluster.check_links(index).map(drop))
    })?;
    // At the first meeting a node does not learn the slots of the other, which it does not know yet.
    // It would learn them with the next ping, and pings are rare.
    for index in 0..cluster.nodes.len() {
        introduce(cluster, index, 0..cluster.nodes.len())?;
    }
    for index in MASTERS..cluster.nodes.len() {
        let master = &cluster.ids[index % MASTERS];
        cluster.nodes[index].call(&["CLUSTER", "REPLICATE", master])?;
    }
    until(cluster, || cluster.check())
}

/// Makes a node meet `others`, except itself.
fn introduce(cluster: &RedisCluster, index: usize, others: Range<usize>) -> Result<(), String> {
    let mut client = Client::connect(cluster.nodes[index].port)?;
    for other in others.filter(|other| *other != index) {
        let other = &cluster.nodes[other];
        let (port, bus_port) = (other.port.to_string(), other.bus_port.to_string());
        client.call(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port])?;
    }
    Ok(())
}

/// Polls `check`, and advances the manual clock at each poll.
fn until(
    cluster: &RedisCluster,
    mut check: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    let mut result = Ok(());
    wait::until(LIMIT, || {
        if let Some(clock) = &cluster.clock {
            clock.advance(STEP)?;
        }
        result = check();
        Ok(result.is_ok())
    })?;
    result.map_err(|error| format!("the cluster did not form: {error}"))
}
