//! A private PostgreSQL server.

mod data;
mod programs;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::disk::Disk;
use crate::process::folder::{Folder, random_word};
use crate::process::port;
use crate::process::preload::variables;
use crate::process::table::{children, last_lines, none_runs, output, signal};
use crate::process::wait;
use crate::process::watcher::{Watcher, without_settings};

/// How long a server may take to start or to stop on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// How long what stands in the way of a start may take to go: the memory of a killed server, its
/// port.
const OBSTACLE_LIMIT: Duration = Duration::from_secs(15);

/// PostgreSQL's server and its tools take settings from variables that begin so.
const VARIABLES: &str = "PG";

/// A PostgreSQL server of one test's own, on loopback alone; dropping it stops it and removes its
/// data.
///
/// The programs are those on `PATH`, or under `/usr/lib/postgresql`, or where `pg_config` says;
/// missing, they are installed where the tests run as root on a system with `apt-get`. Under root
/// the server runs as the user `postgres` or `nobody`. Databases are UTF-8, and their default
/// collation is not that of bytes where the system has another.
pub struct PostgresServer {
    programs: PathBuf,
    port: u16,
    url: String,
    password: String,
    disk: Option<Disk>,
    /// Before the folder: dropping it ends the server.
    watcher: Watcher,
    folder: Folder,
}

impl PostgresServer {
    /// Starts a server with settings meant for tests: no fsync, 200 connections, autovacuum on.
    ///
    /// # Errors
    ///
    /// What to install, or the end of the server's log.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&[])
    }

    /// [`start`](Self::start) with settings of `postgresql.conf` that overrule those for tests,
    /// such as `("fsync", "on")`.
    ///
    /// # Errors
    ///
    /// What to install, or the end of the server's log; a setting that the server does not know is
    /// in that.
    pub fn start_with(settings: &[(&str, &str)]) -> Result<Self, String> {
        Self::start_on(settings, false, port::free)
    }

    /// [`start_with`](Self::start_with) with a [disk](Self::disk) that fails when a test says so.
    /// Linux alone.
    ///
    /// # Errors
    ///
    /// As those of [`start_with`](Self::start_with).
    pub fn start_with_disk(settings: &[(&str, &str)]) -> Result<Self, String> {
        Self::start_on(settings, true, port::free)
    }

    fn start_on(
        settings: &[(&str, &str)],
        has_disk: bool,
        mut next_port: impl FnMut() -> Result<u16, String>,
    ) -> Result<Self, String> {
        let programs = programs::folder()?;
        let folder = Folder::create()?;
        let password = random_word()?;
        let password_file = folder.write("password", &password)?;
        let watcher = data::initialise(&programs, &folder, &password_file)?;
        let disk = if has_disk { Some(Disk::create(&folder)?) } else { None };
        let url = String::new();
        let mut server = Self { programs, port: 0, url, password, disk, watcher, folder };
        data::configure(&server.data(), settings)?;
        let mut attempt = 1;
        loop {
            server.use_port(next_port()?);
            match server.launch() {
                Err(log) if is_port_taken(&log) && attempt < port::ATTEMPTS => attempt += 1,
                result => return result.map(|()| server),
            }
        }
    }

    /// `postgres://postgres:PASSWORD@127.0.0.1:PORT/postgres`, of the superuser.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port on 127.0.0.1; it stays the same over [`start_again`](Self::start_again).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the Unix socket. It asks for the password too.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// What `psql` prints for `sql` as the superuser: rows without heading, `|` between columns.
    ///
    /// # Errors
    ///
    /// The complaint of `psql`.
    pub fn psql(&self, sql: &str) -> Result<String, String> {
        Ok(output(&mut self.psql_command(sql))?.trim_end().to_owned())
    }

    fn psql_command(&self, sql: &str) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        without_settings(&mut command, VARIABLES).env("PGPASSWORD", &self.password);
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]);
        command.args(["-h", "127.0.0.1", "-d", "postgres", "-p", &self.port.to_string()]);
        command.args(["-c", sql]);
        command
    }

    /// The disk of a server that was started with one. Tables are in `/base/`, what was written
    /// ahead is in `/pg_wal/`.
    ///
    /// # Errors
    ///
    /// The server has the system's disk.
    pub fn disk(&self) -> Result<&Disk, String> {
        self.disk.as_ref().ok_or_else(|| "this PostgreSQL has the system's disk".to_owned())
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

    /// Stops the server in order: sessions are ended, what they had not committed is undone. Does
    /// nothing where it does not run.
    ///
    /// # Errors
    ///
    /// The server did not end in time; the end of its log.
    pub fn stop(&mut self) -> Result<(), String> {
        if let Some(server) = self.watcher.program()? {
            self.resume()?;
            signal("INT", std::slice::from_ref(&server))?;
            if !wait::until(LIMIT, || Ok(!server.is_running()?))? {
                return Err(self.complaint("did not stop", &self.log_from(0)));
            }
        }
        self.watcher.end().map(drop)
    }

    /// Ends the server and its sessions' processes with `kill -9`, all at once, whatever they are
    /// about. Does nothing where it does not run.
    ///
    /// # Errors
    ///
    /// A process did not end in time.
    pub fn kill(&mut self) -> Result<(), String> {
        if let Some(server) = self.watcher.program()? {
            // Halted, it starts no process that would be missing from the list.
            signal("STOP", std::slice::from_ref(&server))?;
            let mut processes = children(server.pid)?;
            processes.push(server);
            signal("KILL", &processes)?;
            if !wait::until(LIMIT, || none_runs(&processes))? {
                return Err("processes of PostgreSQL did not end after `kill -9`".to_owned());
            }
        }
        self.watcher.end().map(drop)
    }

    /// Starts the server again after [`stop`](Self::stop) or [`kill`](Self::kill), on the same
    /// port and data, and waits until it accepts connections. Does nothing where it runs.
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
            Ok(result.as_ref().err().is_none_or(|log| !is_passing(log)))
        })?;
        result
    }

    /// Halts the server and all its processes, as a machine does that hangs: connections stay open
    /// and nothing answers.
    ///
    /// # Errors
    ///
    /// The server does not run.
    pub fn pause(&self) -> Result<(), String> {
        let server = self.watcher.program()?.ok_or("PostgreSQL does not run")?;
        // First, so that no process is started after the list was made.
        signal("STOP", std::slice::from_ref(&server))?;
        signal("STOP", &children(server.pid)?)
    }

    /// Lets the server go on after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// The server does not run.
    pub fn resume(&self) -> Result<(), String> {
        let server = self.watcher.program()?.ok_or("PostgreSQL does not run")?;
        signal("CONT", &children(server.pid)?)?;
        signal("CONT", &[server])
    }

    fn data(&self) -> PathBuf {
        data::data_folder(&self.folder)
    }

    fn use_port(&mut self, port: u16) {
        self.port = port;
        self.url = format!("postgres://postgres:{}@127.0.0.1:{port}/postgres", self.password);
    }

    /// Starts the server on the port and waits until it accepts connections.
    fn launch(&mut self) -> Result<(), String> {
        // Else the watcher still has the dead server's pid, which makes a new one think that the
        // data is in use.
        self.watcher.end()?;
        let seen = self.log_from(0).len();
        // The pid remains the server's: `env` becomes it.
        let mut arguments = variables(self.disk.iter().map(Disk::preload));
        arguments.push(self.programs.join("postgres").into());
        arguments.extend(["-p".into(), self.port.to_string().into()]);
        arguments.extend(["-k".into(), self.folder.path().into(), "-D".into(), self.data().into()]);
        let log = data::log_file(&self.folder);
        let watcher = Watcher::start(&self.folder, &log, "env".as_ref(), &arguments, VARIABLES)?;
        std::mem::replace(&mut self.watcher, watcher).release()?;

        let mut is_ready = false;
        let in_time = wait::until(LIMIT, || {
            let server = self.watcher.program()?;
            is_ready = server.as_ref().is_some_and(|server| self.is_ready(server.pid));
            Ok(is_ready || server.is_none())
        })?;
        if is_ready {
            return Ok(());
        }
        self.watcher.end()?;
        let what = if in_time { "ended on starting" } else { "was not ready in time" };
        Err(self.complaint(what, &self.log_from(seen)))
    }

    /// Where a server that runs, or was killed, says what it is about.
    fn pid_file_line(&self, index: usize) -> Option<String> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        text.lines().nth(index).map(|line| line.trim().to_owned())
    }

    /// The segment that tells the server whether its data is in use.
    fn shared_memory(&self) -> Option<String> {
        self.pid_file_line(6)?.split_whitespace().nth(1).map(str::to_owned)
    }

    /// Whether the server accepts connections, as `pg_ctl` finds out: it writes so beside its pid.
    /// Asking at the port could reach another server that took it.
    fn is_ready(&self, pid: u32) -> bool {
        self.pid_file_line(0).is_some_and(|line| line == pid.to_string())
            && self.pid_file_line(7).is_some_and(|line| line == "ready")
    }

    fn log_from(&self, start: usize) -> String {
        data::read_log(&self.folder).get(start..).unwrap_or_default().to_owned()
    }

    fn complaint(&self, what: &str, log: &str) -> String {
        format!("PostgreSQL in {} {what}; its log:\n{}", self.programs.display(), last_lines(log))
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // The watcher wakes the server, not the processes of its sessions, which would keep it
        // waiting.
        drop(self.resume());
        // A killed server leaves a few bytes of the system's shared memory, which the next start
        // would have taken away.
        if let (Ok(None), Some(id)) = (self.watcher.program(), self.shared_memory()) {
            drop(output(Command::new("ipcrm").args(["-m", &id])));
        }
    }
}

impl fmt::Debug for PostgresServer {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresServer").field("port", &self.port).finish_non_exhaustive()
    }
}

fn is_port_taken(log: &str) -> bool {
    log.contains("could not bind")
}

/// Whether the server may start if it is tried again.
fn is_passing(log: &str) -> bool {
    is_port_taken(log)
        || log.contains("pre-existing shared memory block")
        || log.contains("lock file \"postmaster.pid\" already exists")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{Ipv4Addr, TcpListener};
    use std::process::{Child, Stdio};
    use std::sync::mpsc;

    use super::*;
    use crate::process::table::Process;

    #[test]
    fn a_taken_port_is_exchanged_at_first_and_waited_for_later() {
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
        let log = data::log_file(&server.folder);
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
    /// A session that stays: it answers each line that is sent.
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
    fn sessions_halt_with_the_server_and_end_with_it() {
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
    fn a_kill_ends_sessions_in_the_midst_of_their_work() {
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
