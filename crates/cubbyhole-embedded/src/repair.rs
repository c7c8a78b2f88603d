//! Setting the store's time back to the machine's clock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cubbyhole_core::{Error, ExecutionContext, Result, ResultExt, Timestamp};

use crate::call::begin;
use crate::config::EmbeddedConfig;
use crate::error::{Failure, OpenFailure};
use crate::file::StoreFile;
use crate::reader::panicked;
use crate::snapshot::{Ahead, Place, Snapshot};
use crate::writer::checkpoint;

/// How far the store's time may be ahead of the clock without remark: machines that share a file are
/// set apart a little.
pub(crate) const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// Sets the store's time back to the configured clock, where that is more than a minute behind it:
/// for a store that was written to while the clock was ahead. Entries that have expired by the
/// store's time, not by the clock, and were not swept, are live again. Entries that were written
/// meanwhile keep their instants: one with a TTL expires as late as it was told to. [`diagnose`]
/// says how many there are.
///
/// Returns what was done, a line each: nothing if nothing was wrong. The time is set back in one
/// durable commit, or not at all.
///
/// [`diagnose`]: crate::diagnose
///
/// # Errors
/// As [`EmbeddedStore::open`](crate::EmbeddedStore::open) of a file that is not to be created; it does
/// not wait where another process has the file open. The context's end: nothing is changed then.
pub async fn repair(ctx: &ExecutionContext, config: &EmbeddedConfig) -> Result<Vec<String>> {
    begin(ctx, "repair").await?;
    let repair = async {
        let config = config.clone().with_create(false);
        // It ends with the caller's context, and with the caller's future, up to the commit. Then it
        // is waited for, so that the outcome is known.
        let child = ctx.child();
        let _end = child.cancellation().clone().drop_guard();
        let task = tokio::task::spawn_blocking(move || set_clock_back(&child, config));
        task.await.map_err(panicked)?
    };
    repair.await.in_operation("repair")
}

fn set_clock_back(ctx: &ExecutionContext, config: EmbeddedConfig) -> Result<Vec<String>> {
    let clock = config.clock();
    let (file, mark) = StoreFile::open(config).map_err(OpenFailure::into_error)?;
    let wall = clock.now();
    let repaired = if mark.saturating_since(wall) > CLOCK_TOLERANCE {
        let outcome = catch_unwind(AssertUnwindSafe(|| set_mark(ctx, &file, mark, wall)));
        outcome.unwrap_or_else(|_| {
            Err(Error::corrupt("the engine failed over the file; it may be damaged").into())
        })
    } else {
        Ok(Vec::new())
    };
    let closed = file.close();
    let lines = repaired.map_err(Failure::into_error)?;
    closed?;
    Ok(lines)
}

fn set_mark(
    ctx: &ExecutionContext,
    file: &StoreFile,
    mark: Timestamp,
    wall: Timestamp,
) -> Result<Vec<String>, Failure> {
    let guard = file.read();
    let handle = guard.handle.as_ref().ok_or_else(|| file.absent())?;
    let witnessed = AtomicBool::new(false);
    let ahead =
        Snapshot::open(&handle.database, || mark, Place::Pool(ctx), &witnessed)?.ahead_of(wall)?;
    ctx.check()?;
    // Its salt makes the log's records void, which hold the old time too.
    checkpoint(handle, wall)?;
    Ok(vec![report(&ahead, mark, wall)])
}

fn report(ahead: &Ahead, mark: Timestamp, wall: Timestamp) -> String {
    let mut line = format!("the clock: the store's time was {mark} and is set back to {wall}; ");
    line.push_str(&revived(ahead));
    if ahead.written_later > 0 {
        line.push_str(&format!(
            "; entries that were written at later instants keep these, and their expiry: {}",
            ahead.written_later
        ));
    }
    line
}

/// What setting the time back revives.
pub(crate) fn revived(ahead: &Ahead) -> String {
    match ahead.expired {
        0 => "that revives no entry".to_owned(),
        expired => format!(
            "that revives expired entries that were not swept: {expired}, in {} namespaces",
            ahead.namespaces
        ),
    }
}
