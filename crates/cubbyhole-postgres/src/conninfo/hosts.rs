//! The hosts to try, each with its port and password.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use cubbyhole_core::{Error, Result};

use super::environment::Environment;
use super::parameters::{Origin, Parameters};
use super::passfile::{self, PassfileQuery};

/// The target of log events. It is documented, so it does not follow the module path.
const EVENT_TARGET: &str = "cubbyhole_postgres::connection";

/// PostgreSQL's default port.
const DEFAULT_PORT: u16 = 5432;

/// A host to connect to.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) address: HostAddress,
    pub(crate) port: u16,
    pub(crate) password: Option<Vec<u8>>,
    /// Describes the source of the password, for the error message if the server rejects it.
    pub(crate) password_note: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostAddress {
    /// The name that certificates are checked against, and the address from `hostaddr`, if set.
    Tcp { name: String, address: Option<IpAddr> },
    /// The folder of a Unix socket.
    Unix(PathBuf),
}

/// Returns the hosts in order, with their passwords for `user` and `database`.
pub(crate) fn hosts(
    parameters: &Parameters,
    environment: &Environment,
    user: &str,
    database: &str,
) -> Result<Vec<Host>> {
    let names = list(parameters, "host")?;
    let addresses = list(parameters, "hostaddr")?;
    let ports = list(parameters, "port")?;
    let count = names.len().max(addresses.len()).max(1);
    let matches_count = |given: usize| given == 0 || given == count;
    if !matches_count(names.len())
        || !matches_count(addresses.len())
        || !(matches_count(ports.len()) || ports.len() == 1)
    {
        return Err(Error::invalid_argument(format!(
            "the PostgreSQL URL has {} hosts, {} addresses (`hostaddr`) and {} ports: set one of each \
             per host, or one port for all hosts",
            names.len(),
            addresses.len(),
            ports.len()
        )));
    }
    let mut hosts = Vec::with_capacity(count);
    for index in 0..count {
        let address = addresses.get(index).filter(|(text, _)| !text.is_empty());
        let address = address.map(|(text, origin)| {
            text.parse::<IpAddr>()
                .map_err(|_| origin.invalid("hostaddr", "write IP addresses, not names"))
        });
        let name = names.get(index).map_or("", |(name, _)| name);
        if name.starts_with('@') {
            return Err(Error::unsupported(
                "sockets in the abstract namespace (a host that starts with `@`) are not supported",
            ));
        }
        let address = match (address.transpose()?, name) {
            (None, "") => HostAddress::Unix(environment.socket_folder.clone()),
            (None, folder) if folder.starts_with('/') => HostAddress::Unix(PathBuf::from(folder)),
            (Some(address), "") => {
                HostAddress::Tcp { name: address.to_string(), address: Some(address) }
            }
            (address, name) => HostAddress::Tcp { name: name.to_owned(), address },
        };
        let port = match ports.get(index).or(ports.first().filter(|_| ports.len() == 1)) {
            Some((text, origin)) if !text.is_empty() => text
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| origin.invalid("port", "write numbers from 1 to 65535"))?,
            _ => DEFAULT_PORT,
        };
        hosts.push(Host { address, port, password: None, password_note: None });
    }
    set_passwords(&mut hosts, parameters, environment, user, database)?;
    Ok(hosts)
}

fn list<'a>(parameters: &'a Parameters, name: &str) -> Result<Vec<(&'a str, &'a Origin)>> {
    let Some((text, origin)) = parameters.text(name)? else { return Ok(Vec::new()) };
    Ok(text.split(',').map(|part| (part.trim(), origin)).collect())
}

/// Sets the password of every host, or the password that the password file has for each host.
fn set_passwords(
    hosts: &mut [Host],
    parameters: &Parameters,
    environment: &Environment,
    user: &str,
    database: &str,
) -> Result<()> {
    if let Some((password, origin)) = parameters.bytes("password") {
        for host in hosts {
            host.password = Some(password.to_vec());
            if *origin != Origin::Url {
                host.password_note =
                    Some(format!("the password is from {}", origin.describe("password")));
            }
        }
        return Ok(());
    }
    let file = match parameters.text("passfile")? {
        Some((file, _)) => PathBuf::from(file),
        None => match &environment.home {
            Some(home) => home.join(".pgpass"),
            None => return Ok(()),
        },
    };
    let text = match passfile::read(&file) {
        None => return Ok(()),
        Some(Ok(text)) => text,
        Some(Err(warning)) => {
            tracing::warn!(target: EVENT_TARGET, "{warning}");
            for host in hosts {
                host.password_note = Some(warning.clone());
            }
            return Ok(());
        }
    };
    for host in hosts {
        let name = match &host.address {
            HostAddress::Tcp { name, .. } => name.as_str(),
            HostAddress::Unix(folder) if *folder == environment.socket_folder => "localhost",
            HostAddress::Unix(folder) => folder.to_str().unwrap_or_default(),
        };
        let port = host.port.to_string();
        let query = PassfileQuery { host: name, port: &port, database, user };
        host.password = passfile::find(&text, &query);
        let file = file.display();
        host.password_note = Some(match host.password {
            Some(_) => format!("the password is from the file {file}"),
            None => format!("the password file {file} has no line for {name}:{port}"),
        });
    }
    Ok(())
}

impl fmt::Debug for Host {
    /// Omits the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.address, self.port)
    }
}
