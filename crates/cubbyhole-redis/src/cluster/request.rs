//! A request to the master of a slot.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Cmd, Pipeline, ToRedisArgs};

use crate::effect::Effect;
use crate::keys::HashTag;
use crate::scripts::Script;

/// A command, the slot of its keys, and its effect.
pub(crate) struct Request {
    pub(super) slot: u16,
    pub(super) effect: Effect,
    pub(super) command: Cmd,
    script: Option<&'static Script>,
}

impl Request {
    pub(crate) fn command(tag: &HashTag, effect: Effect, name: &str) -> Self {
        Self { slot: tag.slot(), effect, command: redis::cmd(name), script: None }
    }

    /// A script call with all keys that the script accesses.
    pub(crate) fn script(
        tag: &HashTag,
        effect: Effect,
        script: &'static LazyLock<Script>,
        keys: &[String],
    ) -> Self {
        Self::script_of(tag, effect, script, keys, 0)
    }

    /// The same as [`script`](Self::script), with room for arguments of about this many bytes,
    /// which avoids reallocations.
    pub(crate) fn script_of(
        tag: &HashTag,
        effect: Effect,
        script: &'static LazyLock<Script>,
        keys: &[String],
        bytes: usize,
    ) -> Self {
        let script: &'static Script = LazyLock::force(script);
        let names: usize = keys.iter().map(|key| 2 * key.len()).sum();
        let mut command = Cmd::with_capacity(8 + 6 * keys.len(), 128 + names + bytes);
        command.arg("EVALSHA");
        command.arg(&script.digest).arg(keys.len()).arg(keys);
        Self { slot: tag.slot(), effect, command, script: Some(script) }
    }

    pub(crate) fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.command.arg(arg);
        self
    }

    /// Returns a pipeline of the command and the commands around it, and the position of the
    /// command in it. A pipeline is written without interleaving requests of other callers.
    pub(super) fn pipeline(
        &self,
        asking: bool,
        with_script: bool,
        replicas: u32,
        wait: Duration,
    ) -> (Pipeline, usize) {
        let mut pipeline = Pipeline::new();
        if let Some(script) = self.script.filter(|_| with_script) {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script.source);
        }
        if asking {
            pipeline.cmd("ASKING");
        }
        let position = pipeline.len();
        pipeline.add_command(self.command.clone());
        if replicas > 0 {
            // Zero means no time limit.
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            pipeline.cmd("WAIT").arg(replicas).arg(millis);
        }
        (pipeline, position)
    }
}
