//! The process table: which processes run, and signals to them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const PROC: &str = "/proc";

/// A process at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    /// Ended, but not yet waited for by its parent.
    is_zombie: bool,
    /// Its start time as the system prints it. It distinguishes two processes that had the same pid.
    started: String,
}

impl Process {
    /// Returns the process that has `pid` now, if it runs.
    pub(crate) fn running(pid: u32) -> Result<Option<Self>, String> {
        let found = if Path::new(PROC).join("self/stat").exists() {
            fs::read_to_string(format!("{PROC}/{pid}/stat")).ok().and_then(|text| from_proc(&text))
        } else {
            all()?.into_iter().find(|process| process.pid == pid)
        };
        Ok(found.filter(|process| !process.is_zombie))
    }

    /// Returns whether the same process still runs.
    pub(crate) fn is_running(&self) -> Result<bool, String> {
        Ok(Self::running(self.pid)?.is_some_and(|now| now.started == self.started))
    }
}

/// Returns the running children of `parent`.
pub(crate) fn children(parent: u32) -> Result<Vec<Process>, String> {
    let mut all = all()?;
    all.retain(|process| process.parent == parent && !process.is_zombie);
    Ok(all)
}

/// Returns whether all of `processes` have ended.
pub(crate) fn none_runs(processes: &[Process]) -> Result<bool, String> {
    for process in processes {
        if process.is_running()? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sends `signal`, without its `SIG`, to those of `processes` that still run.
///
/// It uses the shell's `kill`: the standard library has none, and small systems lack the program.
pub(crate) fn signal(signal: &str, processes: &[Process]) -> Result<(), String> {
    for process in processes {
        if !process.is_running()? {
            continue;
        }
        let mut command = Command::new("sh");
        command.args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal]).arg(process.pid.to_string());
        // A process that has ended since then needs no signal.
        if let Err(error) = output(&mut command)
            && process.is_running()?
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Runs `command` without input. Returns its stdout, or an error with the end of its stderr.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run `{program}`: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("`{program}`: {}\n{}", output.status, last_lines(&stderr)))
}

/// Returns the end of a log, for an error message.
pub(crate) fn last_lines(text: &str) -> String {
    const COUNT: usize = 30;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(COUNT)..].join("\n")
}

fn all() -> Result<Vec<Process>, String> {
    if Path::new(PROC).join("self/stat").exists() {
        let entries = fs::read_dir(PROC).map_err(|error| format!("{PROC}: {error}"))?;
        let stats = entries.flatten().map(|entry| entry.path().join("stat"));
        // Entries that are no process have no such file, and a process may end in between.
        return Ok(stats.filter_map(|path| from_proc(&fs::read_to_string(path).ok()?)).collect());
    }
    let mut command = Command::new("ps");
    command.args(["-A", "-o", "pid=", "-o", "ppid=", "-o", "stat=", "-o", "lstart="]);
    Ok(output(&mut command)?.lines().filter_map(from_ps).collect())
}

/// Parses `/proc/PID/stat`. The name in parentheses may contain spaces and parentheses.
fn from_proc(text: &str) -> Option<Process> {
    let (pid, rest) = text.split_once(" (")?;
    let (_name, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // The 22nd field of all. The first two are the pid and the name.
    let started = fields.nth(17)?.to_owned();
    Some(Process { pid: pid.parse().ok()?, parent, is_zombie: is_zombie(state), started })
}

/// Parses a line of `ps`: pid, parent, state, and a date with spaces.
fn from_ps(line: &str) -> Option<Process> {
    let mut fields = line.split_whitespace();
    let pid = fields.next()?.parse().ok()?;
    let parent = fields.next()?.parse().ok()?;
    let is_zombie = is_zombie(fields.next()?);
    Some(Process { pid, parent, is_zombie, started: fields.collect::<Vec<_>>().join(" ") })
}

fn is_zombie(state: &str) -> bool {
    state.starts_with(['Z', 'X'])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::process::wait;

    #[test]
    fn proc_and_ps_are_parsed() {
        let stat = "4242 (a (b) c) S 17 4242 4242 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 11";
        let process = from_proc(stat).unwrap();
        assert_eq!((process.pid, process.parent, process.is_zombie), (4242, 17, false));
        assert_eq!(process.started, "987654");
        assert!(from_proc(&stat.replace(" S ", " Z ")).unwrap().is_zombie);

        let process = from_ps("  4242    17 Ss   Mon Nov 23 00:34:44 2026").unwrap();
        assert_eq!((process.pid, process.parent, process.is_zombie), (4242, 17, false));
        assert_eq!(process.started, "Mon Nov 23 00:34:44 2026");
        assert!(from_ps("1 0 Z+ Mon Nov 23 00:34:44 2026").unwrap().is_zombie);
    }

    #[test]
    fn child_is_listed_signalled_and_gone() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let all = children(std::process::id()).unwrap();
        let seen = all.into_iter().find(|process| process.pid == child.id()).unwrap();
        assert!(seen.is_running().unwrap());
        let stranger = Process { started: "another time".to_owned(), ..seen.clone() };
        assert!(!stranger.is_running().unwrap());
        signal("KILL", &[stranger]).unwrap();
        assert!(seen.is_running().unwrap(), "a process of the same pid was killed");

        signal("KILL", std::slice::from_ref(&seen)).unwrap();
        // It is a zombie until its parent waits for it.
        let limit = Duration::from_secs(30);
        assert_eq!(wait::until(limit, || Ok(!seen.is_running()?)), Ok(true));
        child.wait().unwrap();
        signal("KILL", &[seen]).unwrap();
    }
}
