//! `kill -9` during an import: what was reported is there, and nothing is half a batch.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Place, line};

const KILLS: u64 = 20;
const NAMESPACES: u64 = 600;
const ENTRIES: u64 = 25;

/// The same numbers in every run: a failure can be repeated as far as the timing allows.
fn pseudo_random(seed: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 29)
}

fn value(namespace: u64, key: u64) -> String {
    format!("\"{}\"", format!("{namespace}/{key} ").repeat(10))
}

/// Each namespace is one batch, though its lines stand far apart.
fn input() -> String {
    let mut text = String::new();
    for key in 0..ENTRIES {
        for namespace in 0..NAMESPACES {
            text += &line(&format!("n{namespace}"), &key.to_string(), &value(namespace, key));
        }
    }
    text
}

#[test]
fn after_kill_9_each_batch_is_there_whole_or_not_at_all() {
    let place = Place::new();
    let file = place.write("in.jsonl", input());
    let (mut interrupted, mut kill) = (0, 0);
    // A kill that comes after the end of its import, as on a busy machine, proves nothing.
    while kill < KILLS || interrupted <= KILLS / 2 {
        assert!(kill < 20 * KILLS, "the kills came too late: {interrupted}");
        let store = format!("redb:kill-{kill}.redb");
        let reported = import_and_kill(&place, &file, &store, kill);
        interrupted += u64::from(reported.len() < NAMESPACES as usize);
        let stored = stored(&place, &store);
        for namespace in &reported {
            assert_eq!(stored.get(namespace), Some(&ENTRIES), "kill {kill}: {namespace} was lost");
        }
        for (namespace, entries) in &stored {
            assert_eq!(*entries, ENTRIES, "kill {kill}: {namespace} is half a batch");
        }
        std::fs::remove_file(place.path(&format!("kill-{kill}.redb"))).unwrap();
        kill += 1;
    }
}

/// Kills an import at an instant that is random in both senses: after so many batches, and then
/// anywhere in the next few milliseconds. Answers what had been reported.
fn import_and_kill(place: &Place, file: &str, store: &str, kill: u64) -> Vec<String> {
    let mut child = place
        .command(&["import", file, "--report-batches", "--store", store])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let before = pseudo_random(kill) % (NAMESPACES / 2);
    let mut reported: Vec<String> =
        lines.by_ref().take(before as usize + 1).map(Result::unwrap).collect();
    #[expect(clippy::disallowed_methods, reason = "the instant of the kill is to be random")]
    std::thread::sleep(Duration::from_micros(pseudo_random(kill + 1000) % 8000));
    child.kill().unwrap();
    child.wait().unwrap();
    // What was still in the pipe was reported too; a last line may be torn.
    reported.extend(lines.map_while(Result::ok).filter(|line| line.split('\t').count() == 4));
    reported.iter().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

/// How many entries each namespace holds, each with its right value.
fn stored(place: &Place, store: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for line in place.ok(&["export", "--all", "--store", store]).lines().skip(1) {
        let entry: Value = serde_json::from_str(line).unwrap();
        let namespace = entry["namespace"][0].as_str().unwrap();
        let number: u64 = namespace[1..].parse().unwrap();
        let key: u64 = entry["key"].as_str().unwrap().parse().unwrap();
        assert_eq!(entry["value"].to_string(), value(number, key));
        *found.entry(namespace.to_owned()).or_default() += 1;
    }
    found
}
