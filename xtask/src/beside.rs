//! Builds and checks at low priority, next to the tests. The tests often wait for a server, and leave
//! the processors idle.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::process::{line, output};

/// The steps that have passed, with their durations.
type Passed = Vec<(&'static str, Duration)>;

/// Steps that run one after the other in the background. Dropping it skips the steps that have not
/// begun.
pub(crate) struct Beside {
    running: Option<JoinHandle<Result<Passed, String>>>,
    stop: Arc<AtomicBool>,
}

impl Beside {
    /// Starts the steps.
    pub(crate) fn start(steps: Vec<(&'static str, Command)>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let running = thread::spawn(move || {
            let mut passed = Passed::new();
            for (name, command) in steps {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let start = Instant::now();
                let failed = |error| format!("step `{name}` failed: {error}");
                output(&mut at_low_priority(&command)).map_err(failed)?;
                println!("==> {name}, next to the tests: {}", line(&command));
                passed.push((name, start.elapsed()));
            }
            Ok(passed)
        });
        Self { running: Some(running), stop }
    }

    /// Waits for the steps. The first error has the output of its command.
    pub(crate) fn finish(mut self) -> Result<Passed, String> {
        match self.running.take() {
            Some(running) => running.join().map_err(|_| "a step next to the tests panicked")?,
            None => Ok(Passed::new()),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(running) = self.running.take() {
            // The tests have failed, and their error is the one to report.
            let _ = running.join();
        }
    }
}

/// Returns the same command with the lowest priority, where the system has `nice`.
fn at_low_priority(command: &Command) -> Command {
    let has_nice = ["/usr/bin/nice", "/bin/nice"].iter().any(|path| PathBuf::from(path).exists());
    let mut lowered = if has_nice {
        let mut nice = Command::new("nice");
        nice.args(["-n", "19"]).arg(command.get_program());
        nice
    } else {
        Command::new(command.get_program())
    };
    lowered.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => lowered.env(name, value),
            None => lowered.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        lowered.current_dir(folder);
    }
    lowered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("STEP", "1");
        command
    }

    #[test]
    fn steps_run_in_order_and_are_returned() {
        let steps = vec![("first", shell("test $STEP = 1")), ("second", shell("true"))];
        let passed = Beside::start(steps).finish().unwrap();
        assert_eq!(passed.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["first", "second"]);
    }

    #[test]
    fn first_failed_step_is_named_with_its_output() {
        let steps = vec![("lint", shell("echo broken >&2; exit 3")), ("next", shell("true"))];
        let error = Beside::start(steps).finish().unwrap_err();
        assert!(error.starts_with("step `lint` failed: exit status: 3"), "{error}");
        assert!(error.contains("broken"), "{error}");
    }
}
