//! A private key prefix on a Redis server or Redis Cluster, and measurements of the servers.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Value};

/// The client's default timeouts are too short for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The URL scheme of a cluster.
const CLUSTER_SCHEME: &str = "redis+cluster://";

/// A private key prefix, with connections to all masters.
pub(crate) struct KeyPrefix {
    prefix: String,
    url: String,
    masters: Vec<MultiplexedConnection>,
}

impl KeyPrefix {
    /// Connects to the servers of `url`.
    pub(crate) async fn new(url: &str) -> Result<Self, String> {
        let prefix = format!("soak{}:", std::process::id());
        let separator = if url.contains('?') { '&' } else { '?' };
        let own_url = format!("{url}{separator}prefix={prefix}");
        let base = url.split('?').next().unwrap_or(url);
        let masters = match base.strip_prefix(CLUSTER_SCHEME) {
            None => vec![connect(base).await?],
            Some(servers) => masters(servers).await?,
        };
        Ok(Self { prefix, url: own_url, masters })
    }

    /// The URL of the store.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the memory use of the masters.
    pub(crate) async fn bytes(&mut self) -> Result<u64, String> {
        let mut bytes = 0;
        for master in &mut self.masters {
            let text: String = ask(master, redis::cmd("INFO").arg("memory")).await?;
            let used = text.lines().find_map(|line| line.strip_prefix("used_memory:"));
            bytes += used
                .and_then(|used| used.trim().parse::<u64>().ok())
                .ok_or("INFO memory has no used_memory")?;
        }
        Ok(bytes)
    }

    /// Returns the number of client connections to the masters, without those of this struct.
    pub(crate) async fn connections(&mut self) -> Result<u64, String> {
        let mut count = 0;
        for master in &mut self.masters {
            let mut command = redis::cmd("CLIENT");
            let text: String = ask(master, command.arg("LIST").arg("TYPE").arg("normal")).await?;
            count += text.lines().filter(|line| !line.is_empty()).count() as u64 - 1;
        }
        Ok(count)
    }

    /// Removes every key with the prefix.
    pub(crate) async fn remove(&mut self) -> Result<(), String> {
        for master in &mut self.masters {
            let mut cursor = 0_u64;
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(format!("{}*", self.prefix));
                let (next, keys): (u64, Vec<Vec<u8>>) =
                    ask(master, scan.arg("COUNT").arg(1000)).await?;
                // One command per key, because the keys of a cluster are in different slots.
                let mut pipeline = redis::pipe();
                for key in &keys {
                    pipeline.cmd("UNLINK").arg(key).ignore();
                }
                if !keys.is_empty() {
                    let () = pipeline.query_async(master).await.map_err(|e| e.to_string())?;
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(())
    }
}

async fn connect(url: &str) -> Result<MultiplexedConnection, String> {
    let client = redis::Client::open(url).map_err(|error| error.to_string())?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT));
    let connected = client.get_multiplexed_async_connection_with_config(&config).await;
    connected.map_err(|error| error.to_string())
}

/// Connects to all masters. `servers` is the authority of the URL: optional user and password, then
/// the servers.
async fn masters(servers: &str) -> Result<Vec<MultiplexedConnection>, String> {
    let (login, addresses) = match servers.rsplit_once('@') {
        Some((login, addresses)) => (format!("{login}@"), addresses),
        None => (String::new(), servers),
    };
    let first = addresses.split([',', '/']).next().unwrap_or(addresses);
    let mut seed = connect(&format!("redis://{login}{first}")).await?;
    let nodes: String = ask(&mut seed, redis::cmd("CLUSTER").arg("NODES")).await?;
    let mut masters = Vec::new();
    for address in master_addresses(&nodes) {
        masters.push(connect(&format!("redis://{login}{address}")).await?);
    }
    if masters.is_empty() { Err("CLUSTER NODES lists no masters".to_owned()) } else { Ok(masters) }
}

/// Parses `CLUSTER NODES`. The second word of a line is `host:port@bus,name`, the third has the
/// flags.
fn master_addresses(nodes: &str) -> Vec<&str> {
    let lines = nodes.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let masters = lines.filter_map(|words| match words.as_slice() {
        [_, address, flags, ..] if flags.split(',').any(|flag| flag == "master") => {
            address.split('@').next()
        }
        _ => None,
    });
    masters.collect()
}

async fn ask<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: &redis::Cmd,
) -> Result<T, String> {
    let value: Value = command.query_async(connection).await.map_err(|e| e.to_string())?;
    redis::from_redis_value(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn master_addresses_are_parsed() {
        let nodes = "a1 127.0.0.1:7001@17001,host myself,master - 0 0 1 connected 0-8191\n\
                     b2 127.0.0.1:7002@17002 slave a1 0 0 1 connected\n\
                     c3 127.0.0.1:7003@17003 master - 0 0 2 connected 8192-16383\n";
        assert_eq!(master_addresses(nodes), ["127.0.0.1:7001", "127.0.0.1:7003"]);
    }
}
