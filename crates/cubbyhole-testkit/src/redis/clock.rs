//! A manual clock: a file from which a library in the server reads the time instead of the system.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::process::folder::Folder;
use crate::process::preload::{Library, Preload};

static LIBRARY: Library = Library::new("clock", include_str!("clock.c"), "CUBBYHOLE_TEST_CLOCK");

/// The clock of one server, or of all nodes of a cluster.
pub(super) struct Clock {
    preload: Preload,
    /// The time in its file.
    micros: Mutex<i64>,
}

impl Clock {
    /// Creates a clock in `folder` that starts at the current time, in whole milliseconds.
    pub(super) fn create(folder: &Folder) -> Result<Self, String> {
        let micros = present_millis()? * 1000;
        let preload = Preload::create(folder, &LIBRARY, &micros.to_ne_bytes())?;
        Ok(Self { preload, micros: Mutex::new(micros) })
    }

    pub(super) fn preload(&self) -> &Preload {
        &self.preload
    }

    /// Returns the time since 1970.
    pub(super) fn now(&self) -> Duration {
        let micros = *self.micros.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_micros(micros.unsigned_abs())
    }

    pub(super) fn advance(&self, by: Duration) -> Result<(), String> {
        let mut micros = self.micros.lock().unwrap_or_else(PoisonError::into_inner);
        let later = i64::try_from(by.as_micros()).ok().and_then(|by| micros.checked_add(by));
        let later = later.ok_or_else(|| format!("the clock cannot represent {by:?} from now"))?;
        self.preload.overwrite(&later.to_ne_bytes(), 0)?;
        *micros = later;
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the clock that tests inject into a server starts at the current time"
)]
fn present_millis() -> Result<i64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    now.and_then(|now| i64::try_from(now.as_millis()).ok())
        .ok_or_else(|| "the clock of this machine is out of range".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn advancing_the_clock_overwrites_its_file() {
        let folder = Folder::create().unwrap();
        let clock = Clock::create(&folder).unwrap();
        let start = clock.now();
        assert_eq!(start.subsec_micros() % 1000, 0);
        clock.advance(Duration::from_micros(1_500_001)).unwrap();
        assert_eq!(clock.now() - start, Duration::from_micros(1_500_001));
        assert!(clock.advance(Duration::MAX).is_err());
        let bytes: [u8; 8] = fs::read(folder.path().join("clock")).unwrap().try_into().unwrap();
        assert_eq!(u128::from(u64::from_ne_bytes(bytes)), clock.now().as_micros());
    }
}
