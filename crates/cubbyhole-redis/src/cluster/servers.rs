//! Requests to servers rather than to slots.

use std::sync::Arc;

use cubbyhole_core::{Compaction, Error, ErrorKind, ExecutionContext, Result};
use redis::{Pipeline, Value};

use super::call::Caller;
use super::node::Node;
use super::server_info::ServerInfo;
use crate::config::Config;
use crate::effect::Effect;
use crate::error::Failure;
use crate::keys::HashTag;
use crate::{replies, scripts};

/// The servers of a store.
pub(crate) struct Servers<'a>(&'a Caller);

impl<'a> Servers<'a> {
    pub(crate) const fn new(caller: &'a Caller) -> Self {
        Self(caller)
    }

    /// Checks version, mode and permissions of the servers. Retries while they are loading, busy or
    /// down.
    pub(crate) async fn admit(&self, ctx: &ExecutionContext) -> Result<()> {
        let mut retry = self.0.retry();
        loop {
            match ctx.race(self.admit_now()).await? {
                Err(error) if is_temporary(&error) && retry.wait(ctx).await? => {}
                admitted => return admitted,
            }
        }
    }

    /// Checks every master. One that passes is enough, because others may be down.
    async fn admit_now(&self) -> Result<()> {
        let topology = self.0.topology();
        topology.refresh(topology.generation(), None).await?;
        let mut admitted = false;
        let mut last = Error::unavailable("the Redis Cluster has no master");
        for node in topology.masters() {
            match ServerInfo::of(&node, "server").await {
                Ok(info) => {
                    info.check_version()?;
                    info.check_mode(topology.is_cluster())?;
                }
                // Without permission for `INFO`, the URL is trusted.
                Err(error)
                    if error.kind() == ErrorKind::PermissionDenied && !refuses_user(&error) => {}
                Err(error) => {
                    last = error;
                    continue;
                }
            }
            match check_rights(&node, self.0.config()).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => last = error,
                checked => {
                    checked?;
                    admitted = true;
                }
            }
        }
        if admitted { Ok(()) } else { Err(last) }
    }

    /// Asks every master to return free memory to the operating system.
    pub(crate) async fn purge(&self) -> Result<Compaction> {
        let masters = self.0.topology().masters();
        let before = resident_bytes(&masters).await?;
        for node in &masters {
            let mut command = redis::cmd("MEMORY");
            command.arg("PURGE");
            node.ask(&command).await?;
        }
        let after = resident_bytes(&masters).await?;
        Ok(Compaction { bytes_before: before, bytes_after: after })
    }
}

/// Checks that the user may run every command of the scripts.
async fn check_rights(node: &Node, config: &Config) -> Result<()> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("SCRIPT").arg("LOAD").arg(scripts::RIGHTS.source);
    let key = HashTag::root(config.prefix()).name_index();
    let wait = if config.wait_replicas > 0 { "wait" } else { "" };
    pipeline.cmd("EVALSHA").arg(&scripts::RIGHTS.digest).arg(0).arg(key).arg(wait);
    let mut connection = node.connection(0).await?;
    let answers = connection.send_all(&pipeline).await;
    let answers = answers.map_err(|error| Failure::Lost(error).into_error(Effect::Read))?;
    let mut missing = Value::Nil;
    for answer in answers {
        missing = match answer.extract_error() {
            // Another client flushed the scripts between the two commands. The check is skipped.
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
        "the Redis user may not run {missing} on keys that start with the prefix of the store; \
         docs/backends/redis.md has the ACL rule"
    ))
    .permanent())
}

/// Returns whether the server rejects the user, rather than one command.
fn refuses_user(error: &Error) -> bool {
    code_of(error) != Some("NOPERM")
}

fn is_temporary(error: &Error) -> bool {
    matches!(code_of(error), Some("LOADING" | "BUSY" | "CLUSTERDOWN" | "MASTERDOWN"))
}

/// Returns the code of the error reply that caused an error.
fn code_of(error: &Error) -> Option<&str> {
    let source = std::error::Error::source(error)?;
    source.downcast_ref::<redis::RedisError>()?.code()
}

async fn resident_bytes(masters: &[Arc<Node>]) -> Result<Option<u64>> {
    let mut sum = Some(0);
    for node in masters {
        let info = ServerInfo::of(node, "memory").await?;
        let bytes = info.field("used_memory_rss").and_then(|text| text.parse::<u64>().ok());
        sum = sum.zip(bytes).map(|(sum, bytes)| sum + bytes);
    }
    Ok(sum)
}
