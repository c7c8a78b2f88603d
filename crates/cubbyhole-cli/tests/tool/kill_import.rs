//! `kill -9` during an import: reported batches are stored, and batches are atomic.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Sandbox, line};

const KILLS: u64 = 20;
const NAMESPACES: u64 = 600;
const ENTRIES: u64 = 25;

/// Returns the same numbers in every run, so a failure is reproducible except for timing.
fn pseudo_random(seed: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 29)
}

fn value(namespace: u64, key: u64) -> String {
    format!("\"{}\"", format!("{namespace}/{key} ").repeat(10))
}

/// Returns lines that are interleaved by namespace. Each namespace is one batch.
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
fn batches_are_atomic_after_kill_9() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("in.jsonl", input());
    let (mut interrupted, mut kill) = (0, 0);
    // Kills that come after the end of the import do not count.
    while kill < KILLS || interrupted <= KILLS / 2 {
        assert!(
            kill < 20 * KILLS,
            "most kills came after the end of the import: {interrupted} were in time"
        );
        let store = format!("redb:kill-{kill}.redb");
        let reported = import_and_kill(&sandbox, &file, &store, kill);
        interrupted += u64::from(reported.len() < NAMESPACES as usize);
        let stored = stored(&sandbox, &store);
        for namespace in &reported {
            assert_eq!(stored.get(namespace), Some(&ENTRIES), "kill {kill}: {namespace} was lost");
        }
        for (namespace, entries) in &stored {
            assert_eq!(*entries, ENTRIES, "kill {kill}: {namespace} has an incomplete batch");
        }
        std::fs::remove_file(sandbox.path(&format!("kill-{kill}.redb"))).unwrap();
        kill += 1;
    }
}

/// Kills an import after a pseudo-random number of batches and a pseudo-random delay. Returns the
/// reported namespaces.
fn import_and_kill(sandbox: &Sandbox, file: &str, store: &str, kill: u64) -> Vec<String> {
    let mut child = sandbox
        .command(&["import", file, "--report-batches", "--store", store])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let before = pseudo_random(kill) % (NAMESPACES / 2);
    let mut reported: Vec<String> =
        lines.by_ref().take(before as usize + 1).map(Result::unwrap).collect();
    #[expect(clippy::disallowed_methods, reason = "the time of the kill is random")]
    std::thread::sleep(Duration::from_micros(pseudo_random(kill + 1000) % 8000));
    child.kill().unwrap();
    child.wait().unwrap();
    // Lines in the pipe were reported too. The last one may be incomplete.
    reported.extend(lines.map_while(Result::ok).filter(|line| line.split('\t').count() == 4));
    reported.iter().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

/// Returns the number of entries of each namespace, and checks their values.
fn stored(sandbox: &Sandbox, store: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for line in sandbox.ok(&["export", "--all", "--store", store]).lines().skip(1) {
        let entry: Value = serde_json::from_str(line).unwrap();
        let namespace = entry["namespace"][0].as_str().unwrap();
        let number: u64 = namespace[1..].parse().unwrap();
        let key: u64 = entry["key"].as_str().unwrap().parse().unwrap();
        assert_eq!(entry["value"].to_string(), value(number, key));
        *found.entry(namespace.to_owned()).or_default() += 1;
    }
    found
}
