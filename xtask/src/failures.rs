//! What `cargo test` said of the tests that failed, kept to be said once more at the end.
//!
//! One run prints thousands of lines, and a test that fails early is far above the last of them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::process::line;

/// How many lines of failures are kept. A test that prints without end fills no memory.
const MAX_LINES: usize = 2000;

/// Runs a `cargo test` and copies its stdout to this program's own. An error ends with the output of
/// every test that failed.
pub(crate) fn run_tests(command: &mut Command) -> Result<(), String> {
    command.stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", line(command)))?;
    let mut failures = Failures::default();
    if let Some(stdout) = child.stdout.take() {
        let mut copy = std::io::stdout().lock();
        for text in BufReader::new(stdout).split(b'\n') {
            let text = text.map_err(|error| format!("the output of the tests: {error}"))?;
            let text = String::from_utf8_lossy(&text);
            // A closed stdout is no reason to end the tests.
            let _ = writeln!(copy, "{text}");
            failures.notice(&text);
        }
    }
    let status = child.wait().map_err(|error| format!("{}: {error}", line(command)))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{status}: {}{}", line(command), failures.text()))
}

/// The sections of failures in the output of test programs.
#[derive(Default)]
struct Failures {
    lines: Vec<String>,
    is_inside: bool,
}

impl Failures {
    /// A section begins with `failures:` and ends with the program's result.
    fn notice(&mut self, line: &str) {
        self.is_inside |= line == "failures:";
        if self.is_inside && self.lines.len() < MAX_LINES {
            self.lines.push(line.to_owned());
        }
        self.is_inside &= !line.starts_with("test result:");
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("\n{line}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sections_of_failures_are_kept_and_nothing_else() {
        let output = "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nleft: 3\n\n\
                      failures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed\n\
                      test c ... ok\ntest result: ok. 1 passed; 0 failed";
        let mut failures = Failures::default();
        output.lines().for_each(|line| failures.notice(line));
        let kept = "\nfailures:\n\n---- b stdout ----\nleft: 3\n\nfailures:\n    b\n\n\
                    test result: FAILED. 1 passed; 1 failed";
        assert_eq!(failures.text(), kept);
    }

    #[test]
    fn an_endless_failure_is_cut() {
        let mut failures = Failures::default();
        failures.notice("failures:");
        (0..2 * MAX_LINES).for_each(|_| failures.notice("again"));
        assert_eq!(failures.lines.len(), MAX_LINES);
    }

    #[test]
    fn an_error_ends_with_the_failures() {
        let mut command = Command::new("sh");
        command.args(["-c", "printf 'failures:\\n  b\\ntest result: FAILED\\n'; exit 101"]);
        let error = run_tests(&mut command).unwrap_err();
        assert!(error.starts_with("exit status: 101"), "{error}");
        assert!(error.ends_with("\nfailures:\n  b\ntest result: FAILED"), "{error}");
    }
}
