//! A server program: starts, stops, kills and pauses it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::process::folder::Folder;
use crate::process::port;
use crate::process::table::{Process, children, last_lines, none_runs, signal};
use crate::process::wait;
use crate::process::watcher::Watcher;

/// How long a server may take to start or to stop on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How long an obstacle to a restart may last: the shared memory of a killed server, or another
/// program on its port.
const OBSTACLE_LIMIT: Duration = Duration::from_secs(15);

/// A kind of server program.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// The prefix of environment variables with settings, which are kept from the server.
    pub(crate) variables: &'static str,
    /// The signal that stops it in order.
    pub(crate) stop_signal: &'static str,
    /// Whether its log says that another attempt to start it may succeed.
    pub(crate) is_obstacle: fn(&str) -> bool,
}

/// A server that can be started and stopped, and its folder.
pub(crate) struct Server {
    kind: &'static Kind,
    /// The program or its folder, for messages.
    program: PathBuf,
    is_paused: AtomicBool,
    /// Before the folder, because dropping the watcher ends the server.
    watcher: Watcher,
    folder: Folder,
}

impl Server {
    /// Wraps a folder with its watcher. The server does not run yet.
    pub(crate) fn new(
        kind: &'static Kind,
        program: PathBuf,
        watcher: Watcher,
        folder: Folder,
    ) -> Self {
        Self { kind, program, is_paused: AtomicBool::new(false), watcher, folder }
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Returns the process of the server if it runs.
    pub(crate) fn process(&self) -> Result<Option<Process>, String> {
        self.watcher.program()
    }

    /// Returns whether the server runs and is not paused.
    pub(crate) fn answers(&self) -> bool {
        !self.is_paused.load(Ordering::Relaxed) && matches!(self.process(), Ok(Some(_)))
    }

    /// Starts the server with these arguments, the first of which is its program, and waits until
    /// `is_ready`. That function gets the process, and the log since this start.
    pub(crate) fn launch(
        &mut self,
        arguments: &[OsString],
        is_ready: impl Fn(&Self, &Process, &str) -> bool,
    ) -> Result<(), String> {
        // The watcher holds the pid of a dead server. PostgreSQL would see that pid in use and
        // conclude that another server uses the data.
        self.watcher.end()?;
        let start = self.log(0).len();
        let (program, log, variables) = ("env".as_ref(), self.log_file(), self.kind.variables);
        // `env` becomes the server, so its pid is the server's.
        let watcher = Watcher::start(&self.folder, &log, program, arguments, variables)?;
        std::mem::replace(&mut self.watcher, watcher).release()?;
        self.is_paused.store(false, Ordering::Relaxed);

        let mut ready = false;
        let in_time = wait::until(LIMIT, || {
            let process = self.process()?;
            ready = process.as_ref().is_some_and(|it| is_ready(self, it, &self.log(start)));
            Ok(ready || process.is_none())
        })?;
        if ready {
            return Ok(());
        }
        self.watcher.end()?;
        let what = if in_time { "ended on starting" } else { "was not ready in time" };
        Err(self.complaint(what, start))
    }

    /// Waits until the server ends without a signal.
    pub(crate) fn await_end(&mut self) -> Result<(), String> {
        if !wait::until(LIMIT, || Ok(self.process()?.is_none()))? {
            return Err(self.complaint("did not end", 0));
        }
        self.watcher.end().map(drop)
    }

    pub(crate) fn stop(&mut self) -> Result<(), String> {
        if let Some(server) = self.process()? {
            self.resume()?;
            signal(self.kind.stop_signal, std::slice::from_ref(&server))?;
            if !wait::until(LIMIT, || Ok(!server.is_running()?))? {
                return Err(self.complaint("did not stop", 0));
            }
        }
        self.watcher.end().map(drop)
    }

    pub(crate) fn kill(&mut self) -> Result<(), String> {
        if let Some(server) = self.process()? {
            let processes = self.halt(server)?;
            signal("KILL", &processes)?;
            if !wait::until(LIMIT, || none_runs(&processes))? {
                return Err(self.complaint("did not end after `kill -9`", 0));
            }
        }
        self.watcher.end().map(drop)
    }

    pub(crate) fn pause(&self) -> Result<(), String> {
        self.halt(self.running()?).map(drop)
    }

    pub(crate) fn resume(&self) -> Result<(), String> {
        let server = self.running()?;
        signal("CONT", &children(server.pid)?)?;
        signal("CONT", &[server])?;
        self.is_paused.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn running(&self) -> Result<Process, String> {
        self.process()?.ok_or_else(|| format!("{} does not run", self.kind.name))
    }

    /// Stops the server and its child processes with SIGSTOP. Returns them, the server last.
    fn halt(&self, server: Process) -> Result<Vec<Process>, String> {
        self.is_paused.store(true, Ordering::Relaxed);
        // The server first: a stopped server starts no child that the list would lack.
        signal("STOP", std::slice::from_ref(&server))?;
        let mut processes = children(server.pid)?;
        signal("STOP", &processes)?;
        processes.push(server);
        Ok(processes)
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        log_file(&self.folder)
    }

    /// Returns the log from a byte on.
    pub(crate) fn log(&self, start: usize) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
    }

    /// Returns a message with the end of the log.
    pub(crate) fn complaint(&self, what: &str, log_start: usize) -> String {
        let (name, program) = (self.kind.name, self.program.display());
        format!("{name} ({program}) {what}; its log:\n{}", last_lines(&self.log(log_start)))
    }
}

pub(crate) fn log_file(folder: &Folder) -> PathBuf {
    folder.path().join("log")
}

/// Repeats `launch` while its error reports an obstacle that may go away.
pub(crate) fn retry_launch(
    kind: &Kind,
    mut launch: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    let mut result = Ok(());
    wait::until(OBSTACLE_LIMIT, || {
        result = launch();
        Ok(result.as_ref().err().is_none_or(|log| !(kind.is_obstacle)(log)))
    })?;
    result
}

/// Launches a server for the first time, on other ports if its ports are taken.
pub(crate) fn launch_on_free_ports<P>(
    mut next_ports: impl FnMut() -> Result<P, String>,
    is_port_taken: fn(&str) -> bool,
    mut launch: impl FnMut(P) -> Result<(), String>,
) -> Result<(), String> {
    let mut attempt = 1;
    loop {
        match launch(next_ports()?) {
            Err(log) if is_port_taken(&log) && attempt < port::ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

/// A private server as tests disturb it.
pub trait Disturb {
    /// Stops the server in order. Does nothing if it does not run.
    ///
    /// # Errors
    ///
    /// The server did not end in time. The message has the end of its log.
    fn stop(&mut self) -> Result<(), String>;

    /// Ends the server and its child processes with `kill -9`. Does nothing if it does not run.
    ///
    /// # Errors
    ///
    /// A process did not end in time.
    fn kill(&mut self) -> Result<(), String>;

    /// Starts the server again on the same port and data, and waits until it accepts connections.
    /// Does nothing if it runs.
    ///
    /// # Errors
    ///
    /// The server did not start. The message has the end of its log.
    fn start_again(&mut self) -> Result<(), String>;

    /// Halts the server, as a machine that hangs does: connections stay open, and no request is
    /// answered.
    ///
    /// # Errors
    ///
    /// The server does not run.
    fn pause(&self) -> Result<(), String>;

    /// Continues after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// The server does not run.
    fn resume(&self) -> Result<(), String>;
}

/// Writes the methods that every private server has, and [`Disturb`] with them.
macro_rules! server_methods {
    ($server:ident) => {
        impl $server {
            /// Returns the URL of the server.
            #[must_use]
            pub fn url(&self) -> &str {
                &self.url
            }

            /// Returns the port on 127.0.0.1. [`start_again`](Self::start_again) does not change it.
            #[must_use]
            pub fn port(&self) -> u16 {
                self.port
            }

            /// Waits until the server ends without a signal.
            ///
            /// # Errors
            ///
            /// The server still runs after a minute. The message has the end of its log.
            pub fn await_end(&mut self) -> Result<(), String> {
                self.server.await_end()
            }

            /// Stops the server in order. Does nothing if it does not run.
            ///
            /// # Errors
            ///
            /// The server did not end in time. The message has the end of its log.
            pub fn stop(&mut self) -> Result<(), String> {
                self.server.stop()
            }

            /// Ends the server and its child processes with `kill -9`. Does nothing if it does not
            /// run.
            ///
            /// # Errors
            ///
            /// A process did not end in time.
            pub fn kill(&mut self) -> Result<(), String> {
                self.server.kill()
            }

            /// Starts the server again after [`stop`](Self::stop) or [`kill`](Self::kill), on the
            /// same port, data and clock, and waits until it accepts connections. Does nothing if it
            /// runs.
            ///
            /// # Errors
            ///
            /// The server did not start. The message has the end of its log.
            pub fn start_again(&mut self) -> Result<(), String> {
                if self.server.process()?.is_some() {
                    return Ok(());
                }
                retry_launch(&KIND, || self.launch())
            }

            /// Halts the server and its child processes, as a machine that hangs does: connections
            /// stay open, and no request is answered.
            ///
            /// # Errors
            ///
            /// The server does not run.
            pub fn pause(&self) -> Result<(), String> {
                self.server.pause()
            }

            /// Continues the server after [`pause`](Self::pause).
            ///
            /// # Errors
            ///
            /// The server does not run.
            pub fn resume(&self) -> Result<(), String> {
                self.server.resume()
            }

            /// Returns the disk of a server that was started with one.
            ///
            /// # Errors
            ///
            /// The server uses the system's disk.
            pub fn disk(&self) -> Result<&Disk, String> {
                let explain = || format!("this {} uses the system's disk", KIND.name);
                self.disk.as_ref().ok_or_else(explain)
            }
        }

        impl $crate::Disturb for $server {
            fn stop(&mut self) -> Result<(), String> {
                Self::stop(self)
            }

            fn kill(&mut self) -> Result<(), String> {
                Self::kill(self)
            }

            fn start_again(&mut self) -> Result<(), String> {
                Self::start_again(self)
            }

            fn pause(&self) -> Result<(), String> {
                Self::pause(self)
            }

            fn resume(&self) -> Result<(), String> {
                Self::resume(self)
            }
        }
    };
}
pub(crate) use server_methods;
