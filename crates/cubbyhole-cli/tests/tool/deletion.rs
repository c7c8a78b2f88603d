//! `delete --prefix`.

use serde_json::{Value, json};

use crate::support::{Sandbox, line};

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let input = [
        line("acme", "draft", "0"),
        line("acme", "draft-1", "1"),
        line("acme", "draft-2", "22"),
        line("acme", "drafts", "3"),
        line("acme", "-x", "4"),
        line("acme\",\"below", "draft-1", "5"),
    ];
    assert_eq!(sandbox.run_reading(&["import"], input.concat().as_bytes()).code, 0);
    sandbox
}

#[test]
fn delete_by_prefix_asks_first_and_keeps_other_keys() {
    let sandbox = sandbox();
    let delete = ["delete", "acme", "--prefix", "draft-"];
    let asked = sandbox.fails(2, &delete);
    let what = "2 entries (17 B) whose keys begin with `draft-` in acme";
    assert!(asked.contains(&format!("this would delete {what}")), "{asked}");
    assert!(asked.contains("--yes"), "{asked}");
    let tried = sandbox.ok(&[&delete[..], &["--dry-run", "--yes"]].concat());
    assert_eq!(tried, format!("would delete {what}\n"));
    let tried = sandbox.json(&[&delete[..], &["--dry-run"]].concat());
    let expected = json!({"namespace": ["acme"], "prefix": "draft-", "entries": 2, "bytes": 17, "dry_run": true});
    assert_eq!(tried, [expected]);
    assert_eq!(sandbox.ok(&["list", "acme"]).lines().count(), 5);

    let ran = sandbox.run(&[&delete[..], &["--yes"]].concat());
    assert_eq!((ran.code, ran.stdout.len()), (0, 0), "{ran:?}");
    let message = "deleted 2 entries whose keys begin with `draft-` in acme, from 20";
    assert!(ran.stderr.starts_with(message), "{ran:?}");
    assert!(ran.stderr.ends_with("Z; no entry is left there\n"), "{ran:?}");
    assert_eq!(sandbox.ok(&["list", "acme"]), "-x\ndraft\ndrafts\n");
    assert_eq!(sandbox.ok(&["list", "acme:below"]), "draft-1\n");
    let again = sandbox.json(&[&delete[..], &["--yes"]].concat()).remove(0);
    let names: Vec<&String> = again.as_object().unwrap().keys().collect();
    let expected = ["finished_at", "left", "namespace", "prefix", "removed", "started_at", "store"];
    assert_eq!(names, expected);
    assert_eq!((&again["removed"], &again["left"]), (&json!(0), &json!(0)));
}

#[test]
fn empty_prefix_deletes_one_namespace_and_a_dash_is_literal() {
    let sandbox = sandbox();
    let removed = |prefix| {
        sandbox.json(&["delete", "acme", "--prefix", prefix, "--yes"])[0]["removed"].clone()
    };
    assert_eq!(removed("-"), 1);
    assert_eq!(removed("*"), 0);
    assert_eq!(removed(""), 4);
    assert_eq!(sandbox.ok(&["namespaces", "acme"]), "acme:below\n");
}

#[test]
fn delete_takes_a_key_or_a_prefix() {
    let sandbox = sandbox();
    for arguments in [
        &["delete", "acme"][..],
        &["delete", "acme", "draft", "--prefix", "draft"],
        &["delete", "acme", "draft", "--yes"],
        &["delete", "acme", "draft", "--dry-run"],
        &["delete", "acme", "--prefix", "draft", "--if-present", "--yes"],
        &[
            "delete",
            "acme",
            "--prefix",
            "draft",
            "--yes",
            "--if-version",
            "01a229bd-597f-782f-b166-753cd60f9adb",
        ],
    ] {
        sandbox.fails(2, arguments);
    }
    assert_eq!(sandbox.ok(&["list", "acme"]).lines().count(), 5);
    sandbox.fails(5, &["delete", "acme", "--prefix", "d", "--yes", "--store", "redb:no.redb"]);
}

#[test]
fn interrupted_deletion_reports_the_exact_number_and_is_continued() {
    let sandbox = Sandbox::new();
    let input: String = (0..20_000).map(|n| line("a", &format!("k{n:05}"), "1")).collect();
    let input = input + &line("a", "other", "1");
    assert_eq!(sandbox.run_reading(&["import"], input.as_bytes()).code, 0);
    let entries = || sandbox.json(&["usage", "a", "--depth", "0"])[0]["entries"].as_u64().unwrap();
    let delete = ["delete", "a", "--prefix", "k", "--yes", "--json"];
    let mut before = entries();
    // The deadline may pass before the store is open, while counting, in a step or at the end.
    for timeout in [20, 40, 60, 80, 100, 150, 200, 300].map(|millis| format!("{millis}ms")) {
        let ran = sandbox.run(&[&delete[..], &["--timeout", &timeout]].concat());
        let reported = match serde_json::from_slice::<Value>(&ran.stdout) {
            Ok(record) => record["removed"].as_u64().unwrap(),
            Err(_) => {
                assert_eq!((ran.code, ran.error_kind()), (4, "deadline_exceeded".to_owned()));
                let (_, after) = ran.stderr.split_once(" after ").unwrap_or(("", "0 "));
                after.split(' ').next().unwrap().parse().unwrap()
            }
        };
        let left = entries();
        assert_eq!(before - left, reported, "{timeout}: {ran:?}");
        before = left;
    }
    let record = sandbox.json(&delete[..5]).remove(0);
    assert_eq!((&record["removed"], &record["left"]), (&json!(before - 1), &json!(0)));
    assert_eq!(sandbox.ok(&["list", "a"]), "other\n");
}
