//! Runs `cargo test` and repeats the output of failed tests at the end.
//!
//! One run prints thousands of lines, and the output of an early failure is far above the last line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::process::line;

/// The limit of kept lines, because a failed test may print without end.
const MAX_LINES: usize = 2000;

/// Runs `cargo test` and copies its stdout to `copy`. An error ends with the output of the failed tests
/// and a list of their names.
///
/// Calls `begun` when the first test program has begun, so everything is built.
pub(crate) fn run_tests(
    command: &mut Command,
    copy: &mut impl Write,
    begun: impl FnOnce(),
) -> Result<(), String> {
    let mut begun = Some(begun);
    command.stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", line(command)))?;
    let mut failures = Failures::default();
    if let Some(stdout) = child.stdout.take() {
        for text in BufReader::new(stdout).split(b'\n') {
            let text = text.map_err(|error| format!("the output of the tests: {error}"))?;
            let text = String::from_utf8_lossy(&text);
            // The tests continue if the output is closed.
            let _ = writeln!(copy, "{text}");
            failures.notice(&text);
            if let Some(begun) = begun.take() {
                begun();
            }
        }
    }
    let status = child.wait().map_err(|error| format!("{}: {error}", line(command)))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{status}: {}{}", line(command), failures.text()))
}

/// The failed tests in the output of test programs, and the sections about them.
#[derive(Default)]
struct Failures {
    names: Vec<String>,
    lines: Vec<String>,
    is_inside: bool,
}

impl Failures {
    /// Processes a line. A section starts with `failures:` and ends with the result of the program.
    fn notice(&mut self, line: &str) {
        let test = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix("... FAILED"));
        self.names.extend(test.map(|name| name.trim_end().to_owned()));
        self.is_inside |= line == "failures:";
        if self.is_inside && self.lines.len() < MAX_LINES {
            self.lines.push(line.to_owned());
        }
        self.is_inside &= !line.starts_with("test result:");
    }

    fn text(&self) -> String {
        let names = self.names.iter().map(|name| format!("failed: {name}"));
        self.lines.iter().cloned().chain(names).map(|line| format!("\n{line}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_are_repeated() {
        let output = "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nleft: 3\n\n\
                      failures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed\n\
                      test c ... ok\ntest result: ok. 1 passed; 0 failed";
        let mut failures = Failures::default();
        output.lines().for_each(|line| failures.notice(line));
        let kept = "\nfailures:\n\n---- b stdout ----\nleft: 3\n\nfailures:\n    b\n\n\
                    test result: FAILED. 1 passed; 1 failed\nfailed: b";
        assert_eq!(failures.text(), kept);
    }

    #[test]
    fn endless_failure_is_truncated() {
        let mut failures = Failures::default();
        failures.notice("failures:");
        (0..2 * MAX_LINES).for_each(|_| failures.notice("again"));
        assert_eq!(failures.lines.len(), MAX_LINES);
    }

    #[test]
    fn error_ends_with_the_failures() {
        let mut command = Command::new("sh");
        command.args(["-c", "printf 'test b  ... FAILED\\n'; exit 101"]);
        let mut copy = Vec::new();
        let error = run_tests(&mut command, &mut copy, || ()).unwrap_err();
        assert_eq!(copy, b"test b  ... FAILED\n");
        assert!(error.starts_with("exit status: 101"), "{error}");
        assert!(error.ends_with("\nfailed: b"), "{error}");
    }
}
