//! How a command ends that does not come to its end: signals, deadlines, closed pipes, full disks.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::support::{Feeding, Place, Ran, TIMEOUTS, line};

/// Three batches that are stored, and the beginnings of four that are still open.
fn feed_three_and_a_half(feeding: &mut Feeding) {
    assert!(stores_three_of_three_and_a_half(feeding));
}

/// Whether the import stored the three before it ended.
fn stores_three_of_three_and_a_half(feeding: &mut Feeding) -> bool {
    for namespace in ["n1", "n2", "n3"] {
        // A key that comes again ends the batch.
        let lines = [line(namespace, "a", "1"), line(namespace, "b", "2")].concat();
        feeding.feed(&[lines, line(namespace, "a", "3")].concat());
    }
    feeding.feed(&line("n4", "a", "1"));
    let mut reported: Vec<String> = (0..3).map(|_| feeding.report()).collect();
    reported.sort();
    reported == ["n1\t2\t1\t2\n", "n2\t2\t4\t5\n", "n3\t2\t7\t8\n"]
}

#[cfg(unix)]
#[test]
fn a_signal_leaves_whole_batches_and_says_how_many() {
    let hang_up = cfg!(target_os = "linux").then_some(("HUP", 129));
    for (signal, code) in [("INT", 130), ("TERM", 143)].into_iter().chain(hang_up) {
        let place = Place::new();
        let mut feeding = Feeding::start(&place, &[]);
        feed_three_and_a_half(&mut feeding);
        feeding.signal(signal);
        let ran = feeding.end();
        assert_eq!(ran.code, code, "{ran:?}");
        assert_eq!(ran.stderr, "cubbyhole: interrupted after 6 entries stored\n");
        for namespace in ["n1", "n2", "n3"] {
            assert_eq!(place.ok(&["list", namespace, "--values"]), "a\t1\nb\t2\n");
        }
        assert_eq!(place.ok(&["list", "n4"]), "");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn signal_ignored_at_start_stays_ignored() {
    for signal in ["HUP", "INT", "TERM"] {
        let place = Place::new();
        // As `nohup` does, and a script for a command in the background.
        let script = format!("trap '' {signal}; exec \"$0\" \"$@\"");
        let mut feeding = Feeding::of(place.in_shell(&script, &["import", "--report-batches"]));
        feed_three_and_a_half(&mut feeding);
        feeding.signal(signal);
        feeding.signal(signal);
        for key in ["b", "c", "d"] {
            feeding.feed(&[line("n5", key, "1"), line("n5", key, "2")].concat());
            assert!(feeding.report().starts_with("n5\t"));
        }
        drop(feeding.child.stdin.take());
        let ran = feeding.end();
        assert_eq!(ran.code, 0, "{ran:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_signal_ends_the_wait_for_a_value() {
    let place = Place::new();
    let mut feeding = Feeding::start(&place, &["--json"]);
    feeding.feed(&[line("a", "k", "1"), line("a", "k", "2")].concat());
    let expected = "{\"namespace\":[\"a\"],\"entries\":1,\"first_line\":1,\"last_line\":1}\n";
    assert_eq!(feeding.report(), expected);
    feeding.signal("INT");
    let ran = feeding.end();
    assert_eq!((ran.code, ran.error_kind()), (130, "cancelled".to_owned()));
}

#[test]
fn a_deadline_ends_a_command_as_code_4() {
    let (place, ran) = TIMEOUTS
        .into_iter()
        .find_map(|timeout| {
            let place = Place::new();
            let timeout = format!("{}s", timeout.as_secs());
            let mut feeding = Feeding::start(&place, &["--timeout", &timeout]);
            let in_time = stores_three_of_three_and_a_half(&mut feeding);
            let ran = feeding.end();
            assert_eq!(ran.code, 4, "{ran:?}");
            in_time.then_some((place, ran))
        })
        .unwrap();
    assert_eq!(ran.stderr, "cubbyhole: the deadline passed after 6 entries stored\n");
    place.fails(4, &["list", "n1", "--timeout", "1ns"]);
    let ran = place.run(&["usage", "n1", "--timeout", "1ns", "--json"]);
    assert_eq!((ran.code, ran.error_kind()), (4, "deadline_exceeded".to_owned()));
}

#[test]
fn a_deadline_ends_the_wait_for_standard_input() {
    let place = Place::new();
    let child = place
        .command(&["put", "acme", "k", "--timeout", "100ms"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let stdin = child.stdin.take();
    let ran = Ran::of(child.wait_with_output().unwrap());
    drop(stdin);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let place = Place::new();
    let key = "k".repeat(200);
    let input: String = (0..3000).map(|n| line("a", &format!("{n:04}{key}"), "1")).collect();
    assert_eq!(place.run_reading(&["import"], input.as_bytes()).code, 0);
    for arguments in [&["list", "a"][..], &["export", "--all"], &["list", "a", "--json"]] {
        let mut child =
            place.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::with_capacity(512, child.stdout.take().unwrap());
        let mut first = String::new();
        // An export has a header.
        while first.lines().last().is_none_or(|line| line.contains("\"format\"")) {
            stdout.read_line(&mut first).unwrap();
        }
        assert!(first.contains("0000kkk"), "{first}");
        drop(stdout);
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let place = Place::new();
    place.ok(&["put", "acme", "k", "v"]);
    for arguments in [&["get", "acme", "k"][..], &["export", "acme"], &["usage", "acme"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ran = Ran::of(place.command(arguments).stdout(full).output().unwrap());
        assert_eq!(ran.code, 6, "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains("standard output could not be written"), "{ran:?}");
    }
}

#[test]
fn a_store_that_is_open_elsewhere_is_unavailable() {
    let place = Place::new();
    let mut feeding = Feeding::start(&place, &[]);
    feed_three_and_a_half(&mut feeding);
    let message = place.fails(5, &["list", "n1"]);
    assert!(message.contains("open in another process"), "{message}");
    assert!(!message.contains("--store"), "{message}");
    // The end of the input closes the last batches.
    drop(feeding.child.stdin.take());
    let mut reported: Vec<String> = (0..4).map(|_| feeding.report()).collect();
    reported.sort();
    assert_eq!(reported, ["n1\t1\t3\t3\n", "n2\t1\t6\t6\n", "n3\t1\t9\t9\n", "n4\t1\t10\t10\n"]);
    assert_eq!(feeding.end().code, 0);
    assert_eq!(place.ok(&["list", "n4"]), "a\n");
}

#[cfg(unix)]
#[test]
fn a_pipe_that_nobody_reads_keeps_no_command() {
    let place = Place::new();
    let key = "k".repeat(200);
    let input: String = (0..3000).map(|n| line("a", &format!("{n:04}{key}"), "1")).collect();
    assert_eq!(place.run_reading(&["import"], input.as_bytes()).code, 0);
    for (timeout, code) in [("1m", 143), ("1s", 4)] {
        let mut child = place
            .command(&["list", "a", "--timeout", timeout])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take();
        if code == 143 {
            // One byte shows that it writes; the rest fills the pipe.
            let reader = stdout.as_mut().unwrap();
            reader.read_exact(&mut [0]).unwrap();
            let kill = format!("sleep 1; kill -TERM {}", child.id());
            assert!(
                std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success()
            );
        }
        let started = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let ran = Ran::of(child.wait_with_output().unwrap());
        let took = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap() - started;
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(took.as_secs() < 10, "{took:?}");
        assert!(ran.stderr.lines().count() == 1 && !ran.stderr.contains("may have"), "{ran:?}");
        drop(stdout);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_taken_value_that_cannot_be_written_is_told_of() {
    let place = Place::new();
    place.ok(&["put", "acme", "k", "value"]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ran = Ran::of(place.command(&["take", "acme", "k"]).stdout(full).output().unwrap());
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(ran.stderr.contains("`k` in acme was taken, which deleted it"), "{ran:?}");
    assert!(ran.stderr.contains("5 bytes"), "{ran:?}");
}

#[test]
fn an_erasure_that_is_cut_short_tells_exactly_what_is_gone() {
    let place = Place::new();
    let input: String = (0..20_000).map(|n| line("a", &format!("{n:05}"), "1")).collect();
    assert_eq!(place.run_reading(&["import"], input.as_bytes()).code, 0);
    let entries = || place.json(&["usage", "a", "--depth", "0"])[0]["entries"].as_u64().unwrap();
    let mut before = entries();
    // Wherever the deadline falls: before the store is open, in a step, between two, at the end.
    for timeout in [5, 20, 30, 40, 50, 60, 80, 100, 150, 200].map(|millis| format!("{millis}ms")) {
        let ran = place.run(&["erase", "a", "--yes", "--json", "--timeout", &timeout]);
        let told = match serde_json::from_slice::<serde_json::Value>(&ran.stdout) {
            Ok(record) => record["removed"].as_u64().unwrap(),
            Err(_) => {
                assert_eq!((ran.code, ran.error_kind()), (4, "deadline_exceeded".to_owned()));
                let (_, after) = ran.stderr.split_once(" after ").unwrap_or(("", "0 "));
                after.split(' ').next().unwrap().parse().unwrap()
            }
        };
        let left = entries();
        assert_eq!(before - left, told, "{timeout}: {ran:?}");
        before = left;
    }
}

#[cfg(unix)]
#[test]
fn closed_stdout_is_an_error_where_data_was_to_be_written() {
    let place = Place::new();
    place.ok(&["put", "acme", "k", "value"]);
    place.configure("[profiles.p]\nstore = \"redb:p.redb\"\n");
    let ran = |redirected: &str, arguments: &[&str]| {
        let script = format!("exec \"$0\" \"$@\" {redirected}");
        Ran::of(place.in_shell(&script, arguments).output().unwrap())
    };
    // Not open for writing is as good as closed.
    for redirected in [">&-", "1</dev/null", "<&- >&-"] {
        for arguments in [
            &["get", "acme", "k"][..],
            &["get", "acme", "k", "--json"],
            &["take", "acme", "k"],
            &["list", "acme"],
            &["tenants"],
            &["namespaces", "acme"],
            &["usage", "acme"],
            &["export", "acme"],
            &["export", "acme", "out.jsonl", "--json"],
            &["erase", "acme", "--yes", "--json"],
            &["doctor"],
            &["completions", "bash"],
            &["completions", "elvish"],
            &["config", "show"],
            &["put", "acme", "other", "v", "--json"],
            &["--help"],
            &["get", "--help"],
            &["--version"],
        ] {
            let ran = ran(redirected, arguments);
            assert_eq!(ran.code, 6, "{redirected} {arguments:?}: {ran:?}");
            let told = ran.stderr.contains("standard output could not be written: it is closed");
            assert!(told, "{redirected} {arguments:?}: {ran:?}");
        }
        // What writes no data needs no stdout.
        for arguments in [
            &["put", "acme", "k", "value"][..],
            &["export", "acme", "out.jsonl"],
            &["touch", "acme", "k", "--persist"],
        ] {
            let ran = ran(redirected, arguments);
            assert_eq!(ran.code, 0, "{redirected} {arguments:?}: {ran:?}");
        }
    }
    // Nothing was taken or erased.
    assert_eq!(place.ok(&["get", "acme", "k"]), "value");
    // /dev/null is a way to ask for no data, in either mode.
    for redirected in [">/dev/null", "1<>/dev/null"] {
        let ran = ran(redirected, &["get", "acme", "k"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{redirected}");
    }
}

#[cfg(unix)]
#[test]
fn closed_stdin_is_an_error_where_it_is_to_be_read() {
    let place = Place::new();
    for redirected in ["<&-", "0>/dev/null", "<&- >&-"] {
        let script = format!("exec \"$0\" \"$@\" {redirected}");
        for arguments in [&["put", "acme", "k"][..], &["import"], &["put", "a", "k", "--file", "-"]]
        {
            let ran = Ran::of(place.in_shell(&script, arguments).output().unwrap());
            assert_eq!(ran.code, 6, "{redirected} {arguments:?}: {ran:?}");
            assert!(ran.stderr.contains("cannot read standard input: it is closed"), "{ran:?}");
        }
    }
    // No store was created.
    assert_eq!(place.files(), [""; 0]);
}
