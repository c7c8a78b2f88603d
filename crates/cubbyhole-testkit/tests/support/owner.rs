//! Checks of what is left of a server after its owner or the server itself was disturbed.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::support::{connects, eventually, is_empty, is_named_by_a_process, kill, owner, place};

/// Prints the pid and port of a server, and waits until the other end of stdin is closed.
pub(crate) fn run_as_owner(pid: &str, port: u16) {
    let mut stdout = io::stdout();
    writeln!(stdout, "\nserver {pid} {port}").unwrap();
    drop(io::read_to_string(io::stdin()));
}

/// Kills owners of a server with these signals, each sent to the owner only or to its group, and
/// checks that the server and its folder are gone.
pub(crate) fn check_server_ends_with_owner(test: &str, name: &str, signals: &[(&str, bool)]) {
    for (signal, whole_group) in signals {
        let place = place(name);
        let mut owner = owner(test, &place);
        let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
        let line = lines.map_while(Result::ok).find(|line| line.starts_with("server ")).unwrap();
        let (pid, port) = line["server ".len()..].split_once(' ').unwrap();
        assert!(kill("0", pid) && connects(port.parse().unwrap()) && !is_empty(&place));

        let group = if *whole_group { "-" } else { "" };
        assert!(kill(signal, &format!("{group}{}", owner.id())));
        assert!(!owner.wait().unwrap().success());
        eventually("the server is gone", || !kill("0", pid));
        eventually("the folder is gone", || is_empty(&place));
        assert!(!connects(port.parse().unwrap()));
        fs::remove_dir(&place).unwrap();
    }
}

/// Kills owners that start a server, when these files of its folder exist, and checks that no process
/// and no file is left.
pub(crate) fn check_killed_start_leaves_nothing(test: &str, name: &str, files: &[&str]) {
    for file in files {
        let place = place(name);
        let mut owner = owner(test, &place);
        let mut folder = PathBuf::new();
        eventually(file, || {
            let entry = fs::read_dir(&place).unwrap().flatten().next();
            folder = entry.map(|entry| entry.path()).unwrap_or_default();
            folder.join(file).exists()
        });
        owner.kill().unwrap();
        owner.wait().unwrap();
        eventually("the folder is gone", || is_empty(&place));
        eventually("no process is left", || !is_named_by_a_process(&place));
        assert!(is_empty(&place), "the folder came back");
        fs::remove_dir(&place).unwrap();
    }
}

/// Checks that `ask` gets no answer from a paused server before `resume`.
pub(crate) fn check_answers_after_resume(
    ask: impl FnOnce() -> Result<String, String> + Send,
    resume: impl FnOnce() -> Result<(), String>,
    answer: &str,
) {
    thread::scope(|scope| {
        let (send, answers) = std::sync::mpsc::channel();
        scope.spawn(move || send.send(ask()).unwrap());
        let early = answers.recv_timeout(Duration::from_millis(700));
        assert!(early.is_err(), "{early:?}");
        resume().unwrap();
        assert_eq!(answers.recv().unwrap().unwrap(), answer);
    });
}
