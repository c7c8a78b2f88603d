//! A private Redis server.

mod client;
mod clock;
mod cluster;
mod programs;

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::Disk;
use crate::process::folder::Folder;
use crate::process::port;
use crate::process::preload::variables;
use crate::process::server::{
    Kind, Server, launch_on_free_ports, log_file, retry_launch, server_methods,
};
use crate::process::watcher::Watcher;

use client::{Client, Reply};
use clock::Clock;
pub use cluster::RedisCluster;

static KIND: Kind =
    Kind { name: "Redis", variables: VARIABLES, stop_signal: "TERM", is_obstacle: is_port_taken };

/// The tools of Redis read settings from variables with this prefix.
const VARIABLES: &str = "REDIS";

/// Lines of a test override these, because the last line for a setting counts.
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

/// Settings that no test overrides: the log reports whether the server is ready.
const FIXED_SETTINGS: &str = "\
daemonize no
logfile \"\"
loglevel notice
";

/// Additional settings of a cluster node.
const NODE_SETTINGS: &str = "\
cluster-enabled yes
cluster-config-file nodes.conf
";

/// A private Redis server on 127.0.0.1, without a password. Dropping it kills the server and removes
/// its data.
///
/// The program is `redis-server` on `PATH`. If it is missing, it is installed if the tests run as
/// root on a system with `apt-get`. As root, the server runs as the user `postgres` or `nobody`.
pub struct RedisServer {
    port: u16,
    /// The port for the other nodes of a cluster, or 0 outside a cluster.
    bus_port: u16,
    /// `redis://127.0.0.1:PORT`.
    url: String,
    clock: Option<Arc<Clock>>,
    disk: Option<Disk>,
    server: Server,
}

/// The choices for a new server.
struct Plan<'a> {
    lines: &'a [&'a str],
    time: Time,
    has_disk: bool,
    is_node: bool,
}

/// The clock of a server.
enum Time {
    System,
    /// A new clock.
    Own,
    /// The clock of another cluster node.
    Shared(Arc<Clock>),
}

impl RedisServer {
    /// Starts a server with an append-only file that it flushes every second, and without eviction.
    ///
    /// # Errors
    ///
    /// Redis is missing or did not start. The message says what to install, or has the end of the
    /// server's log.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&[])
    }

    /// [`start`](Self::start) with lines of `redis.conf` that override those for tests, such as
    /// `"appendfsync always"`.
    ///
    /// # Errors
    ///
    /// The same errors as [`start`](Self::start). The log quotes invalid lines.
    pub fn start_with(lines: &[&str]) -> Result<Self, String> {
        Self::start_as(Plan { lines, time: Time::System, has_disk: false, is_node: false })
    }

    /// [`start_with`](Self::start_with) with a [disk](Self::disk) that fails on demand. The
    /// append-only file is in `/data/`. Linux only.
    ///
    /// # Errors
    ///
    /// The same errors as [`start_with`](Self::start_with).
    pub fn start_with_disk(lines: &[&str]) -> Result<Self, String> {
        Self::start_as(Plan { lines, time: Time::System, has_disk: true, is_node: false })
    }

    /// [`start`](Self::start) with a manual clock, which only [`advance`](Self::advance) moves. Keys
    /// expire by it, and `TIME` returns it. It starts at the current time. Linux only.
    ///
    /// # Errors
    ///
    /// The same errors as [`start`](Self::start).
    pub fn start_with_clock() -> Result<Self, String> {
        Self::start_as(Plan { lines: &[], time: Time::Own, has_disk: false, is_node: false })
    }

    fn start_as(plan: Plan<'_>) -> Result<Self, String> {
        Self::start_on(plan, port::free_ports)
    }

    fn start_on(
        plan: Plan<'_>,
        next_ports: impl FnMut() -> Result<[u16; 2], String>,
    ) -> Result<Self, String> {
        let program = programs::server()?;
        let folder = Folder::create()?;
        // No server runs yet, but from here on the watcher removes the folder.
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
        let server = Server::new(&KIND, program, watcher, folder);
        let mut server = Self { port: 0, bus_port: 0, url: String::new(), clock, disk, server };
        launch_on_free_ports(next_ports, is_port_taken, |[port, bus_port]| {
            server.port = port;
            server.bus_port = if plan.is_node { bus_port } else { 0 };
            server.url = format!("redis://127.0.0.1:{port}");
            server.launch()
        })?;
        Ok(server)
    }

    /// Sends a command on a new connection. Returns the reply as `redis-cli --raw` prints it: an empty
    /// text for nil, and one line for each element of a list.
    ///
    /// # Errors
    ///
    /// The server replied with an error, or did not reply within five seconds.
    pub fn cli(&self, command: &[&str]) -> Result<String, String> {
        self.call(command).map(Reply::into_text)
    }

    fn call<T: AsRef<[u8]>>(&self, command: &[T]) -> Result<Reply, String> {
        Client::connect(self.port)?.call(command)
    }

    /// Advances the manual clock.
    ///
    /// # Errors
    ///
    /// The server uses the system's clock.
    pub fn advance(&self, by: Duration) -> Result<(), String> {
        self.clock()?.advance(by)
    }

    /// Returns the time since 1970 on the manual clock.
    ///
    /// # Errors
    ///
    /// The server uses the system's clock.
    pub fn now(&self) -> Result<Duration, String> {
        Ok(self.clock()?.now())
    }

    fn clock(&self) -> Result<&Arc<Clock>, String> {
        self.clock.as_ref().ok_or_else(|| "this Redis uses the system's clock".to_owned())
    }

    /// Returns whether the server runs and is not paused.
    fn answers(&self) -> bool {
        self.server.answers()
    }

    /// Starts the server on its ports and waits until it accepts connections.
    fn launch(&mut self) -> Result<(), String> {
        let mut arguments: Vec<OsString> = Vec::new();
        let clock = self.clock.iter().map(|clock| clock.preload());
        arguments.extend(variables(clock.chain(self.disk.iter().map(Disk::preload))));
        let configuration = self.server.folder().path().join("redis.conf");
        arguments.extend([self.server.program().as_os_str().into(), configuration.into()]);
        arguments.extend(["--port".into(), self.port.to_string().into()]);
        if self.bus_port != 0 {
            arguments.extend(["--cluster-port".into(), self.bus_port.to_string().into()]);
        }
        // The log and not the port, which another program may have taken.
        let is_ready = |log: &str| log.contains("Ready to accept connections");
        self.server.launch(&arguments, |_, _, log| is_ready(log))?;
        self.check_clock()
    }

    /// Checks that the server uses the manual clock. The loader ignores a library that it cannot load.
    fn check_clock(&self) -> Result<(), String> {
        let Some(clock) = &self.clock else { return Ok(()) };
        let now = clock.now();
        let wanted = format!("{}\n{}", now.as_secs(), now.subsec_micros());
        if self.cli(&["TIME"])? == wanted {
            return Ok(());
        }
        Err(self.server.complaint("does not use the clock of the test", 0))
    }
}

server_methods!(RedisServer);

impl Drop for RedisServer {
    fn drop(&mut self) {
        // The watcher would stop the server in order, which takes longer. Its data is removed anyway.
        drop(self.kill());
    }
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisServer").field("port", &self.port).finish_non_exhaustive()
    }
}

/// Quotes an argument of `redis.conf`.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn is_port_taken(log: &str) -> bool {
    log.contains("Failed listening on port")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::process::server::LIMIT;
    use crate::process::wait;

    #[test]
    fn paths_in_settings_are_quoted() {
        assert_eq!(quoted(r#"/a "b"\c"#), r#""/a \"b\"\\c""#);
    }

    #[test]
    fn taken_port_is_replaced_at_first_start_and_awaited_at_restart() {
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
        let log = server.server.log_file();
        let complaints = || fs::read_to_string(&log).unwrap().matches("Failed listening").count();
        // One for each port.
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
