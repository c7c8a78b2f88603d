//! Processes, folders and ports, for the tests of all servers.

use std::env;
use std::fs::{self, DirBuilder, Permissions};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Polls for at most a minute.
#[expect(clippy::disallowed_methods, reason = "nothing notifies the test when a process ends")]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let mut attempts = 600;
    while !holds() {
        assert!(attempts > 0, "not within a minute: {what}");
        attempts -= 1;
        thread::sleep(Duration::from_millis(100));
    }
}

/// Runs the shell's `kill`. The signal 0 only checks that the process exists.
pub(crate) fn kill(signal: &str, pid: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "kill -s \"$1\" -- \"$2\"", "sh", signal, pid]).stderr(Stdio::null());
    command.status().unwrap().success()
}

pub(crate) fn connects(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Set for a process that owns a server and is killed by the test.
pub(crate) const ROLE: &str = "CUBBYHOLE_TEST_SERVERS_OWNER";

/// Starts this test program again, as one that starts a server and waits to be killed. Its temporary
/// folder is `place`, and it has its own process group.
pub(crate) fn owner(test: &str, place: &Path) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([test, "--exact"]).env(ROLE, "1").env("TMPDIR", place);
    // A setting of the developer that would break the server.
    command.env("PGOPTIONS", "--no-such-setting=1");
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Creates a new folder, even if an earlier process with the same pid left one behind.
pub(crate) fn place(name: &str) -> PathBuf {
    let candidate =
        |n: u32| env::temp_dir().join(format!("cubbyhole-{name}-{}-{n}", std::process::id()));
    let create = |path: &PathBuf| DirBuilder::new().create(path).is_ok();
    let path = (0..100).map(candidate).find(create).unwrap();
    // The server may run as another user.
    fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
    path
}

pub(crate) fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

/// Returns whether the command line of a process contains `path`.
pub(crate) fn is_named_by_a_process(path: &Path) -> bool {
    let output = Command::new("ps").args(["-A", "-o", "args="]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).contains(path.to_str().unwrap())
}
