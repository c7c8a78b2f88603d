//! A private PostgreSQL server.

mod data;
mod programs;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::disk::Disk;
use crate::process::folder::{Folder, random_word};
use crate::process::port;
use crate::process::preload::variables;
use crate::process::server::{Kind, Server, launch_on_free_ports, retry_launch, server_methods};
use crate::process::table::{Process, output};
use crate::process::watcher::without_settings;

static KIND: Kind =
    Kind { name: "PostgreSQL", variables: VARIABLES, stop_signal: "INT", is_obstacle };

/// The server and its tools read settings from variables with this prefix.
const VARIABLES: &str = "PG";

/// A private PostgreSQL server on 127.0.0.1. Dropping it stops the server and removes its data.
///
/// The programs come from `PATH`, from `/usr/lib/postgresql`, or from the folder that `pg_config`
/// reports. Missing programs are installed if the tests run as root on a system with `apt-get`. As
/// root, the server runs as the user `postgres` or `nobody`. Databases are UTF-8. Their default
/// collation does not order by bytes, unless the system has no other.
pub struct PostgresServer {
    port: u16,
    /// `postgres://postgres:PASSWORD@127.0.0.1:PORT/postgres`, with the superuser's role.
    url: String,
    password: String,
    disk: Option<Disk>,
    server: Server,
}

impl PostgresServer {
    /// Starts a server with settings for tests: no fsync, 200 connections, autovacuum on.
    ///
    /// # Errors
    ///
    /// PostgreSQL is missing or did not start. The message says what to install, or has the end of
    /// the server's log.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&[])
    }

    /// [`start`](Self::start) with settings of `postgresql.conf` that override those for tests,
    /// such as `("fsync", "on")`.
    ///
    /// # Errors
    ///
    /// The same errors as [`start`](Self::start). The log names unknown settings.
    pub fn start_with(settings: &[(&str, &str)]) -> Result<Self, String> {
        Self::start_on(settings, false, port::free)
    }

    /// [`start_with`](Self::start_with) with a [disk](Self::disk) that fails on demand. Tables are
    /// in `/base/`, the write-ahead log is in `/pg_wal/`. Linux only.
    ///
    /// # Errors
    ///
    /// The same errors as [`start_with`](Self::start_with).
    pub fn start_with_disk(settings: &[(&str, &str)]) -> Result<Self, String> {
        Self::start_on(settings, true, port::free)
    }

    fn start_on(
        settings: &[(&str, &str)],
        has_disk: bool,
        next_port: impl FnMut() -> Result<u16, String>,
    ) -> Result<Self, String> {
        let programs = programs::folder()?;
        let folder = Folder::create()?;
        let password = random_word()?;
        let password_file = folder.write("password", &password)?;
        let watcher = data::initialise(&programs, &folder, &password_file)?;
        let disk = if has_disk { Some(Disk::create(&folder)?) } else { None };
        let server = Server::new(&KIND, programs, watcher, folder);
        let mut server = Self { port: 0, url: String::new(), password, disk, server };
        data::configure(&server.data(), settings)?;
        launch_on_free_ports(next_port, is_port_taken, |port| {
            server.use_port(port);
            server.launch()
        })?;
        Ok(server)
    }

    /// Returns the folder of the Unix socket. Connections through it need the password too.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        self.server.folder().path()
    }

    /// Returns the output of `psql` for `sql`, run as the superuser: rows without heading, with `|`
    /// between columns.
    ///
    /// # Errors
    ///
    /// `psql` failed. The message has its output.
    pub fn psql(&self, sql: &str) -> Result<String, String> {
        Ok(output(&mut self.psql_command(sql))?.trim_end().to_owned())
    }

    fn psql_command(&self, sql: &str) -> Command {
        let mut command = Command::new(self.server.program().join("psql"));
        without_settings(&mut command, VARIABLES).env("PGPASSWORD", &self.password);
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]);
        command.args(["-h", "127.0.0.1", "-d", "postgres", "-p", &self.port.to_string()]);
        command.args(["-c", sql]);
        command
    }

    fn data(&self) -> PathBuf {
        data::data_folder(self.server.folder())
    }

    fn use_port(&mut self, port: u16) {
        self.port = port;
        self.url = format!("postgres://postgres:{}@127.0.0.1:{port}/postgres", self.password);
    }

    /// Starts the server on its port and waits until it accepts connections.
    fn launch(&mut self) -> Result<(), String> {
        let mut arguments = variables(self.disk.iter().map(Disk::preload));
        arguments.push(self.server.program().join("postgres").into());
        arguments.extend(["-p".into(), self.port.to_string().into()]);
        arguments.extend(["-k".into(), self.socket_folder().into(), "-D".into()]);
        arguments.push(self.data().into());
        self.server.launch(&arguments, is_ready)
    }

    /// Returns the id of the shared memory segment by which the server detects that its data is in
    /// use.
    fn shared_memory(&self) -> Option<String> {
        let line = pid_file_line(&self.server, 6)?;
        line.split_whitespace().nth(1).map(str::to_owned)
    }
}

server_methods!(PostgresServer);

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // The watcher continues the server but not its child processes, for which it would wait.
        drop(self.resume());
        // A killed server leaves a segment of shared memory, which the next start would remove.
        if let (Ok(None), Some(id)) = (self.server.process(), self.shared_memory()) {
            drop(output(Command::new("ipcrm").args(["-m", &id])));
        }
    }
}

impl fmt::Debug for PostgresServer {
    /// Omits the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresServer").field("port", &self.port).finish_non_exhaustive()
    }
}

fn is_port_taken(log: &str) -> bool {
    log.contains("could not bind")
}

/// Returns whether the log reports an obstacle to a start that may go away.
fn is_obstacle(log: &str) -> bool {
    is_port_taken(log)
        || log.contains("pre-existing shared memory block")
        || log.contains("lock file \"postmaster.pid\" already exists")
}

/// Returns a line of the file in which the server describes itself.
fn pid_file_line(server: &Server, index: usize) -> Option<String> {
    let path = data::data_folder(server.folder()).join("postmaster.pid");
    let text = fs::read_to_string(path).ok()?;
    text.lines().nth(index).map(|line| line.trim().to_owned())
}

/// Returns whether the server accepts connections, in the way of `pg_ctl`: the server writes its
/// state next to its pid. A connection to the port could reach another program.
fn is_ready(server: &Server, process: &Process, _log: &str) -> bool {
    pid_file_line(server, 0).is_some_and(|line| line == process.pid.to_string())
        && pid_file_line(server, 7).is_some_and(|line| line == "ready")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{Ipv4Addr, TcpListener};
    use std::process::{Child, Stdio};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::process::server::LIMIT;
    use crate::process::wait;

    #[test]
    fn taken_port_is_replaced_at_first_start_and_awaited_at_restart() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        let mut ports = [taken_port].into_iter();
        let mut server =
            PostgresServer::start_on(&[], false, || ports.next().map_or_else(port::free, Ok))
                .unwrap();
        let port = server.port();
        assert_ne!(port, taken_port);

        server.stop().unwrap();
        let in_the_way = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let log = server.server.log_file();
        let complaints = || fs::read_to_string(&log).unwrap().matches("could not bind").count();
        let before = complaints();
        std::thread::scope(|scope| {
            let start = scope.spawn(|| server.start_again());
            assert_eq!(wait::until(LIMIT, || Ok(complaints() > before)), Ok(true));
            drop(in_the_way);
            start.join().unwrap().unwrap();
        });
        assert_eq!(server.port(), port);
    }

    /// An open session that answers each line.
    struct Session {
        client: Child,
        answers: mpsc::Receiver<String>,
    }

    impl Session {
        fn open(server: &PostgresServer) -> Self {
            let mut command = server.psql_command("SELECT 'open'");
            command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut client = command.stderr(Stdio::null()).spawn().unwrap();
            let lines = BufReader::new(client.stdout.take().unwrap()).lines();
            let (send, answers) = mpsc::channel();
            std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|l| send.send(l)));
            let session = Self { client, answers };
            assert_eq!(session.answers.recv().unwrap(), "open");
            session
        }

        fn send(&mut self, sql: &str) {
            writeln!(self.client.stdin.as_mut().unwrap(), "{sql}").unwrap();
        }

        fn assert_lost(mut self) {
            self.send("SELECT 'lost';");
            assert!(self.answers.recv().is_err());
            assert!(!self.client.wait().unwrap().success());
        }
    }

    #[test]
    fn sessions_pause_and_end_with_the_server() {
        let mut server = PostgresServer::start().unwrap();
        let mut session = Session::open(&server);
        server.pause().unwrap();
        session.send("SELECT 'late';");
        let early = session.answers.recv_timeout(Duration::from_millis(700));
        assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
        server.resume().unwrap();
        assert_eq!(session.answers.recv().unwrap(), "late");

        server.stop().unwrap();
        session.assert_lost();
        server.start_again().unwrap();
        let session = Session::open(&server);
        drop(server);
        session.assert_lost();
    }

    #[test]
    fn kill_ends_sessions_that_run_statements() {
        let mut server = PostgresServer::start().unwrap();
        let loops = "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$";
        let mut command = server.psql_command(loops);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut client = command.spawn().unwrap();
        let sql = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %'";
        let mut pid = String::new();
        let is_busy = wait::until(LIMIT, || {
            pid = server.psql(sql)?;
            Ok(!pid.is_empty())
        });
        assert_eq!(is_busy, Ok(true));
        let session = Process::running(pid.parse().unwrap()).unwrap().unwrap();

        server.kill().unwrap();
        assert_eq!(session.is_running(), Ok(false));
        assert!(!client.wait().unwrap().success());
        server.start_again().unwrap();
    }
}
