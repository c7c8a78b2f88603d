//! Other processes: who runs, and signals to them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const PROC: &str = "/proc";

/// A process as it was seen once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    /// Ended, and only not yet waited for.
    is_zombie: bool,
    /// When it began, in the words of the system: two processes that had the same pid one after
    /// the other differ in this.
    started: String,
}

impl Process {
    /// The process that has `pid` now, if it still runs.
    pub(crate) fn running(pid: u32) -> Result<Option<Self>, String> {
        let found = if Path::new(PROC).join("self/stat").exists() {
            fs::read_to_string(format!("{PROC}/{pid}/stat")).ok().and_then(|text| from_proc(&text))
        } else {
            all()?.into_iter().find(|process| process.pid == pid)
        };
        Ok(found.filter(|process| !process.is_zombie))
    }

    /// Whether this very process still runs.
    pub(crate) fn is_running(&self) -> Result<bool, String> {
        Ok(Self::running(self.pid)?.is_some_and(|now| now.started == self.started))
    }
}

/// The children of `parent` that run.
pub(crate) fn children(parent: u32) -> Result<Vec<Process>, String> {
    let mut all = all()?;
    all.retain(|process| process.parent == parent && !process.is_zombie);
    Ok(all)
}

/// Whether all of `processes` have ended.
pub(crate) fn none_runs(processes: &[Process]) -> Result<bool, String> {
    for process in processes {
        if process.is_running()? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sends `signal`, named without its `SIG`, to those of `processes` that still run.
///
/// The `kill` of the shell does it: std has none, and the program is missing on small systems.
pub(crate) fn signal(signal: &str, processes: &[Process]) -> Result<(), String> {
    for process in processes {
        if !process.is_running()? {
            continue;
        }
        let mut command = Command::new("sh");
        command.args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal]).arg(process.pid.to_string());
        // One that ended meanwhile needs no signal any more.
        if let Err(error) = output(&mut command)
            && process.is_running()?
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Runs `command` without input; what it printed, or the end of its complaint.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("`{program}` does not run: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("`{program}`: {}\n{}", output.status, last_lines(&complaint)))
}

/// As much of a log as is read in the message of an error.
pub(crate) fn last_lines(text: &str) -> String {
    const COUNT: usize = 30;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(COUNT)..].join("\n")
}

fn all() -> Result<Vec<Process>, String> {
    if Path::new(PROC).join("self/stat").exists() {
        let entries = fs::read_dir(PROC).map_err(|error| format!("{PROC}: {error}"))?;
        let stats = entries.flatten().map(|entry| entry.path().join("stat"));
        // What is no process has no such file, and what ended meanwhile none any more.
        return Ok(stats.filter_map(|path| from_proc(&fs::read_to_string(path).ok()?)).collect());
    }
    let mut command = Command::new("ps");
    command.args(["-A", "-o", "pid=", "-o", "ppid=", "-o", "stat=", "-o", "lstart="]);
    Ok(output(&mut command)?.lines().filter_map(from_ps).collect())
}

/// A line of `/proc/PID/stat`: the name, in parentheses, may hold spaces and parentheses.
fn from_proc(text: &str) -> Option<Process> {
    let (pid, rest) = text.split_once(" (")?;
    let (_name, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // The 22nd of all; the first two are the pid and the name.
    let started = fields.nth(17)?.to_owned();
    Some(Process { pid: pid.parse().ok()?, parent, is_zombie: is_zombie(state), started })
}

/// A line of `ps`: pid, parent, state, and a date that has spaces in it.
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
    fn both_sources_are_understood() {
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
    fn a_process_is_seen_signalled_and_gone() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let all = children(std::process::id()).unwrap();
        let seen = all.into_iter().find(|process| process.pid == child.id()).unwrap();
        assert!(seen.is_running().unwrap());
        let stranger = Process { started: "another time".to_owned(), ..seen.clone() };
        assert!(!stranger.is_running().unwrap());
        signal("KILL", &[stranger]).unwrap();
        assert!(seen.is_running().unwrap(), "a process of the same pid was killed");

        signal("KILL", std::slice::from_ref(&seen)).unwrap();
        // A zombie until it is waited for.
        let limit = Duration::from_secs(30);
        assert_eq!(wait::until(limit, || Ok(!seen.is_running()?)), Ok(true));
        child.wait().unwrap();
        signal("KILL", &[seen]).unwrap();
    }
}
