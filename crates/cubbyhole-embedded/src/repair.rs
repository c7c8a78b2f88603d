//! Repair: sets the store's time back to the machine's clock.

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
use crate::error::{ENGINE_PANIC, Failure, OpenFailure};
use crate::file::StoreFile;
use crate::reader::task_error;
use crate::url_path::shown;
use crate::writer::checkpoint;

/// The lead of the store's time over the clock that is ignored, because the clocks of machines that
/// use the same file differ a little.
pub(crate) const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// Repairs a file with the default options. Returns one line of text for each repair, or nothing if
/// no repair was necessary.
///
/// ```
/// # use cubbyhole_core::ExecutionContext;
/// # use cubbyhole_embedded::{Config, EmbeddedStore, repair};
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let config = Config::new(folder.path().join("state.redb"));
/// # let ctx = ExecutionContext::new();
/// # drop(EmbeddedStore::open(&ctx, config.clone()).await?);
/// assert!(repair(&ctx, &config).await?.is_empty());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The same errors as [`repair_with_options`], and the failure in its report.
pub async fn repair(ctx: &ExecutionContext, config: &Config) -> Result<Vec<String>> {
    let report = repair_with_options(ctx, config, &RepairOptions::new()).await?;
    report.failure.map_or(Ok(report.repaired), Err)
}

/// Sets the store's time back to the configured clock if the clock is more than 60 s behind it.
/// This repairs a store that was written while the clock was ahead.
///
/// Entries that have expired by the store's time but not by the clock are live again, unless a
/// sweep has removed them. Entries that were written while the clock was ahead keep their
/// timestamps, including their expiry.
///
/// [`ClockAction::Report`] only counts these entries and changes nothing. Otherwise one durable
/// commit sets the time back.
///
/// # Errors
/// - The errors of [`EmbeddedStore::open`](crate::EmbeddedStore::open) for a file that must exist.
///   The call does not wait if the file is open elsewhere.
/// - `PermissionDenied` if the configuration is read-only.
/// - `Cancelled` or `DeadlineExceeded` if the context ends before the commit. The file is unchanged
///   then.
///
/// If closing the file fails after the commit, the report contains the error.
pub async fn repair_with_options(
    ctx: &ExecutionContext,
    config: &Config,
    options: &RepairOptions,
) -> Result<RepairReport> {
    begin(ctx, "repair").await?;
    let action = options.clock();
    let repair = async {
        let config = config.clone().with_create(false);
        // Up to the commit, the task ends when the caller's context ends or its future is dropped.
        // The result of the task is always awaited, so the outcome is known.
        let child = ctx.child();
        let _end = child.cancellation().clone().drop_guard();
        let task = tokio::task::spawn_blocking(move || repair_clock(&child, config, action));
        task.await.map_err(task_error)?
    };
    repair.await.in_operation("repair")
}

/// Opens the file, sets its time back if necessary, and closes it.
fn repair_clock(
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
        outcome.unwrap_or_else(|_| Err(Error::corrupt(ENGINE_PANIC).into()))
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
    let handle = guard.handle.as_ref().ok_or_else(|| file.no_handle())?;
    let saw_expired = AtomicBool::new(false);
    let snapshot =
        Snapshot::open(&handle.database, || mark, ReadMode::Blocking(ctx), &saw_expired)?;
    let ahead = snapshot.ahead_of(wall)?;
    drop(snapshot);
    ctx.check()?;
    let mut repaired = Vec::new();
    if action == ClockAction::SetBack {
        // The new salt invalidates the log records, which contain the old time.
        checkpoint(handle, wall)?;
        repaired.push(report_line(&ahead));
    }
    Ok(RepairReport { repaired, clock_ahead: Some(ahead), ..RepairReport::default() })
}

fn report_line(ahead: &ClockAhead) -> String {
    let mut line = format!(
        "the clock: the store's time was {} and is set back to {}; {}",
        ahead.store_time,
        ahead.clock,
        revived(ahead)
    );
    if ahead.written_later > 0 {
        line.push_str(&format!(
            "; entries written after that time keep their timestamps and expiry: {}",
            ahead.written_later
        ));
    }
    line
}

/// Describes the entries that setting the time back revives.
pub(crate) fn revived(ahead: &ClockAhead) -> String {
    match ahead.revived {
        0 => "this revives no entry".to_owned(),
        revived => format!(
            "this revives expired entries that were not swept: {revived}, in {} namespaces",
            ahead.revived_namespaces
        ),
    }
}
