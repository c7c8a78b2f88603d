//! Private Redis Clusters: they serve and move all slots, survive the loss of a master, use a manual
//! clock, and leave nothing behind.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::time::Duration;

use cubbyhole_testkit::{RedisCluster, RedisServer};
use support::{ROLE, connects, eventually, is_empty, is_named_by_a_process, kill, owner, place};

fn slot_of(cluster: &RedisCluster, key: &str) -> u16 {
    cluster.nodes()[0].cli(&["CLUSTER", "KEYSLOT", key]).unwrap().parse().unwrap()
}

/// Returns the node that serves a key.
fn node_for<'a>(cluster: &'a RedisCluster, key: &str) -> &'a RedisServer {
    &cluster.nodes()[cluster.owner_of(slot_of(cluster, key)).unwrap()]
}

#[test]
fn all_nodes_agree_and_serve_all_slots() {
    let cluster = RedisCluster::start_with(&["maxclients 99"]).unwrap();
    let nodes = cluster.nodes();
    let ports: Vec<String> = nodes.iter().map(|n| format!("127.0.0.1:{}", n.port())).collect();
    assert_eq!((nodes.len(), cluster.url()), (6, &*format!("redis+cluster://{}", ports.join(","))));
    assert_eq!(cluster.masters().unwrap(), [0, 1, 2]);
    for master in 0..3 {
        assert_eq!(cluster.replica_of(master).unwrap(), master + 3);
        assert!(cluster.replica_of(master + 3).is_err());
    }
    for (slot, owner) in [(0, 0), (5460, 0), (5461, 1), (10921, 1), (10922, 2), (16383, 2)] {
        assert_eq!(cluster.owner_of(slot).unwrap(), owner, "slot {slot}");
    }
    for node in nodes {
        let info = node.cli(&["CLUSTER", "INFO"]).unwrap();
        for line in ["cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:6"] {
            assert!(info.contains(line), "{info}");
        }
        assert_eq!(node.cli(&["CONFIG", "GET", "maxclients"]).unwrap(), "maxclients\n99");
    }
    for number in 0..100 {
        let key = format!("key {number}");
        assert_eq!(node_for(&cluster, &key).cli(&["SET", &key, "1"]).unwrap(), "OK");
    }
}

#[test]
fn slot_moves_with_its_keys() {
    let cluster = RedisCluster::start().unwrap();
    let slot = slot_of(&cluster, "{a}");
    let from = cluster.owner_of(slot).unwrap();
    let to = (from + 1) % 3;
    let [source, target] = [from, to].map(|index| &cluster.nodes()[index]);
    for number in 0..5 {
        source.cli(&["SET", &format!("{{a}}\0\u{e9}{number}"), "1"]).unwrap();
    }
    assert!(cluster.move_keys(slot, 2).is_err() && cluster.end_move(slot).is_err());

    cluster.begin_move(slot, to).unwrap();
    assert_eq!(cluster.move_keys(slot, 2).unwrap(), 2);
    let ask = source.cli(&["GET", "{a} absent"]).unwrap_err();
    assert_eq!(ask, format!("ASK {slot} 127.0.0.1:{}", target.port()));
    assert!(cluster.end_move(slot).is_err());
    assert_eq!(cluster.owner_of(slot).unwrap(), from);
    assert_eq!(cluster.move_keys(slot, 100).unwrap(), 3);
    assert_eq!(cluster.move_keys(slot, 100).unwrap(), 0);
    cluster.end_move(slot).unwrap();

    assert_eq!(cluster.owner_of(slot).unwrap(), to);
    assert_eq!(target.cli(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]).unwrap(), "5");
    let moved = format!("MOVED {slot} 127.0.0.1:{}", target.port());
    for index in [from, (from + 2) % 3] {
        assert_eq!(cluster.nodes()[index].cli(&["GET", "{a}"]).unwrap_err(), moved);
    }
    cluster.move_slot(slot, from).unwrap();
    assert_eq!(source.cli(&["GET", "{a}\0\u{e9}4"]).unwrap(), "1");
}

#[test]
fn replica_takes_over_from_a_killed_or_paused_master() {
    let mut cluster = RedisCluster::start().unwrap();
    let slot = slot_of(&cluster, "a");
    let first = cluster.owner_of(slot).unwrap();
    let second = cluster.replica_of(first).unwrap();
    let [master, replica] = [first, second].map(|index| &cluster.nodes()[index]);
    master.cli(&["SET", "a", "1"]).unwrap();
    eventually("the replica has the key", || replica.cli(&["DBSIZE"]).unwrap() == "1");

    cluster.node_mut(first).kill().unwrap();
    assert_eq!(cluster.wait_for_successor(slot, first).unwrap(), second);
    assert_eq!(cluster.masters().unwrap().len(), 3);
    assert_eq!(cluster.nodes()[second].cli(&["GET", "a"]).unwrap(), "1");
    cluster.node_mut(first).start_again().unwrap();
    cluster.wait_until_whole().unwrap();
    assert_eq!(cluster.replica_of(second).unwrap(), first);

    cluster.nodes()[second].pause().unwrap();
    assert_eq!(cluster.wait_for_successor(slot, second).unwrap(), first);
    cluster.nodes()[second].resume().unwrap();
    cluster.wait_until_whole().unwrap();
    assert_eq!(cluster.owner_of(slot).unwrap(), first);
    assert_eq!(cluster.nodes()[first].cli(&["GET", "a"]).unwrap(), "1");
}

#[cfg(target_os = "linux")]
#[test]
fn nodes_share_a_manual_clock_and_stay_connected_over_years() {
    let cluster = RedisCluster::start_with_clock().unwrap();
    assert_eq!(cluster.masters().unwrap(), [0, 1, 2]);
    let all_agree = || {
        for node in cluster.nodes() {
            let now = cluster.now().unwrap();
            assert_eq!(node.now().unwrap(), now);
            let time = format!("{}\n{}", now.as_secs(), now.subsec_micros());
            assert_eq!(node.cli(&["TIME"]).unwrap(), time);
            let info = node.cli(&["CLUSTER", "INFO"]).unwrap();
            assert!(info.contains("cluster_state:ok"), "{info}");
        }
    };
    all_agree();
    let node = node_for(&cluster, "a");
    node.cli(&["SET", "a", "1", "PX", "5"]).unwrap();
    cluster.advance(Duration::from_millis(5)).unwrap();
    assert_eq!(node.cli(&["GET", "a"]).unwrap(), "1");
    cluster.advance(Duration::from_millis(1)).unwrap();
    assert_eq!(node.cli(&["GET", "a"]).unwrap(), "");
    let year = Duration::from_secs(400 * 86_400);
    node.cli(&["SET", "a", "1", "PX", &(10 * year.as_millis() + 1).to_string()]).unwrap();
    for _ in 0..10 {
        cluster.advance(year).unwrap();
        all_agree();
    }
    // The nodes exchange this many rounds of messages after such a step.
    let mut rounds = 0;
    eventually("the nodes have exchanged messages", || {
        all_agree();
        rounds += 1;
        rounds > 15
    });
    assert_eq!(node.cli(&["PTTL", "a"]).unwrap(), "1");
    let slot = slot_of(&cluster, "a");
    let to = (cluster.owner_of(slot).unwrap() + 1) % 3;
    cluster.move_slot(slot, to).unwrap();
    assert_eq!(cluster.nodes()[to].cli(&["PTTL", "a"]).unwrap(), "1");
}

#[test]
fn cluster_leaves_nothing_when_dropped_or_killed() {
    const TEST: &str = "cluster_leaves_nothing_when_dropped_or_killed";
    if env::var_os(ROLE).is_some() {
        let cluster = RedisCluster::start().unwrap();
        let ports: Vec<_> = cluster.nodes().iter().map(|node| node.port().to_string()).collect();
        writeln!(io::stdout(), "\nports {}", ports.join(" ")).unwrap();
        let mut line = String::new();
        // The line `drop`, or the end of the pipe.
        io::stdin().read_line(&mut line).unwrap();
        drop(cluster);
        writeln!(io::stdout(), "\ndropped").unwrap();
        io::stdin().read_line(&mut line).unwrap();
        return;
    }
    for is_killed in [true, false] {
        let place = place("redis-cluster");
        let mut owner = owner(TEST, &place);
        let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.starts_with("ports ")).unwrap();
        let ports: Vec<u16> = line.split(' ').skip(1).map(|port| port.parse().unwrap()).collect();
        assert!(ports.len() == 6 && ports.iter().all(|port| connects(*port)) && !is_empty(&place));
        if is_killed {
            assert!(kill("KILL", &owner.id().to_string()));
            eventually("the folders are gone", || is_empty(&place));
            eventually("no process is left", || !is_named_by_a_process(&place));
        } else {
            writeln!(owner.stdin.as_mut().unwrap(), "drop").unwrap();
            assert!(lines.any(|line| line == "dropped"));
            assert!(is_empty(&place) && !is_named_by_a_process(&place));
        }
        drop(owner.stdin.take());
        owner.wait().unwrap();
        assert!(!ports.iter().any(|port| connects(*port)));
        fs::remove_dir(&place).unwrap();
    }
}
