//! The tool on Redis and on Redis Cluster: what an operator does there.

#[cfg(test)]
#[path = "support/redis.rs"]
mod places;
#[cfg(test)]
mod support;

#[cfg(test)]
mod tests {
    use std::process::Output;

    use cubbyhole_testkit::{RedisCluster, RedisServer};

    use crate::places::{Kind, Prefix};
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

    /// What a call that must succeed prints.
    fn said(store: &str, arguments: &[&str]) -> Outcome<String> {
        let output = call(store, arguments)?;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(text(&output.stdout))
    }

    #[test]
    fn entries_are_put_got_listed_and_taken() -> Outcome {
        for kind in BOTH {
            let prefix = Prefix::new(kind)?;
            let store = &prefix.store;
            said(store, &["put", "acme:agent-7", "name", "Ada", "--ttl", "1h"])?;
            said(store, &["put", "acme", "agent-7:name", "Bob"])?;
            assert_eq!(said(store, &["get", "acme:agent-7", "name"])?, "Ada");
            assert_eq!(said(store, &["list", "acme:agent-7"])?, "name\n");
            assert_eq!(said(store, &["namespaces", "acme"])?, "acme\nacme:agent-7\n");
            assert_eq!(said(store, &["tenants"])?, "acme\n");
            let lost = call(store, &["put", "acme:agent-7", "name", "Bob", "--if-absent"])?;
            assert_eq!(lost.status.code(), Some(3), "{lost:?}");
            assert_eq!(said(store, &["take", "acme:agent-7", "name"])?, "Ada");
            let gone = call(store, &["get", "acme:agent-7", "name"])?;
            assert_eq!(gone.status.code(), Some(1), "{gone:?}");
            said(store, &["evict"])?;
            assert_eq!(said(store, &["namespaces", "acme"])?, "acme\n");
            said(store, &["erase", "acme", "--yes"])?;
            assert_eq!(said(store, &["tenants"])?, "");
        }
        Ok(())
    }

    #[test]
    fn the_demo_migrate_and_compact_run() -> Outcome {
        for kind in BOTH {
            let prefix = Prefix::new(kind)?;
            said(&prefix.store, &["demo"])?;
            said(&prefix.store, &["migrate"])?;
            said(&prefix.store, &["compact"])?;
        }
        Ok(())
    }

    #[test]
    fn an_import_spreads_over_all_masters() -> Outcome {
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
        said(cluster.url(), &["import", data.to_str().ok_or("the path is not UTF-8")?])?;
        for index in cluster.masters()? {
            let keys: u64 = cluster.nodes()[index].cli(&["DBSIZE"])?.trim().parse()?;
            assert!(keys > 100, "{keys} keys on node {index}");
        }
        assert_eq!(said(cluster.url(), &["export", "acme"])?.lines().count(), 201);
        Ok(())
    }

    #[test]
    fn the_doctor_tells_what_a_server_may_lose_and_evict() -> Outcome {
        let bad = ["appendonly no", "maxmemory 100mb", "maxmemory-policy allkeys-lru"];
        let server = RedisServer::start_with(&bad)?;
        let looked = call(server.url(), &["doctor"])?;
        assert_eq!(looked.status.code(), Some(6), "{looked:?}");
        let found = text(&looked.stdout);
        let verdict = |name: &str| {
            let line = found.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
            line.and_then(|line| line.split_whitespace().next()).unwrap_or("none").to_owned()
        };
        assert_eq!(verdict("persistence"), "warning", "{found}");
        assert_eq!(verdict("memory"), "problem", "{found}");
        assert_eq!(verdict("scripts"), "ok", "{found}");
        let sound = RedisServer::start()?;
        let found = said(sound.url(), &["doctor"])?;
        assert!(!found.contains("warning") && !found.contains("problem"), "{found}");
        Ok(())
    }

    #[test]
    fn the_doctor_looks_at_every_master() -> Outcome {
        let cluster = RedisCluster::start()?;
        let found = said(cluster.url(), &["doctor"])?;
        assert_eq!(found.lines().filter(|line| line.contains("ok       replicas")).count(), 3);
        assert!(found.contains("3 masters, all slots served, none on its way"), "{found}");
        let waiting = format!("{}?wait_replicas=2", cluster.url());
        let looked = call(&waiting, &["doctor"])?;
        assert_eq!(looked.status.code(), Some(6), "{looked:?}");
        assert!(text(&looked.stdout).contains("1 connected, and every write waits for 2"));
        cluster.begin_move(0, 1)?;
        let found = said(cluster.url(), &["doctor"])?;
        assert!(found.contains("warning  cluster"), "{found}");
        Ok(())
    }

    #[test]
    fn the_doctor_lists_again_what_a_failover_lost() -> Outcome {
        let server = RedisServer::start()?;
        let store = server.url();
        for namespace in ["acme:a", "acme:b", "globex"] {
            said(store, &["put", namespace, "k", "v"])?;
        }
        said(store, &["doctor"])?;
        // The index of tenants is lost whole, and from acme's the one namespace.
        server.cli(&["DEL", r"cubbyhole:{\*}n"])?;
        let listed = server.cli(&["ZRANGE", "cubbyhole:{acme}n", "0", "-1"])?;
        let member = listed.lines().find(|line| line.starts_with("acme:a")).ok_or("not there")?;
        server.cli(&["ZREM", "cubbyhole:{acme}n", member])?;
        // And the marker of the third.
        server.cli(&["ZREM", "cubbyhole:{globex}x", "\0"])?;
        assert_eq!(said(store, &["tenants"])?, "");
        let ill = call(store, &["doctor"])?;
        assert_eq!(ill.status.code(), Some(6), "{ill:?}");
        assert!(text(&ill.stdout).contains("doctor --repair"), "{ill:?}");
        let mended = said(store, &["doctor", "--repair"])?;
        assert!(mended.contains("repaired 2 tenants"), "{mended}");
        assert!(mended.contains("repaired 1 namespaces that hold entries"), "{mended}");
        assert!(mended.contains("repaired 1 namespaces were marked"), "{mended}");
        assert_eq!(said(store, &["tenants"])?, "acme\nglobex\n");
        assert_eq!(said(store, &["namespaces", "acme"])?, "acme:a\nacme:b\n");
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
                said(store, &["put", namespace, key, "v"])?;
            }
            for kind in ["k", "m", "x"] {
                server.cli(&["DEL", &format!("cubbyhole:{{acme:a}}{kind}")])?;
            }
            Ok(())
        };
        lose()?;
        // The value is there, and no command shows it.
        let value = || server.cli(&["GET", "cubbyhole:{acme:a}vk"]);
        assert_eq!(value()?, "v");
        assert_eq!(said(store, &["list", "acme:a"])?, "");
        let erased = call(store, &["erase", "acme", "--yes"])?;
        assert_eq!(erased.status.code(), Some(0), "{erased:?}");
        let ill = call(store, &["doctor"])?;
        assert_eq!(ill.status.code(), Some(6), "{ill:?}");
        assert!(text(&ill.stdout).contains("orphaned"), "{ill:?}");
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

        let registered = said(store, &["doctor", "--repair", "--orphans", "register"])?;
        assert!(registered.contains("repaired 2 orphaned values were registered"), "{registered}");
        assert_eq!(said(store, &["list", "acme:a"])?, "k\nl\n");
        assert_eq!(said(store, &["namespaces", "acme"])?, "acme:a\n");

        lose()?;
        // Without a terminal it does not ask, and removes nothing.
        let refused = call(store, &["doctor", "--repair", "--orphans", "remove"])?;
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(text(&refused.stderr).contains("remove 2 orphaned values"), "{refused:?}");
        assert_eq!(value()?, "v");
        let removed = said(store, &["doctor", "--repair", "--orphans", "remove", "--yes"])?;
        assert!(removed.contains("repaired 2 orphaned values were removed"), "{removed}");
        assert_eq!(value()?, "");
        assert_eq!(said(store, &["get", "globex", "k"])?, "v");

        // An entry that only the keys of the index lost is no orphan.
        server.cli(&["DEL", "cubbyhole:{globex}k"])?;
        let kept = said(store, &["doctor", "--repair", "--orphans", "remove", "--yes"])?;
        assert!(kept.contains("repaired 1 entries were restored in the index"), "{kept}");
        assert_eq!(said(store, &["list", "globex"])?, "k\n");
        assert_eq!(said(store, &["get", "globex", "k"])?, "v");
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
        said(&store, &["demo"])?;
        said(&store, &["put", "acme", "k", "v", "--ttl", "1h", "--if-absent"])?;
        said(&store, &["touch", "acme", "k", "--persist"])?;
        said(&store, &["touch", "acme", "k", "--ttl", "1m"])?;
        said(&store, &["list", "acme", "--values"])?;
        said(&store, &["export", "--all"])?;
        said(&store, &["take", "acme", "k"])?;
        said(&store, &["evict"])?;
        said(&store, &["erase", "acme", "--yes"])?;
        let waiting = format!("{store}?wait_replicas=1");
        said(&waiting, &["put", "acme", "k", "v"])?;
        for node in cluster.nodes() {
            // What a connection tells of its library is the client's affair.
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
            said(&store, &["put", namespace, "k", "v", "--ttl", "1h"])?;
        }
        let lost = ["cubbyhole:{acme}k", "cubbyhole:{acme}m", "cubbyhole:{acme}x"];
        server.cli(&[&["DEL"], &lost[..]].concat())?;
        let registered = said(&store, &["doctor", "--repair", "--orphans", "register"])?;
        assert!(registered.contains("1 orphaned values were registered"), "{registered}");
        assert!(!registered.contains("warning") && !registered.contains("problem"), "{registered}");
        // An application erases also what one part of an index has lost.
        server.cli(&["DEL", "cubbyhole:{acme}k"])?;
        said(&store, &["erase", "acme", "--yes"])?;
        assert_eq!(call(&store, &["get", "acme", "k"])?.status.code(), Some(1));
        Ok(())
    }

    #[test]
    fn what_is_no_such_server_is_told() -> Outcome {
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
