//! A clock that stands still until it is moved: a file that a library, loaded into the server in
//! front of the system's, reads the time from.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::folder::Folder;
use crate::process::output;

const SOURCE: &str = include_str!("clock.c");

const ADVICE: &str = "\
A Redis whose clock stands still needs a C compiler, `cc`. Install it:
  Debian, Ubuntu   apt-get install gcc libc6-dev
  Fedora           dnf install gcc";

/// The library, once it was compiled.
static LIBRARY: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// The clock of one server, or of all nodes of a cluster.
pub(super) struct Clock {
    file: File,
    path: PathBuf,
    library: PathBuf,
    /// What the file says.
    micros: Mutex<i64>,
}

impl Clock {
    /// A clock in `folder` that stands at the present, in whole milliseconds.
    pub(super) fn create(folder: &Folder) -> Result<Self, String> {
        if !cfg!(target_os = "linux") {
            return Err("a Redis whose clock stands still needs Linux".to_owned());
        }
        let library = folder.write("clock.so", library(folder)?)?;
        let micros = present_millis()? * 1000;
        let path = folder.write("clock", micros.to_ne_bytes())?;
        let file = OpenOptions::new().write(true).open(&path);
        let file = file.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { file, path, library, micros: Mutex::new(micros) })
    }

    /// What the program `env` sets for a server that is to live by this clock.
    pub(super) fn variables(&self) -> [OsString; 2] {
        let variable = |name: &str, path: &Path| {
            let mut variable = OsString::from(name);
            variable.push("=");
            variable.push(path);
            variable
        };
        [variable("CUBBYHOLE_TEST_CLOCK", &self.path), variable("LD_PRELOAD", &self.library)]
    }

    /// The time since 1970.
    pub(super) fn now(&self) -> Duration {
        let micros = *self.micros.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_micros(micros.unsigned_abs())
    }

    pub(super) fn advance(&self, by: Duration) -> Result<(), String> {
        let mut micros = self.micros.lock().unwrap_or_else(PoisonError::into_inner);
        let later = i64::try_from(by.as_micros()).ok().and_then(|by| micros.checked_add(by));
        let later = later.ok_or_else(|| format!("the clock does not reach {by:?} from now"))?;
        // In one piece: the server reads at any moment.
        self.file
            .write_all_at(&later.to_ne_bytes(), 0)
            .map_err(|error| format!("{}: {error}", self.path.display()))?;
        *micros = later;
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the clock that tests inject into a server has to begin somewhere"
)]
fn present_millis() -> Result<i64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    now.and_then(|now| i64::try_from(now.as_millis()).ok())
        .ok_or_else(|| "the clock of this machine is centuries off".to_owned())
}

/// The library's content; compiled in `folder` if this program has not done so yet.
fn library(folder: &Folder) -> Result<Vec<u8>, String> {
    // Held throughout, so that tests that start together compile once.
    let mut library = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = &*library {
        return Ok(library.clone());
    }
    let source = folder.write("clock.c", SOURCE)?;
    let compiled = folder.path().join("clock.compiled");
    let mut command = Command::new("cc");
    command.args(["-O1", "-shared", "-fPIC", "-pipe", "-o"]).arg(&compiled).arg(source);
    output(&mut command).map_err(|error| format!("{error}\n{ADVICE}"))?;
    let content =
        fs::read(&compiled).map_err(|error| format!("{}: {error}", compiled.display()))?;
    *library = Some(content.clone());
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_clock_is_a_file_that_is_overwritten() {
        let folder = Folder::create().unwrap();
        let clock = Clock::create(&folder).unwrap();
        let start = clock.now();
        assert_eq!(start.subsec_micros() % 1000, 0);
        clock.advance(Duration::from_micros(1_500_001)).unwrap();
        assert_eq!(clock.now() - start, Duration::from_micros(1_500_001));
        assert!(clock.advance(Duration::MAX).is_err());
        let bytes: [u8; 8] = fs::read(&clock.path).unwrap().try_into().unwrap();
        assert_eq!(u128::from(u64::from_ne_bytes(bytes)), clock.now().as_micros());
    }
}
