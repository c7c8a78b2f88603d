//! The tool on Redis and Redis Cluster.

#[cfg(test)]
#[path = "support/redis.rs"]
mod fixture;
#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::process::Output;

    use cubbyhole_testkit::{RedisCluster, RedisServer};

    use crate::fixture::{Kind, Prefix};
    use crate::support::{Outcome, tool};

    const BOTH: [Kind; 2] = [Kind::Single, Kind::Cluster];

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn call(store: &str, arguments: &[&str]) -> Outcome<Output> {
        let mut all = vec!["--store", store];
        all.extend(arguments);
        tool(&all)
    }

    /// Runs the tool, which must succeed, and returns its output.
    fn stdout_of(store: &str, arguments: &[&str]) -> Outcome<String> {
        let output = call(store, arguments)?;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(text(&output.stdout))
    }

    #[test]
    fn put_get_list_and_take_work() -> Outcome {
        for kind in BOTH {
            let prefix = Prefix::new(kind)?;
            let store = &prefix.store;
            stdout_of(store, &["put", "acme:agent-7", "name", "Ada", "--ttl", "1h"])?;
            stdout_of(store, &["put", "acme", "agent-7:name", "Bob"])?;
            assert_eq!(stdout_of(store, &["get", "acme:agent-7", "name"])?, "Ada");
            assert_eq!(stdout_of(store, &["list", "acme:agent-7"])?, "name\n");
            assert_eq!(stdout_of(store, &["namespaces", "acme"])?, "acme\nacme:agent-7\n");
            assert_eq!(stdout_of(store, &["tenants"])?, "acme\n");
            let lost = call(store, &["put", "acme:agent-7", "name", "Bob", "--if-absent"])?;
            assert_eq!(lost.status.code(), Some(3), "{lost:?}");
            assert_eq!(stdout_of(store, &["take", "acme:agent-7", "name"])?, "Ada");
            let gone = call(store, &["get", "acme:agent-7", "name"])?;
            assert_eq!(gone.status.code(), Some(1), "{gone:?}");
            stdout_of(store, &["evict"])?;
            assert_eq!(stdout_of(store, &["namespaces", "acme"])?, "acme\n");
            stdout_of(store, &["erase", "acme", "--yes"])?;
            assert_eq!(stdout_of(store, &["tenants"])?, "");
        }
        Ok(())
    }

    #[test]
    fn demo_migrate_and_compact_succeed() -> Outcome {
        for kind in BOTH {
            let prefix = Prefix::new(kind)?;
            stdout_of(&prefix.store, &["demo"])?;
            stdout_of(&prefix.store, &["migrate"])?;
            stdout_of(&prefix.store, &["compact"])?;
        }
        Ok(())
    }

    #[test]
    fn import_is_distributed_over_all_masters() -> Outcome {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("spread.jsonl");
        let line = |number: u32| {
            let (group, name) = (number / 2, "{braces}");
            format!(
                "{{\"namespace\":[\"acme\",\"{group}{name}\"],\"key\":\"{number}\",\"value\":1}}\n"
            )
        };
        std::fs::write(&data, (0..200).map(line).collect::<String>())?;
        let cluster = RedisCluster::start()?;
        stdout_of(cluster.url(), &["import", data.to_str().ok_or("the path is not UTF-8")?])?;
        for index in cluster.masters()? {
            let keys: u64 = cluster.nodes()[index].cli(&["DBSIZE"])?.trim().parse()?;
            assert!(keys > 100, "{keys} keys on node {index}");
        }
        assert_eq!(stdout_of(cluster.url(), &["export", "acme"])?.lines().count(), 201);
        Ok(())
    }

    #[test]
    fn doctor_reports_missing_persistence_and_eviction() -> Outcome {
        let bad = ["appendonly no", "maxmemory 100mb", "maxmemory-policy allkeys-lru"];
        let server = RedisServer::start_with(&bad)?;
        let diagnosed = call(server.url(), &["doctor"])?;
        assert_eq!(diagnosed.status.code(), Some(6), "{diagnosed:?}");
        let found = text(&diagnosed.stdout);
        let verdict = |name: &str| {
            let line = found.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
            line.and_then(|line| line.split_whitespace().next()).unwrap_or("none").to_owned()
        };
        assert_eq!(verdict("persistence"), "warning", "{found}");
        assert_eq!(verdict("memory"), "problem", "{found}");
        assert_eq!(verdict("scripts"), "ok", "{found}");
        let sound = RedisServer::start()?;
        let found = stdout_of(sound.url(), &["doctor"])?;
        assert!(!found.contains("warning") && !found.contains("problem"), "{found}");
        Ok(())
    }

    #[test]
    fn doctor_checks_every_master() -> Outcome {
        let cluster = RedisCluster::start()?;
        let found = stdout_of(cluster.url(), &["doctor"])?;
        assert_eq!(found.lines().filter(|line| line.contains("ok       replicas")).count(), 3);
        assert!(found.contains("3 masters, all slots served, none being migrated"), "{found}");
        let waiting = format!("{}?wait_replicas=2", cluster.url());
        let diagnosed = call(&waiting, &["doctor"])?;
        assert_eq!(diagnosed.status.code(), Some(6), "{diagnosed:?}");
        assert!(text(&diagnosed.stdout).contains("1 connected, but every write waits for 2"));
        cluster.begin_move(0, 1)?;
        let found = stdout_of(cluster.url(), &["doctor"])?;
        assert!(found.contains("warning  cluster"), "{found}");
        Ok(())
    }

    #[test]
    fn repair_restores_registrations_lost_in_a_failover() -> Outcome {
        let server = RedisServer::start()?;
        let store = server.url();
        for namespace in ["acme:a", "acme:b", "globex"] {
            stdout_of(store, &["put", namespace, "k", "v"])?;
        }
        stdout_of(store, &["doctor"])?;
        // Delete the index of tenants, and one namespace in the index of acme.
        server.cli(&["DEL", r"cubbyhole:{\*}n"])?;
        let listed = server.cli(&["ZRANGE", "cubbyhole:{acme}n", "0", "-1"])?;
        let member = listed.lines().find(|line| line.starts_with("acme:a")).ok_or("not there")?;
        server.cli(&["ZREM", "cubbyhole:{acme}n", member])?;
        // Delete the marker of the third namespace.
        server.cli(&["ZREM", "cubbyhole:{globex}x", "\0"])?;
        assert_eq!(stdout_of(store, &["tenants"])?, "");
        let unhealthy = call(store, &["doctor"])?;
        assert_eq!(unhealthy.status.code(), Some(6), "{unhealthy:?}");
        assert!(text(&unhealthy.stdout).contains("doctor --repair"), "{unhealthy:?}");
        let repaired = stdout_of(store, &["doctor", "--repair"])?;
        assert!(repaired.contains("repaired 2 tenants"), "{repaired}");
        assert!(repaired.contains("repaired 1 namespaces that hold entries"), "{repaired}");
        assert!(repaired.contains("repaired 1 namespaces were marked"), "{repaired}");
        assert_eq!(stdout_of(store, &["tenants"])?, "acme\nglobex\n");
        assert_eq!(stdout_of(store, &["namespaces", "acme"])?, "acme:a\nacme:b\n");
        let again = call(store, &["doctor", "--repair"])?;
        assert!(text(&again.stderr).contains("nothing to repair"), "{again:?}");
        Ok(())
    }

    #[test]
    fn doctor_lists_registers_and_removes_orphaned_values() -> Outcome {
        let server = RedisServer::start()?;
        let store = server.url();
        let lose = || -> Outcome {
            for (namespace, key) in [("acme:a", "k"), ("acme:a", "l"), ("globex", "k")] {
                stdout_of(store, &["put", namespace, key, "v"])?;
            }
            for kind in ["k", "m", "x"] {
                server.cli(&["DEL", &format!("cubbyhole:{{acme:a}}{kind}")])?;
            }
            Ok(())
        };
        lose()?;
        // The value exists, but no command lists it.
        let value = || server.cli(&["GET", "cubbyhole:{acme:a}vk"]);
        assert_eq!(value()?, "v");
        assert_eq!(stdout_of(store, &["list", "acme:a"])?, "");
        let erased = call(store, &["erase", "acme", "--yes"])?;
        assert_eq!(erased.status.code(), Some(0), "{erased:?}");
        let unhealthy = call(store, &["doctor"])?;
        assert_eq!(unhealthy.status.code(), Some(6), "{unhealthy:?}");
        assert!(text(&unhealthy.stdout).contains("orphaned"), "{unhealthy:?}");
        let listed = call(store, &["doctor", "--repair"])?;
        assert_eq!(listed.status.code(), Some(6), "{listed:?}");
        let listed_text = text(&listed.stdout);
        let found: Vec<&str> =
            listed_text.lines().filter(|line| line.starts_with("orphaned")).collect();
        assert_eq!(found, ["orphaned\tacme:a\tk\t1\tnever", "orphaned\tacme:a\tl\t1\tnever"]);
        let note = text(&listed.stderr);
        assert!(note.contains("2 orphaned values (2 B) in 1 namespace"), "{note}");
        let listed = call(store, &["doctor", "--repair", "--json"])?;
        let listed_text = text(&listed.stdout);
        let line = listed_text.lines().next().ok_or("no line")?;
        let line: serde_json::Value = serde_json::from_str(line)?;
        let expected = serde_json::json!({
            "repaired": [],
            "orphans": {
                "action": "list", "values": 2, "namespaces": 1, "bytes": 2,
                "listed": [
                    {"namespace": ["acme", "a"], "key": "k", "bytes": 1},
                    {"namespace": ["acme", "a"], "key": "l", "bytes": 1},
                ],
            },
        });
        assert_eq!(line, expected);

        let registered = stdout_of(store, &["doctor", "--repair", "--orphans", "register"])?;
        assert!(registered.contains("repaired 2 orphaned values were registered"), "{registered}");
        assert_eq!(stdout_of(store, &["list", "acme:a"])?, "k\nl\n");
        assert_eq!(stdout_of(store, &["namespaces", "acme"])?, "acme:a\n");

        lose()?;
        // Without a terminal the command does not ask, and removes nothing.
        let refused = call(store, &["doctor", "--repair", "--orphans", "remove"])?;
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(text(&refused.stderr).contains("remove 2 orphaned values"), "{refused:?}");
        assert_eq!(value()?, "v");
        let removed = stdout_of(store, &["doctor", "--repair", "--orphans", "remove", "--yes"])?;
        assert!(removed.contains("repaired 2 orphaned values were removed"), "{removed}");
        assert_eq!(value()?, "");
        assert_eq!(stdout_of(store, &["get", "globex", "k"])?, "v");

        // An entry that is missing only in the keys of the index is not an orphan.
        server.cli(&["DEL", "cubbyhole:{globex}k"])?;
        let kept = stdout_of(store, &["doctor", "--repair", "--orphans", "remove", "--yes"])?;
        assert!(kept.contains("repaired 1 entries were restored in the index"), "{kept}");
        assert_eq!(stdout_of(store, &["list", "globex"])?, "k\n");
        assert_eq!(stdout_of(store, &["get", "globex", "k"])?, "v");
        for arguments in [&["doctor", "--orphans", "list"][..], &["doctor", "--yes"]] {
            assert_eq!(call(store, arguments)?.status.code(), Some(2), "{arguments:?}");
        }
        Ok(())
    }

    /// The ACL rule of a user in the documentation.
    fn documented_rule(user: &str) -> Result<String, Box<dyn std::error::Error>> {
        let page =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/backends/redis.md");
        let page = std::fs::read_to_string(page)?;
        let start = format!("ACL SETUSER {user} ");
        let rule = page.lines().find(|line| line.starts_with(&start));
        Ok(rule.ok_or("the page has no rule for this user")?.to_owned())
    }

    #[test]
    fn documented_application_user_may_run_every_application_call() -> Outcome {
        let rule = documented_rule("my_service")?;
        let words: Vec<&str> = rule.split(' ').collect();
        let cluster = RedisCluster::start()?;
        for node in cluster.nodes() {
            node.cli(&words)?;
        }
        let store = cluster.url().replacen("//", "//my_service:PASSWORD@", 1);
        stdout_of(&store, &["demo"])?;
        stdout_of(&store, &["put", "acme", "k", "v", "--ttl", "1h", "--if-absent"])?;
        stdout_of(&store, &["touch", "acme", "k", "--persist"])?;
        stdout_of(&store, &["touch", "acme", "k", "--ttl", "1m"])?;
        stdout_of(&store, &["list", "acme", "--values"])?;
        stdout_of(&store, &["export", "--all"])?;
        stdout_of(&store, &["take", "acme", "k"])?;
        stdout_of(&store, &["evict"])?;
        stdout_of(&store, &["erase", "acme", "--yes"])?;
        let waiting = format!("{store}?wait_replicas=1");
        stdout_of(&waiting, &["put", "acme", "k", "v"])?;
        for node in cluster.nodes() {
            // `CLIENT SETINFO` is optional.
            let log = node.cli(&["ACL", "LOG"])?;
            let log = log.lines().collect::<Vec<_>>();
            let denied = log.windows(2).filter(|pair| pair[0] == "object").map(|pair| pair[1]);
            let denied: Vec<&str> = denied.filter(|what| !what.starts_with("client")).collect();
            assert!(denied.is_empty(), "{denied:?}");
        }
        Ok(())
    }

    #[test]
    fn documented_operator_may_run_doctor_and_repair() -> Outcome {
        let rule = documented_rule("my_operator")?;
        let words: Vec<&str> = rule.split(' ').collect();
        let server = RedisServer::start()?;
        server.cli(&words)?;
        let store = server.url().replacen("//", "//my_operator:PASSWORD@", 1);
        for namespace in ["acme", "globex"] {
            stdout_of(&store, &["put", namespace, "k", "v", "--ttl", "1h"])?;
        }
        let lost = ["cubbyhole:{acme}k", "cubbyhole:{acme}m", "cubbyhole:{acme}x"];
        server.cli(&[&["DEL"], &lost[..]].concat())?;
        let registered = stdout_of(&store, &["doctor", "--repair", "--orphans", "register"])?;
        assert!(registered.contains("1 orphaned values were registered"), "{registered}");
        assert!(!registered.contains("warning") && !registered.contains("problem"), "{registered}");
        // The operator can erase an entry that is missing in one part of the index.
        server.cli(&["DEL", "cubbyhole:{acme}k"])?;
        stdout_of(&store, &["erase", "acme", "--yes"])?;
        assert_eq!(call(&store, &["get", "acme", "k"])?.status.code(), Some(1));
        Ok(())
    }

    #[test]
    fn wrong_server_is_reported_without_the_password() -> Outcome {
        let missing = call("redis://app:s3cret-Pa55@127.0.0.1:1", &["get", "acme", "k"])?;
        assert_eq!(missing.status.code(), Some(5), "{missing:?}");
        assert!(!text(&missing.stderr).contains("s3cret"), "{missing:?}");
        let server = RedisServer::start()?;
        let cluster = format!("redis+cluster://127.0.0.1:{}", server.port());
        let wrong = call(&cluster, &["get", "acme", "k"])?;
        assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
        assert!(text(&wrong.stderr).contains("redis://"), "{wrong:?}");
        Ok(())
    }
}
