//! What the tests of all servers ask of the system.

use std::env;
use std::fs::{self, DirBuilder, Permissions};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Asks for a minute at most.
#[expect(clippy::disallowed_methods, reason = "processes end when they do; nothing wakes us")]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let mut attempts = 600;
    while !holds() {
        assert!(attempts > 0, "not within a minute: {what}");
        attempts -= 1;
        thread::sleep(Duration::from_millis(100));
    }
}

/// `kill` of the shell: a `signal` of 0 asks whether there is such a process.
pub(crate) fn kill(signal: &str, pid: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "kill -s \"$1\" -- \"$2\"", "sh", signal, pid]).stderr(Stdio::null());
    command.status().unwrap().success()
}

pub(crate) fn connects(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Where the process that is to be killed is told what to be.
pub(crate) const ROLE: &str = "CUBBYHOLE_TEST_SERVERS_OWNER";

/// This test program again, as one that starts a server and waits to be killed; its temporary
/// folder is `place`, its process group its own.
pub(crate) fn owner(test: &str, place: &Path) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([test, "--exact"]).env(ROLE, "1").env("TMPDIR", place);
    // A setting of the developer's that would be in the way.
    command.env("PGOPTIONS", "--no-such-setting=1");
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// A new folder, also where an earlier process with the same pid left one behind.
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

/// Whether `path` is in the command line of a process.
pub(crate) fn is_named_by_a_process(path: &Path) -> bool {
    let output = Command::new("ps").args(["-A", "-o", "args="]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).contains(path.to_str().unwrap())
}
