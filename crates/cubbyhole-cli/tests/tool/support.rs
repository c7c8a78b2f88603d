//! A temporary folder in which the tool runs.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{isolate, tool};

/// The configuration folder of a [`Sandbox`].
const CONFIG_FOLDER: &str = ".config";

/// A temporary folder. The default store of the tool is in it.
pub(crate) struct Sandbox {
    folder: TempDir,
}

/// The result of a call.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), contents).unwrap();
        name.to_owned()
    }

    /// Writes the configuration file in the platform's folder.
    pub(crate) fn configure(&self, text: &str) -> PathBuf {
        let folder = self.path(CONFIG_FOLDER).join("cubbyhole");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("config.toml");
        std::fs::write(&file, text).unwrap();
        file
    }

    /// Returns the names of the files in the folder.
    pub(crate) fn files(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Returns a call of the tool in this folder, without input.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tool();
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        self.isolate(&mut command);
        command
    }

    /// Removes the developer's settings from the environment of a command that runs the tool.
    pub(crate) fn isolate<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        isolate(command, &self.path(CONFIG_FOLDER))
    }

    /// Returns a call of the tool by a script of `sh`, in which `"$0" "$@"` is the tool and its
    /// arguments.
    #[cfg(unix)]
    pub(crate) fn in_shell(&self, script: &str, arguments: &[&str]) -> Command {
        let mut shell = Command::new("sh");
        // Does not use `tool()`, because the script may set signal handling.
        shell.args(["-c", script, env!("CARGO_BIN_EXE_cubbyhole")]).args(arguments);
        for (name, value) in self.command(arguments).get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.current_dir(self.folder.path()).stdin(Stdio::null());
        shell
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    pub(crate) fn run_reading(&self, arguments: &[&str], input: &[u8]) -> Ran {
        std::fs::write(self.path(".input"), input).unwrap();
        let input = File::open(self.path(".input")).unwrap();
        std::fs::remove_file(self.path(".input")).unwrap();
        Ran::of(self.command(arguments).stdin(input).output().unwrap())
    }

    /// Runs the tool, which must succeed, and returns its stdout.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    }

    /// Runs the tool with `--json`, and returns the objects on stdout.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let out = self.ok(&[arguments, &["--json"]].concat());
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs the tool, which must fail with one line on stderr, and returns the line.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        assert!(ran.stderr.starts_with("cubbyhole: "), "{ran:?}");
        ran.stderr
    }
}

/// Sends a signal to a process.
#[cfg(unix)]
pub(crate) fn signal(child: &Child, name: &str) {
    let kill = format!("kill -{name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

impl Ran {
    pub(crate) fn of(output: std::process::Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Returns the kind of the only JSON error on stderr.
    #[track_caller]
    pub(crate) fn error_kind(&self) -> String {
        let error: Value = serde_json::from_str(&self.stderr).unwrap();
        let object = error.as_object().unwrap();
        assert_eq!(object.len(), 1);
        let inner = object["error"].as_object().unwrap();
        let kind = inner["kind"].as_str().unwrap();
        let expected: &[&str] =
            if kind == "conflict" { &["kind", "message", "version"] } else { &["kind", "message"] };
        assert_eq!(inner.keys().collect::<Vec<_>>(), expected);
        inner["kind"].as_str().unwrap().to_owned()
    }
}

/// Returns one line of an import.
pub(crate) fn line(namespace: &str, key: &str, value: &str) -> String {
    let key = Value::from(key);
    format!("{{\"namespace\":[\"{namespace}\"],\"key\":{key},\"value\":{value}}}\n")
}

/// Timeouts to try, the shortest first, until the tool reaches some point in time. A busy machine
/// needs a longer one.
pub(crate) const TIMEOUTS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(16),
    Duration::from_secs(64),
];

/// A running import with a pipe for its input. It reports its batches.
pub(crate) struct PipedImport {
    pub(crate) child: Child,
    pub(crate) reports: BufReader<ChildStdout>,
}

impl PipedImport {
    pub(crate) fn start(sandbox: &Sandbox, options: &[&str]) -> Self {
        let arguments = [&["import", "--report-batches"], options].concat();
        Self::of(sandbox.command(&arguments))
    }

    /// Starts an import that reports its batches.
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let reports = BufReader::new(child.stdout.take().unwrap());
        Self { child, reports }
    }

    /// Writes lines to the input. A finished import ignores them.
    pub(crate) fn feed(&mut self, text: &str) {
        let _ = self.child.stdin.as_mut().unwrap().write_all(text.as_bytes());
    }

    /// Waits for the next report. Returns an empty text once the import has ended.
    pub(crate) fn report(&mut self) -> String {
        let mut report = String::new();
        self.reports.read_line(&mut report).unwrap();
        report
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits for the end while the input is still open.
    pub(crate) fn end(mut self) -> Ran {
        let stdin = self.child.stdin.take();
        let output = self.child.wait_with_output().unwrap();
        drop(stdin);
        Ran::of(output)
    }
}
