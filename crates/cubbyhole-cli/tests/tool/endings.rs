//! Commands that are interrupted: signals, deadlines, closed pipes and full disks.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::support::{PipedImport, Ran, Sandbox, TIMEOUTS, line};

/// Writes lines of three batches that are stored, and of four batches that stay open.
fn feed_three_batches_and_a_half(piped: &mut PipedImport) {
    assert!(stores_three_batches(piped));
}

/// Returns whether the import stored the three batches before it ended.
fn stores_three_batches(piped: &mut PipedImport) -> bool {
    for namespace in ["n1", "n2", "n3"] {
        // A repeated key ends the batch.
        let lines = [line(namespace, "a", "1"), line(namespace, "b", "2")].concat();
        piped.feed(&[lines, line(namespace, "a", "3")].concat());
    }
    piped.feed(&line("n4", "a", "1"));
    let mut reported: Vec<String> = (0..3).map(|_| piped.report()).collect();
    reported.sort();
    reported == ["n1\t2\t1\t2\n", "n2\t2\t4\t5\n", "n3\t2\t7\t8\n"]
}

#[cfg(unix)]
#[test]
fn signal_leaves_complete_batches_and_reports_their_number() {
    let hang_up = cfg!(target_os = "linux").then_some(("HUP", 129));
    for (signal, code) in [("INT", 130), ("TERM", 143)].into_iter().chain(hang_up) {
        let sandbox = Sandbox::new();
        let mut piped = PipedImport::start(&sandbox, &[]);
        feed_three_batches_and_a_half(&mut piped);
        piped.signal(signal);
        let ran = piped.end();
        assert_eq!(ran.code, code, "{ran:?}");
        assert_eq!(ran.stderr, "cubbyhole: interrupted after 6 entries stored\n");
        for namespace in ["n1", "n2", "n3"] {
            assert_eq!(sandbox.ok(&["list", namespace, "--values"]), "a\t1\nb\t2\n");
        }
        assert_eq!(sandbox.ok(&["list", "n4"]), "");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn signal_ignored_at_start_stays_ignored() {
    for signal in ["HUP", "INT", "TERM"] {
        let sandbox = Sandbox::new();
        // Like `nohup`, or a script that starts a command in the background.
        let script = format!("trap '' {signal}; exec \"$0\" \"$@\"");
        let mut piped = PipedImport::of(sandbox.in_shell(&script, &["import", "--report-batches"]));
        feed_three_batches_and_a_half(&mut piped);
        piped.signal(signal);
        piped.signal(signal);
        for key in ["b", "c", "d"] {
            piped.feed(&[line("n5", key, "1"), line("n5", key, "2")].concat());
            assert!(piped.report().starts_with("n5\t"));
        }
        drop(piped.child.stdin.take());
        let ran = piped.end();
        assert_eq!(ran.code, 0, "{ran:?}");
    }
}

#[cfg(unix)]
#[test]
fn signal_ends_the_wait_for_input() {
    let sandbox = Sandbox::new();
    let mut piped = PipedImport::start(&sandbox, &["--json"]);
    piped.feed(&[line("a", "k", "1"), line("a", "k", "2")].concat());
    let expected = "{\"namespace\":[\"a\"],\"entries\":1,\"first_line\":1,\"last_line\":1}\n";
    assert_eq!(piped.report(), expected);
    piped.signal("INT");
    let ran = piped.end();
    assert_eq!((ran.code, ran.error_kind()), (130, "cancelled".to_owned()));
}

#[test]
fn deadline_ends_a_command_with_exit_code_4() {
    let (sandbox, ran) = TIMEOUTS
        .into_iter()
        .find_map(|timeout| {
            let sandbox = Sandbox::new();
            let timeout = format!("{}s", timeout.as_secs());
            let mut piped = PipedImport::start(&sandbox, &["--timeout", &timeout]);
            let in_time = stores_three_batches(&mut piped);
            let ran = piped.end();
            assert_eq!(ran.code, 4, "{ran:?}");
            in_time.then_some((sandbox, ran))
        })
        .unwrap();
    assert_eq!(ran.stderr, "cubbyhole: the deadline passed after 6 entries stored\n");
    sandbox.fails(4, &["list", "n1", "--timeout", "1ns"]);
    let ran = sandbox.run(&["usage", "n1", "--timeout", "1ns", "--json"]);
    assert_eq!((ran.code, ran.error_kind()), (4, "deadline_exceeded".to_owned()));
}

#[test]
fn deadline_ends_the_wait_for_standard_input() {
    let sandbox = Sandbox::new();
    let child = sandbox
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
    assert_eq!(sandbox.files(), [""; 0]);
}

#[test]
fn closed_pipe_ends_a_command_silently() {
    let sandbox = Sandbox::new();
    let key = "k".repeat(200);
    let input: String = (0..3000).map(|n| line("a", &format!("{n:04}{key}"), "1")).collect();
    assert_eq!(sandbox.run_reading(&["import"], input.as_bytes()).code, 0);
    for arguments in [&["list", "a"][..], &["export", "--all"], &["list", "a", "--json"]] {
        let mut child = sandbox
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::with_capacity(512, child.stdout.take().unwrap());
        let mut first = String::new();
        // Skip the header of an export.
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
fn full_disk_for_stdout_is_an_error() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "v"]);
    for arguments in [&["get", "acme", "k"][..], &["export", "acme"], &["usage", "acme"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ran = Ran::of(sandbox.command(arguments).stdout(full).output().unwrap());
        assert_eq!(ran.code, 6, "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains("cannot write to standard output"), "{ran:?}");
    }
}

#[test]
fn store_open_in_another_process_is_unavailable() {
    let sandbox = Sandbox::new();
    let mut piped = PipedImport::start(&sandbox, &[]);
    feed_three_batches_and_a_half(&mut piped);
    let message = sandbox.fails(5, &["list", "n1"]);
    assert!(message.contains("open in another process"), "{message}");
    assert!(!message.contains("--store"), "{message}");
    // The end of the input completes the open batches.
    drop(piped.child.stdin.take());
    let mut reported: Vec<String> = (0..4).map(|_| piped.report()).collect();
    reported.sort();
    assert_eq!(reported, ["n1\t1\t3\t3\n", "n2\t1\t6\t6\n", "n3\t1\t9\t9\n", "n4\t1\t10\t10\n"]);
    assert_eq!(piped.end().code, 0);
    assert_eq!(sandbox.ok(&["list", "n4"]), "a\n");
}

#[cfg(unix)]
#[test]
fn blocked_stdout_does_not_keep_a_command_running() {
    let sandbox = Sandbox::new();
    let key = "k".repeat(200);
    let input: String = (0..3000).map(|n| line("a", &format!("{n:04}{key}"), "1")).collect();
    assert_eq!(sandbox.run_reading(&["import"], input.as_bytes()).code, 0);
    for (timeout, code) in [("1m", 143), ("1s", 4)] {
        let mut child = sandbox
            .command(&["list", "a", "--timeout", timeout])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take();
        if code == 143 {
            // After one byte, the command is writing. The rest fills the pipe.
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
fn take_reports_a_value_that_cannot_be_written() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "value"]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ran = Ran::of(sandbox.command(&["take", "acme", "k"]).stdout(full).output().unwrap());
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(ran.stderr.contains("`k` in acme was taken, which deleted it"), "{ran:?}");
    assert!(ran.stderr.contains("5 bytes"), "{ran:?}");
}

#[test]
fn interrupted_erasure_reports_the_exact_number_of_entries() {
    let sandbox = Sandbox::new();
    let input: String = (0..20_000).map(|n| line("a", &format!("{n:05}"), "1")).collect();
    assert_eq!(sandbox.run_reading(&["import"], input.as_bytes()).code, 0);
    let entries = || sandbox.json(&["usage", "a", "--depth", "0"])[0]["entries"].as_u64().unwrap();
    let mut before = entries();
    // The deadline may pass before the store is open, in a step, between steps or at the end.
    for timeout in [5, 20, 30, 40, 50, 60, 80, 100, 150, 200].map(|millis| format!("{millis}ms")) {
        let ran = sandbox.run(&["erase", "a", "--yes", "--json", "--timeout", &timeout]);
        let reported = match serde_json::from_slice::<serde_json::Value>(&ran.stdout) {
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
}

#[cfg(unix)]
#[test]
fn closed_stdout_is_an_error_if_data_is_written() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["put", "acme", "k", "value"]);
    sandbox.configure("[profiles.p]\nstore = \"redb:p.redb\"\n");
    let ran = |redirected: &str, arguments: &[&str]| {
        let script = format!("exec \"$0\" \"$@\" {redirected}");
        Ran::of(sandbox.in_shell(&script, arguments).output().unwrap())
    };
    // A stream that is not open for writing counts as closed.
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
            let message = "cannot write to standard output: it is closed";
            assert!(ran.stderr.contains(message), "{redirected} {arguments:?}: {ran:?}");
        }
        // Commands without data do not need stdout.
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
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "value");
    // /dev/null discards data without an error, in both modes.
    for redirected in [">/dev/null", "1<>/dev/null"] {
        let ran = ran(redirected, &["get", "acme", "k"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{redirected}");
    }
}

#[cfg(unix)]
#[test]
fn closed_stdin_is_an_error_if_it_is_read() {
    let sandbox = Sandbox::new();
    for redirected in ["<&-", "0>/dev/null", "<&- >&-"] {
        let script = format!("exec \"$0\" \"$@\" {redirected}");
        for arguments in [&["put", "acme", "k"][..], &["import"], &["put", "a", "k", "--file", "-"]]
        {
            let ran = Ran::of(sandbox.in_shell(&script, arguments).output().unwrap());
            assert_eq!(ran.code, 6, "{redirected} {arguments:?}: {ran:?}");
            assert!(ran.stderr.contains("cannot read standard input: it is closed"), "{ran:?}");
        }
    }
    // No store was created.
    assert_eq!(sandbox.files(), [""; 0]);
}
