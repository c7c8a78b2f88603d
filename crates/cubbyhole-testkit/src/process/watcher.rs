//! A watcher: a shell script that runs a server and ends it when the tests end, even if they are
//! killed. Its stdin is a pipe that the tests hold open.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::process::folder::Folder;
use crate::process::table::Process;

const SCRIPT: &str = include_str!("watcher.sh");

/// A program and its watcher, which removes the program's folder in the end. The watcher continues
/// after the program has ended.
pub(crate) struct Watcher {
    shell: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pid: u32,
    /// The exit status of the program, once the watcher has waited for it.
    status: Option<i32>,
}

impl Watcher {
    /// Starts `program` as the owner of `folder`, and appends its output to `log`. Environment
    /// variables with that prefix are not passed on: they are settings for the developer's servers.
    pub(crate) fn start(
        folder: &Folder,
        log: &Path,
        program: &Path,
        arguments: &[OsString],
        prefix: &str,
    ) -> Result<Self, String> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "cubbyhole-watcher"]);
        command.arg(folder.path()).arg(log).arg(program).args(arguments);
        folder.run_as_owner(without_settings(&mut command, prefix));
        // A separate process group, because the watcher must outlive the tests after Ctrl-C.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = command.spawn().map_err(|error| format!("cannot run `sh`: {error}"))?;
        let input = shell.stdin.take();
        let output = shell.stdout.take().ok_or("the watcher has no stdout")?;
        let mut watcher =
            Self { shell, input, output: BufReader::new(output), pid: 0, status: None };
        let answer = watcher.read()?;
        watcher.pid = answer
            .parse()
            .map_err(|_| format!("the watcher replied `{answer}` instead of a pid"))?;
        Ok(watcher)
    }

    /// Returns the program if it runs.
    pub(crate) fn program(&self) -> Result<Option<Process>, String> {
        if self.status.is_some() {
            return Ok(None);
        }
        // After the shell has waited for it, another process may have its pid.
        Ok(Process::running(self.pid)?.filter(|process| process.parent == self.shell.id()))
    }

    /// Ends the program immediately if it still runs. Returns its exit status as shells count it. The
    /// watcher keeps watching the folder.
    pub(crate) fn end(&mut self) -> Result<i32, String> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        self.write("end")?;
        let answer = self.read()?;
        let status = answer.strip_prefix("ended ").and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| format!("the watcher replied `{answer}`"))?;
        self.status = Some(status);
        Ok(status)
    }

    /// Ends the watcher without removing the folder, which another watcher has taken over.
    pub(crate) fn release(mut self) -> Result<(), String> {
        self.end()?;
        self.write("keep")
    }

    fn write(&mut self, word: &str) -> Result<(), String> {
        let input = self.input.as_mut().ok_or("the watcher has no stdin")?;
        writeln!(input, "{word}").map_err(|error| format!("the watcher has ended: {error}"))
    }

    fn read(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(|error| format!("the watcher: {error}"))?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.input.take());
        drop(self.shell.wait());
    }
}

/// Removes the developer's settings, such as `PGPORT`, from the environment of a command.
pub(crate) fn without_settings<'a>(command: &'a mut Command, prefix: &str) -> &'a mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(prefix) {
            command.env_remove(name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::process::table::signal;
    use crate::process::wait;

    const LIMIT: Duration = Duration::from_secs(60);

    fn start(folder: &Folder, arguments: &[&str]) -> Watcher {
        let log = folder.path().join("log");
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        Watcher::start(folder, &log, Path::new("sh"), &arguments, "NONE").unwrap()
    }

    #[test]
    fn program_that_ignores_some_signals_is_ended() {
        let folder = Folder::create().unwrap();
        // The shell starts it with INT and QUIT ignored.
        let mut watcher = start(&folder, &["-c", "exec sleep 600"]);
        let program = watcher.program().unwrap().unwrap();
        assert_eq!(watcher.end(), Ok(128 + 15));
        assert_eq!((watcher.program(), program.is_running()), (Ok(None), Ok(false)));
        assert!(folder.path().exists());
        drop(watcher);
        assert!(!folder.path().exists());
    }

    #[test]
    fn dropping_waits_for_a_slow_program() {
        const SLOW: &str = "trap 'sleep 0.5; exit' TERM; echo ready; while :; do sleep 0.01; done";
        let folder = Folder::create().unwrap();
        let watcher = start(&folder, &["-c", SLOW]);
        let log = folder.path().join("log");
        assert_eq!(
            wait::until(LIMIT, || Ok(fs::read(&log).is_ok_and(|l| !l.is_empty()))),
            Ok(true)
        );
        let program = watcher.program().unwrap().unwrap();
        drop(watcher);
        assert_eq!(program.is_running(), Ok(false));
    }

    #[test]
    fn watcher_survives_signals_for_the_tests() {
        let folder = Folder::create().unwrap();
        let mut watcher = start(&folder, &["-c", "exec sleep 600"]);
        let shell = Process::running(watcher.shell.id()).unwrap().unwrap();
        for name in ["HUP", "INT", "PIPE", "TERM"] {
            signal(name, std::slice::from_ref(&shell)).unwrap();
        }
        assert_eq!(watcher.end(), Ok(128 + 15));
    }

    #[test]
    fn released_folder_stays_and_has_the_output() {
        let folder = Folder::create().unwrap();
        let mut watcher = start(&folder, &["-c", "echo out; echo err >&2; exit 3"]);
        let ended = wait::until(LIMIT, || Ok(watcher.program()?.is_none()));
        assert_eq!((ended, watcher.end()), (Ok(true), Ok(3)));
        watcher.release().unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("log")).unwrap(), "out\nerr\n");
    }
}
