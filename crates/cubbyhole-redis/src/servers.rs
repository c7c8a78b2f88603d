//! What is asked of servers and not of a slot.

use std::sync::Arc;

use cubbyhole_core::{Compaction, Error, ErrorKind, ExecutionContext, Result};
use redis::{Cmd, Pipeline, Value};

use crate::call::Caller;
use crate::config::Config;
use crate::connection::Node;
use crate::error::{Effect, Failure};
use crate::keys::Place;
use crate::{replies, scripts};

/// The oldest Redis that has what the scripts use.
const OLDEST_MAJOR: u32 = 7;

/// What a server tells of itself.
pub(crate) struct Info(String);

impl Info {
    /// A field of the answer to `INFO`.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    /// How many keys it holds, of whatever program.
    pub(crate) fn keys(&self) -> u64 {
        let databases = self.0.lines().filter(|line| line.starts_with("db"));
        let counts = databases.filter_map(|line| line.split_once("keys=")?.1.split(',').next());
        counts.filter_map(|count| count.parse::<u64>().ok()).sum()
    }

    /// `Redis 7.0.15`, or what Valkey says of itself.
    pub(crate) fn server(&self) -> String {
        match self.field("valkey_version") {
            Some(version) => format!("Valkey {version}"),
            None => format!("Redis {}", self.field("redis_version").unwrap_or("of no version")),
        }
    }

    /// Whether the store works on it.
    pub(crate) fn check_version(&self) -> Result<()> {
        let major = self.field("redis_version").and_then(|version| version.split('.').next());
        let new_enough =
            major.and_then(|major| major.parse().ok()).is_some_and(|m: u32| m >= OLDEST_MAJOR);
        if new_enough {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "the server is {}; the store needs Redis {OLDEST_MAJOR} or newer",
            self.server()
        )))
    }

    /// Whether it is what the URL says.
    pub(crate) fn check_mode(&self, cluster: bool) -> Result<()> {
        let is_cluster = self.field("redis_mode") == Some("cluster");
        match (is_cluster, cluster) {
            (true, false) => Err(Error::invalid_argument(
                "the server is part of a Redis Cluster: write `redis+cluster://`",
            )),
            (false, true) => Err(Error::invalid_argument(
                "the server is not part of a Redis Cluster: write `redis://`",
            )),
            _ => Ok(()),
        }
    }
}

/// Makes sure that there are servers on which the store works, also if they say "not now" at first.
pub(crate) async fn admit(ctx: &ExecutionContext, caller: &Caller) -> Result<()> {
    let mut repeat = caller.repeat();
    loop {
        match ctx.race(admit_now(caller)).await? {
            Err(error) if says_not_now(&error) && repeat.after_a_pause(ctx).await? => {}
            admitted => return admitted,
        }
    }
}

/// A cluster may lack some of its servers.
async fn admit_now(caller: &Caller) -> Result<()> {
    let topology = caller.topology();
    topology.refresh(topology.generation(), None).await?;
    let mut admitted = false;
    let mut last = Error::unavailable("the Redis Cluster has no master");
    for node in topology.masters() {
        match info(&node, "server").await {
            Ok(info) => {
                info.check_version()?;
                info.check_mode(topology.is_cluster())?;
            }
            // A user that may not ask is taken at its word.
            Err(error) if error.kind() == ErrorKind::PermissionDenied && !refuses_user(&error) => {}
            Err(error) => {
                last = error;
                continue;
            }
        }
        match check_rights(&node, caller.config()).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => last = error,
            checked => {
                checked?;
                admitted = true;
            }
        }
    }
    if admitted { Ok(()) } else { Err(last) }
}

/// Makes sure that the user may run what the scripts run.
async fn check_rights(node: &Node, config: &Config) -> Result<()> {
    let mut together = Pipeline::new();
    together.cmd("SCRIPT").arg("LOAD").arg(scripts::RIGHTS.source);
    let key = Place::root(config.prefix()).index();
    let wait = if config.wait_replicas > 0 { "wait" } else { "" };
    together.cmd("EVALSHA").arg(&scripts::RIGHTS.digest).arg(0).arg(key).arg(wait);
    let mut connection = node.connection(0).await?;
    let answers = connection.send_all(&together).await;
    let answers = answers.map_err(|error| Failure::Lost(error).into_error(Effect::Read))?;
    let mut missing = Value::Nil;
    for answer in answers {
        missing = match answer.extract_error() {
            // Another has flushed the scripts in between; the calls load theirs by themselves.
            Err(error) if error.code() == Some("NOSCRIPT") => return Ok(()),
            answer => answer.map_err(|error| Failure::Refused(error).into_error(Effect::Read))?,
        };
    }
    let missing: Vec<String> =
        replies::array(missing)?.into_iter().map(replies::text).collect::<Result<_>>()?;
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(Error::permission_denied(format!(
        "the Redis user may not run {missing} on keys that begin with the prefix of the store; \
         docs/backends/redis.md has the ACL rule"
    ))
    .permanent())
}

/// Whether the user as such is refused, and not only what it asked.
fn refuses_user(error: &Error) -> bool {
    code_of(error) != Some("NOPERM")
}

fn says_not_now(error: &Error) -> bool {
    matches!(code_of(error), Some("LOADING" | "BUSY" | "CLUSTERDOWN" | "MASTERDOWN"))
}

/// The code of the server's answer that is behind an error.
fn code_of(error: &Error) -> Option<&str> {
    let source = std::error::Error::source(error)?;
    source.downcast_ref::<redis::RedisError>()?.code()
}

pub(crate) async fn info(node: &Node, section: &str) -> Result<Info> {
    let mut command = redis::cmd("INFO");
    command.arg(section);
    match ask(node, &command).await? {
        Value::VerbatimString { text, .. } => Ok(Info(text)),
        answer => Ok(Info(replies::text(answer)?)),
    }
}

/// One command to one server, sent once.
pub(crate) async fn ask(node: &Node, command: &Cmd) -> Result<Value> {
    let mut connection = node.connection(0).await?;
    let answer = connection.send(command).await;
    let failed = |failure: Failure| failure.into_error(Effect::Read);
    let value = answer.map_err(|error| failed(Failure::Lost(error)))?;
    value.extract_error().map_err(|error| failed(Failure::Refused(error)))
}

/// Asks every master to give memory back.
pub(crate) async fn purge(caller: &Caller) -> Result<Compaction> {
    let masters = caller.topology().masters();
    let before = resident_bytes(&masters).await?;
    for node in &masters {
        let mut command = redis::cmd("MEMORY");
        command.arg("PURGE");
        ask(node, &command).await?;
    }
    let after = resident_bytes(&masters).await?;
    Ok(Compaction { bytes_before: before, bytes_after: after })
}

async fn resident_bytes(masters: &[Arc<Node>]) -> Result<Option<u64>> {
    let mut sum = Some(0);
    for node in masters {
        let info = info(node, "memory").await?;
        let bytes = info.field("used_memory_rss").and_then(|text| text.parse::<u64>().ok());
        sum = sum.zip(bytes).map(|(sum, bytes)| sum + bytes);
    }
    Ok(sum)
}
