//! Setting the store's time back to the machine's clock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cubbyhole_core::{
    ClockAction, ClockAhead, Error, ExecutionContext, RepairOptions, RepairReport, Result,
    ResultExt, Timestamp,
};

use crate::call::begin;
use crate::config::Config;
use crate::engine::{ReadMode, Snapshot};
use crate::error::{Failure, OpenFailure};
use crate::file::StoreFile;
use crate::reader::panicked;
use crate::url_path::shown;
use crate::writer::checkpoint;

/// How far the store's time may be ahead of the clock without remark: machines that share a file are
/// set apart a little.
pub(crate) const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// Repairs with [`RepairOptions::new`], and returns a line for each repair: nothing if nothing was
/// wrong.
///
/// # Errors
/// As [`repair_with_options`], and the failure in its report.
pub async fn repair(ctx: &ExecutionContext, config: &Config) -> Result<Vec<String>> {
    let report = repair_with_options(ctx, config, &RepairOptions::new()).await?;
    report.failure.map_or(Ok(report.repaired), Err)
}

/// Sets the store's time back to the configured clock, where that is more than a minute behind it:
/// for a store that was written to while the clock was ahead. Entries that have expired by the
/// store's time, not by the clock, and were not swept, are live again. Entries that were written
/// meanwhile keep their instants: one with a TTL expires as late as it was told to.
///
/// [`ClockAction::Report`] only counts these entries, and changes nothing. The time is set back in one
/// durable commit, or not at all.
///
/// # Errors
/// As [`EmbeddedStore::open`](crate::EmbeddedStore::open) of a file that is not to be created; it does
/// not wait where another process has the file open. `PermissionDenied` if the configuration is
/// read-only. The context's end: nothing is changed then. After the commit, a failure to close the
/// file is in the report.
pub async fn repair_with_options(
    ctx: &ExecutionContext,
    config: &Config,
    options: &RepairOptions,
) -> Result<RepairReport> {
    begin(ctx, "repair").await?;
    let action = options.clock();
    let repair = async {
        let config = config.clone().with_create(false);
        // It ends with the caller's context, and with the caller's future, up to the commit. Then it
        // is waited for, so that the outcome is known.
        let child = ctx.child();
        let _end = child.cancellation().clone().drop_guard();
        let task = tokio::task::spawn_blocking(move || judge_clock(&child, config, action));
        task.await.map_err(panicked)?
    };
    repair.await.in_operation("repair")
}

fn judge_clock(
    ctx: &ExecutionContext,
    config: Config,
    action: ClockAction,
) -> Result<RepairReport> {
    if config.is_read_only() {
        return Err(Error::permission_denied(format!(
            "redb:{} is open read-only; open it for writing to repair it",
            shown(config.path())
        )));
    }
    let clock = config.clock();
    let (file, mark) = StoreFile::open(config).map_err(OpenFailure::into_error)?;
    let wall = clock.now();
    let repaired = if mark.saturating_since(wall) > CLOCK_TOLERANCE {
        let outcome = catch_unwind(AssertUnwindSafe(|| set_back(ctx, &file, mark, wall, action)));
        outcome.unwrap_or_else(|_| {
            Err(Error::corrupt("the engine failed over the file; it may be damaged").into())
        })
    } else {
        Ok(RepairReport::default())
    };
    let closed = file.close();
    let report = repaired.map_err(Failure::into_error)?;
    Ok(RepairReport { failure: closed.in_operation("repair").err(), ..report })
}

fn set_back(
    ctx: &ExecutionContext,
    file: &StoreFile,
    mark: Timestamp,
    wall: Timestamp,
    action: ClockAction,
) -> Result<RepairReport, Failure> {
    let guard = file.read();
    let handle = guard.handle.as_ref().ok_or_else(|| file.absent())?;
    let saw_expired = AtomicBool::new(false);
    let snapshot =
        Snapshot::open(&handle.database, || mark, ReadMode::Blocking(ctx), &saw_expired)?;
    let ahead = snapshot.ahead_of(wall)?;
    drop(snapshot);
    ctx.check()?;
    let mut repaired = Vec::new();
    if action == ClockAction::SetBack {
        // Its salt makes the log's records void, which hold the old time too.
        checkpoint(handle, wall)?;
        repaired.push(line(&ahead));
    }
    Ok(RepairReport { repaired, clock_ahead: Some(ahead), ..RepairReport::default() })
}

fn line(ahead: &ClockAhead) -> String {
    let mut line = format!(
        "the clock: the store's time was {} and is set back to {}; {}",
        ahead.store_time,
        ahead.clock,
        revived(ahead)
    );
    if ahead.written_later > 0 {
        line.push_str(&format!(
            "; entries that were written at later instants keep these, and their expiry: {}",
            ahead.written_later
        ));
    }
    line
}

/// What setting the time back revives.
pub(crate) fn revived(ahead: &ClockAhead) -> String {
    match ahead.revived {
        0 => "that revives no entry".to_owned(),
        revived => format!(
            "that revives expired entries that were not swept: {revived}, in {} namespaces",
            ahead.revived_namespaces
        ),
    }
}
