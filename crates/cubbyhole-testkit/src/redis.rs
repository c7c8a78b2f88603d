//! A private Redis server.

mod client;
mod clock;
mod cluster;
mod programs;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::disk::Disk;
use crate::process::folder::Folder;
use crate::process::port;
use crate::process::preload::variables;
use crate::process::table::{Process, children, last_lines, none_runs, signal};
use crate::process::wait;
use crate::process::watcher::Watcher;

use client::{Client, Reply};
use clock::Clock;
pub use cluster::RedisCluster;

/// How long a server may take to start or to stop on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// How long what stands in the way of a start may take to go: whoever took the port.
const OBSTACLE_LIMIT: Duration = Duration::from_secs(15);

/// The tools of Redis take settings from variables that begin so.
const VARIABLES: &str = "REDIS";

/// Of two lines for one setting the later one counts: what a test sets overrules these.
const SETTINGS: &str = "\
bind 127.0.0.1
protected-mode yes
appendonly yes
appendfsync everysec
save \"\"
maxmemory-policy noeviction
repl-diskless-sync-delay 0
shutdown-timeout 0
";

/// What this crate relies on: the log tells when the server is ready, or why it is not.
const FIXED_SETTINGS: &str = "\
daemonize no
logfile \"\"
loglevel notice
";

/// What a node of a cluster has besides.
const NODE_SETTINGS: &str = "\
cluster-enabled yes
cluster-config-file nodes.conf
";

/// A Redis server of one test's own, on loopback alone and without a password; dropping it kills
/// it and removes its data.
///
/// The program is `redis-server` on `PATH`; missing, it is installed where the tests run as root
/// on a system with `apt-get`. Under root the server runs as the user `postgres` or `nobody`.
pub struct RedisServer {
    program: PathBuf,
    port: u16,
    /// Where other nodes of a cluster reach this one; 0 where it is in none.
    bus_port: u16,
    url: String,
    clock: Option<Arc<Clock>>,
    disk: Option<Disk>,
    is_halted: AtomicBool,
    /// Before the folder: dropping it ends the server.
    watcher: Watcher,
    folder: Folder,
}

/// What is decided about a server before it starts.
struct Plan<'a> {
    lines: &'a [&'a str],
    time: Time,
    has_disk: bool,
    is_node: bool,
}

/// What a server takes its time from.
enum Time {
    System,
    /// A clock that is made for it.
    Own,
    /// The clock of another node.
    Shared(Arc<Clock>),
}

impl RedisServer {
    /// Starts a server that logs each write to a file, evicts nothing, and flushes the file every
    /// second.
    ///
    /// # Errors
    ///
    /// What to install, or the end of the server's log.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&[])
    }

    /// [`start`](Self::start) with lines of `redis.conf` that overrule those for tests, such as
    /// `"appendfsync always"`.
    ///
    /// # Errors
    ///
    /// What to install, or the end of the server's log; a line that the server does not
    /// understand is in that.
    pub fn start_with(lines: &[&str]) -> Result<Self, String> {
        Self::start_as(Plan { lines, time: Time::System, has_disk: false, is_node: false })
    }

    /// [`start_with`](Self::start_with) with a [disk](Self::disk) that fails when a test says so.
    /// Linux alone.
    ///
    /// # Errors
    ///
    /// As those of [`start_with`](Self::start_with).
    pub fn start_with_disk(lines: &[&str]) -> Result<Self, String> {
        Self::start_as(Plan { lines, time: Time::System, has_disk: true, is_node: false })
    }

    /// [`start`](Self::start) with a clock that stands still until [`advance`](Self::advance)
    /// moves it: keys expire by it, and `TIME` says it. It begins at the present. Linux alone.
    ///
    /// # Errors
    ///
    /// What to install, or the end of the server's log.
    pub fn start_with_clock() -> Result<Self, String> {
        Self::start_as(Plan { lines: &[], time: Time::Own, has_disk: false, is_node: false })
    }

    fn start_as(plan: Plan<'_>) -> Result<Self, String> {
        Self::start_on(plan, port::free_ports)
    }

    fn start_on(
        plan: Plan<'_>,
        mut next_ports: impl FnMut() -> Result<[u16; 2], String>,
    ) -> Result<Self, String> {
        let program = programs::server()?;
        let folder = Folder::create()?;
        // Nothing runs yet, but from here on the folder is watched over.
        let nothing = ["-c".into(), ":".into()];
        let watcher =
            Watcher::start(&folder, &log_file(&folder), "sh".as_ref(), &nothing, VARIABLES)?;
        let clock = match plan.time {
            Time::System => None,
            Time::Own => Some(Arc::new(Clock::create(&folder)?)),
            Time::Shared(clock) => Some(clock),
        };
        let disk = if plan.has_disk { Some(Disk::create(&folder)?) } else { None };
        let data = folder.create_folder("data")?;
        let dir = format!("dir {}\n", quoted(&data.to_string_lossy()));
        let node_settings = if plan.is_node { NODE_SETTINGS } else { "" };
        let lines: String = plan.lines.iter().map(|line| format!("{line}\n")).collect();
        let settings = [SETTINGS, node_settings, &lines, FIXED_SETTINGS, &dir].concat();
        folder.write("redis.conf", settings)?;
        let mut server = Self {
            program,
            port: 0,
            bus_port: 0,
            url: String::new(),
            clock,
            disk,
            is_halted: AtomicBool::new(false),
            watcher,
            folder,
        };
        let mut attempt = 1;
        loop {
            let [port, bus_port] = next_ports()?;
            server.port = port;
            server.bus_port = if plan.is_node { bus_port } else { 0 };
            server.url = format!("redis://127.0.0.1:{port}");
            match server.launch() {
                Err(log) if is_port_taken(&log) && attempt < port::ATTEMPTS => attempt += 1,
                result => return result.map(|()| server),
            }
        }
    }

    /// `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port on 127.0.0.1; it stays the same over [`start_again`](Self::start_again).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the server answers to one command, on a connection of its own, as
    /// `redis-cli --raw` prints it: nothing for nil, the parts of a list on lines of their own.
    ///
    /// # Errors
    ///
    /// The server's error, or that it did not answer within five seconds.
    pub fn cli(&self, command: &[&str]) -> Result<String, String> {
        self.call(command).map(Reply::into_text)
    }

    fn call<T: AsRef<[u8]>>(&self, command: &[T]) -> Result<Reply, String> {
        Client::connect(self.port)?.call(command)
    }

    /// Moves the clock of a server that was started with one.
    ///
    /// # Errors
    ///
    /// The server lives by the system's clock.
    pub fn advance(&self, by: Duration) -> Result<(), String> {
        self.clock()?.advance(by)
    }

    /// The time since 1970 by the clock of a server that was started with one.
    ///
    /// # Errors
    ///
    /// The server lives by the system's clock.
    pub fn now(&self) -> Result<Duration, String> {
        Ok(self.clock()?.now())
    }

    fn clock(&self) -> Result<&Arc<Clock>, String> {
        self.clock.as_ref().ok_or_else(|| "this Redis lives by the system's clock".to_owned())
    }

    /// The disk of a server that was started with one; its log of writes is in `/data/`.
    ///
    /// # Errors
    ///
    /// The server has the system's disk.
    pub fn disk(&self) -> Result<&Disk, String> {
        self.disk.as_ref().ok_or_else(|| "this Redis has the system's disk".to_owned())
    }

    /// Waits until the server has ended by itself.
    ///
    /// # Errors
    ///
    /// It still runs after a minute; the end of its log.
    pub fn await_end(&mut self) -> Result<(), String> {
        if !wait::until(LIMIT, || Ok(self.watcher.program()?.is_none()))? {
            return Err(self.complaint("did not end by itself", &self.log_from(0)));
        }
        self.watcher.end().map(drop)
    }

    /// Stops the server in order: what it has logged is on disk. Does nothing where it does not
    /// run.
    ///
    /// # Errors
    ///
    /// The server did not end in time; the end of its log.
    pub fn stop(&mut self) -> Result<(), String> {
        if let Some(server) = self.watcher.program()? {
            self.resume()?;
            signal("TERM", std::slice::from_ref(&server))?;
            if !wait::until(LIMIT, || Ok(!server.is_running()?))? {
                return Err(self.complaint("did not stop", &self.log_from(0)));
            }
        }
        self.watcher.end().map(drop)
    }

    /// Ends the server with `kill -9`, and what it has forked. Does nothing where it does not run.
    ///
    /// # Errors
    ///
    /// A process did not end in time.
    pub fn kill(&mut self) -> Result<(), String> {
        if let Some(server) = self.watcher.program()? {
            let processes = self.halt(server)?;
            signal("KILL", &processes)?;
            if !wait::until(LIMIT, || none_runs(&processes))? {
                return Err("processes of Redis did not end after `kill -9`".to_owned());
            }
        }
        self.watcher.end().map(drop)
    }

    /// Starts the server again after [`stop`](Self::stop) or [`kill`](Self::kill), on the same
    /// port, data and clock, and waits until it accepts connections. Does nothing where it runs.
    ///
    /// # Errors
    ///
    /// The end of the server's log.
    pub fn start_again(&mut self) -> Result<(), String> {
        if self.watcher.program()?.is_some() {
            return Ok(());
        }
        let mut result = Ok(());
        wait::until(OBSTACLE_LIMIT, || {
            result = self.launch();
            Ok(result.as_ref().err().is_none_or(|log| !is_port_taken(log)))
        })?;
        result
    }

    /// Halts the server, as a machine does that hangs: connections stay open and nothing answers.
    ///
    /// # Errors
    ///
    /// The server does not run.
    pub fn pause(&self) -> Result<(), String> {
        let server = self.watcher.program()?.ok_or("Redis does not run")?;
        self.halt(server).map(drop)
    }

    /// Halts `server` and what it has forked; all of these, the server last.
    fn halt(&self, server: Process) -> Result<Vec<Process>, String> {
        self.is_halted.store(true, Ordering::Relaxed);
        // First, so that no process is started after the list was made.
        signal("STOP", std::slice::from_ref(&server))?;
        let mut processes = children(server.pid)?;
        signal("STOP", &processes)?;
        processes.push(server);
        Ok(processes)
    }

    /// Lets the server go on after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// The server does not run.
    pub fn resume(&self) -> Result<(), String> {
        let server = self.watcher.program()?.ok_or("Redis does not run")?;
        signal("CONT", &children(server.pid)?)?;
        signal("CONT", &[server])?;
        self.is_halted.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Whether there is somebody to answer.
    fn answers(&self) -> bool {
        !self.is_halted.load(Ordering::Relaxed) && matches!(self.watcher.program(), Ok(Some(_)))
    }

    /// Starts the server on its ports and waits until it accepts connections.
    fn launch(&mut self) -> Result<(), String> {
        self.watcher.end()?;
        let seen = self.log_from(0).len();
        // The pid remains the server's: `env` becomes it.
        let mut arguments: Vec<OsString> = Vec::new();
        let clock = self.clock.iter().map(|clock| clock.preload());
        arguments.extend(variables(clock.chain(self.disk.iter().map(Disk::preload))));
        arguments.extend([
            self.program.as_os_str().into(),
            self.folder.path().join("redis.conf").into(),
        ]);
        arguments.extend(["--port".into(), self.port.to_string().into()]);
        if self.bus_port != 0 {
            arguments.extend(["--cluster-port".into(), self.bus_port.to_string().into()]);
        }
        let log = log_file(&self.folder);
        let watcher = Watcher::start(&self.folder, &log, "env".as_ref(), &arguments, VARIABLES)?;
        std::mem::replace(&mut self.watcher, watcher).release()?;
        self.is_halted.store(false, Ordering::Relaxed);

        let mut is_ready = false;
        let in_time = wait::until(LIMIT, || {
            let ended = self.watcher.program()?.is_none();
            // The log and not the port, which another server may have taken.
            is_ready = self.log_from(seen).contains("Ready to accept connections");
            Ok(is_ready || ended)
        })?;
        if is_ready {
            return self.check_clock();
        }
        self.watcher.end()?;
        let what = if in_time { "ended on starting" } else { "was not ready in time" };
        Err(self.complaint(what, &self.log_from(seen)))
    }

    /// A library that does not load is no error to the system: the server would have its clock.
    fn check_clock(&self) -> Result<(), String> {
        let Some(clock) = &self.clock else { return Ok(()) };
        let now = clock.now();
        let wanted = format!("{}\n{}", now.as_secs(), now.subsec_micros());
        let found = self.cli(&["TIME"])?;
        if found == wanted {
            return Ok(());
        }
        Err(self.complaint("does not live by the clock of the test", &self.log_from(0)))
    }

    fn log_from(&self, start: usize) -> String {
        let bytes = fs::read(log_file(&self.folder)).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
    }

    fn complaint(&self, what: &str, log: &str) -> String {
        format!("Redis, {}, {what}; its log:\n{}", self.program.display(), last_lines(log))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // The watcher asks the server to end in order, which takes it a while, for data that goes
        // away with it.
        drop(self.kill());
    }
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisServer").field("port", &self.port).finish_non_exhaustive()
    }
}

fn log_file(folder: &Folder) -> PathBuf {
    folder.path().join("log")
}

/// A word of `redis.conf`.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn is_port_taken(log: &str) -> bool {
    log.contains("Failed listening on port")
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn paths_in_settings_are_quoted() {
        assert_eq!(quoted(r#"/a "b"\c"#), r#""/a \"b\"\\c""#);
    }

    #[test]
    fn a_taken_port_is_exchanged_at_first_and_waited_for_later() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        let [a, b] = port::free_ports().unwrap();
        let mut ports = [[taken_port, a], [b, taken_port]].into_iter();
        let plan = Plan { lines: &[], time: Time::System, has_disk: false, is_node: true };
        let next = || ports.next().map_or_else(port::free_ports, Ok);
        let mut server = RedisServer::start_on(plan, next).unwrap();
        let port = server.port();
        assert!(![a, b, taken_port].contains(&port) && server.bus_port != taken_port);
        assert_eq!(server.url(), format!("redis://127.0.0.1:{port}"));

        server.stop().unwrap();
        let in_the_way = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let log = log_file(&server.folder);
        let complaints = || fs::read_to_string(&log).unwrap().matches("Failed listening").count();
        // One for each of its ports.
        assert_eq!(complaints(), 2);
        std::thread::scope(|scope| {
            let start = scope.spawn(|| server.start_again());
            assert_eq!(wait::until(LIMIT, || Ok(complaints() > 2)), Ok(true));
            drop(in_the_way);
            start.join().unwrap().unwrap();
        });
        assert_eq!(server.port(), port);
    }
}
