//! A private PgBouncer: a connection pooler in front of a PostgreSQL server.

use std::fmt;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;

use crate::process::folder::Folder;
use crate::process::install::{self, Installed};
use crate::process::port;
use crate::process::server::LIMIT;
use crate::process::table::last_lines;
use crate::process::wait;
use crate::process::watcher::Watcher;

/// The program on Debian, in a folder that is not on every user's `PATH`.
const DEBIAN: &str = "/usr/sbin/pgbouncer";

const ADVICE: &str = "PgBouncer, the program `pgbouncer`, was not found; install it: \
                      apt-get install pgbouncer, dnf install pgbouncer, brew install pgbouncer";

static PROGRAM: Installed = Installed::new(find, "pgbouncer", ADVICE);

/// A private PgBouncer on 127.0.0.1. Dropping it ends the program.
pub struct PgBouncer {
    port: u16,
    /// Before the folder, because dropping the watcher ends the program.
    _watcher: Watcher,
    _folder: Folder,
}

impl PgBouncer {
    /// Starts a pooler in front of the server at `host:port`, for users with their passwords and with
    /// lines of `pgbouncer.ini` such as `"pool_mode = transaction"`. Clients need no password.
    ///
    /// # Errors
    ///
    /// PgBouncer is missing or did not start. The message says what to install, or has the end of the
    /// log.
    pub fn start(server: &str, users: &[(&str, &str)], settings: &[&str]) -> Result<Self, String> {
        let program = PROGRAM.path()?;
        let (host, server_port) = server.rsplit_once(':').ok_or("the server has no port")?;
        let folder = Folder::create()?;
        let users: String =
            users.iter().map(|(name, password)| format!("\"{name}\" \"{password}\"\n")).collect();
        let users = folder.write("users", users)?;
        let log = folder.write("log", "")?;
        let mut attempt = 1;
        loop {
            let port = port::free()?;
            let text = format!(
                "[databases]\n* = host={host} port={server_port}\n[pgbouncer]\n\
                 listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = trust\nauth_file = {}\n{}\n",
                users.display(),
                settings.join("\n")
            );
            let file = folder.write(&format!("pgbouncer{attempt}.ini"), text)?;
            let arguments = [file.into_os_string()];
            let watcher = Watcher::start(&folder, &log, &program, &arguments, "PG")?;
            let mut is_ready = false;
            wait::until(LIMIT, || {
                is_ready = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
                Ok(is_ready || watcher.program()?.is_none())
            })?;
            // Another program may have taken the port and answer there.
            if is_ready && watcher.program()?.is_some() {
                return Ok(Self { port, _watcher: watcher, _folder: folder });
            }
            if attempt == port::ATTEMPTS {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("PgBouncer did not start; its log:\n{}", last_lines(&log)));
            }
            watcher.release()?;
            attempt += 1;
        }
    }

    /// Returns `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl fmt::Debug for PgBouncer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgBouncer").field("port", &self.port).finish_non_exhaustive()
    }
}

fn find() -> Option<PathBuf> {
    let debian = PathBuf::from(DEBIAN);
    install::on_path("pgbouncer").into_iter().next().or_else(|| debian.is_file().then_some(debian))
}
