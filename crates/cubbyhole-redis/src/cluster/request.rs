//! A request to the master of a slot.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Cmd, Pipeline, ToRedisArgs};

use crate::effect::Effect;
use crate::keys::HashTag;
use crate::scripts::Script;

/// A command, and the slot that its keys are in.
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

    /// A script with all keys that it touches.
    pub(crate) fn script(
        tag: &HashTag,
        effect: Effect,
        script: &'static LazyLock<Script>,
        keys: &[String],
    ) -> Self {
        Self::script_of(tag, effect, script, keys, 0)
    }

    /// A script whose arguments have about so many bytes, which is asked of the system at once.
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

    /// The command with what goes before and behind it, and its position among them. What goes
    /// together is written together, so that nothing of others comes between.
    pub(super) fn together(
        &self,
        asking: bool,
        with_script: bool,
        replicas: u32,
        wait: Duration,
    ) -> (Pipeline, usize) {
        let mut together = Pipeline::new();
        if let Some(script) = self.script.filter(|_| with_script) {
            together.cmd("SCRIPT").arg("LOAD").arg(script.source);
        }
        if asking {
            together.cmd("ASKING");
        }
        let position = together.len();
        together.add_command(self.command.clone());
        if replicas > 0 {
            // Zero would wait for ever.
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            together.cmd("WAIT").arg(replicas).arg(millis);
        }
        (together, position)
    }
}
