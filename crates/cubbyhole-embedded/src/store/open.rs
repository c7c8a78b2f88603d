//! Opens a store, waiting while its file is open elsewhere.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cubbyhole_core::{ExecutionContext, HighWaterClock, Result};

use super::EmbeddedStore;
use crate::config::Config;
use crate::error::OpenFailure;
use crate::file::StoreFile;
use crate::reader::{Reader, task_error};
use crate::writer::Writer;

/// The time between two attempts to open the file.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

impl EmbeddedStore {
    pub(super) async fn open_when_free(ctx: &ExecutionContext, config: Config) -> Result<Self> {
        let mut wait = config.lock_wait();
        loop {
            let config = config.clone();
            let opening = tokio::task::spawn_blocking(move || Self::open_blocking(config));
            match ctx.race(opening).await?.map_err(task_error)? {
                Ok(store) => return Ok(store),
                Err(OpenFailure::Locked(_)) if !wait.is_zero() => {
                    let pause = wait.min(LOCK_PAUSE);
                    ctx.sleep(pause).await?;
                    wait -= pause;
                }
                Err(failure) => return Err(failure.into_error()),
            }
        }
    }

    fn open_blocking(config: Config) -> Result<Self, OpenFailure> {
        let clock = config.clock();
        let durability = config.durability();
        let max_value_bytes = config.max_value_bytes();
        let (file, mark) = StoreFile::open(config)?;
        let file = Arc::new(file);
        let clock = Arc::new(HighWaterClock::new(clock, mark));
        let saw_expired = Arc::new(AtomicBool::new(false));
        let writer = Writer::start(
            Arc::clone(&file),
            Arc::clone(&clock),
            Arc::clone(&saw_expired),
            durability,
        )?;
        let reader = Arc::new(Reader::new(file, clock, saw_expired));
        Ok(Self { reader, writer: Arc::new(writer), max_value_bytes })
    }
}
