//! `evict`: removes expired entries, once or repeatedly.

use std::time::Duration;

use clap::Args;
use cubbyhole::{
    Clock, ErrorKind, ExecutionContext, Sweep, Sweeper, SweeperStats, SystemClock, Timestamp,
};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::args::parse::{format_duration, parse_duration};
use crate::error::Failure;
use crate::output::{Output, count};
use crate::session::Session;

const EXAMPLES: &str = "\
Expired entries are already invisible; a sweep frees their space. Without --every, one sweep is
made, for example from cron.

With --every, the command runs as a service. Each interval varies by 10 %, so several sweepers
spread out. While the store is unavailable, the interval grows up to 16-fold. Ctrl-C, SIGTERM and
SIGHUP end the command after the current step, with exit code 0. --timeout applies to each sweep.
Several processes can sweep one store, but only one process can open a file: let the service that
has it open sweep it.

Examples:
  cubbyhole evict
  cubbyhole evict --every 60s --timeout 30s";

/// The relative variation of each interval.
const JITTER: f64 = 0.1;

/// Remove expired entries from the store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Evict {
    /// Repeat at this interval (60s, 5m) until stopped; prints a line for each sweep
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    every: Option<Duration>,
}

#[derive(Serialize)]
struct Evicted {
    evicted: usize,
}

/// One sweep of a service.
#[derive(Serialize)]
struct SweepLine {
    at: Timestamp,
    evicted: usize,
    seconds: f64,
    next_seconds: Option<f64>,
}

impl Evict {
    pub(crate) fn applies_timeout_to_each_step(&self) -> bool {
        self.every.is_some()
    }

    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        session.store.check_unscoped()?;
        if let Some(interval) = self.every {
            return serve(interval, session).await;
        }
        let store = session.open().await?;
        let evicted = store.evict_expired(&session.ctx).await?;
        if session.out.json() {
            session.out.object(&Evicted { evicted })?;
        }
        session.out.note(&format!("swept {}", entries(evicted as u64)));
        Ok(())
    }
}

fn entries(number: u64) -> String {
    count(number, "expired entry", "expired entries")
}

async fn serve(interval: Duration, session: &mut Session) -> Result<(), Failure> {
    let Some(store) = open_with_retries(interval, session).await? else {
        return conclude(&SweeperStats::default(), &mut session.out);
    };
    let (sender, mut sweeps) = mpsc::unbounded_channel();
    let mut sweeper = Sweeper::new(store)
        .with_interval(interval)
        .with_jitter(JITTER)
        // The receiver is gone only if writing the output has failed.
        .with_observer(move |sweep: &Sweep| drop(sender.send(sweep.clone())));
    if let Some(timeout) = session.timeout {
        sweeper = sweeper.with_timeout(timeout);
    }
    let ctx = session.ctx.child();
    let out = &mut session.out;
    let report = async {
        while let Some(sweep) = sweeps.recv().await {
            if let Err(failure) = show(&sweep, out) {
                ctx.cancel();
                return Err(failure.with_closed_pipe_as_error());
            }
        }
        Ok(())
    };
    let (stats, reported) = tokio::join!(sweeper.run(&ctx), report);
    reported?;
    conclude(&stats?, out)
}

/// Opens the store, and retries while it is unavailable. Returns `None` if the command is stopped.
async fn open_with_retries(
    interval: Duration,
    session: &mut Session,
) -> Result<Option<std::sync::Arc<dyn cubbyhole::Backend>>, Failure> {
    let whole = session.ctx.clone();
    let mut failures = 0_u32;
    loop {
        session.ctx = step(&whole, session.timeout);
        let opened = session.open().await;
        session.ctx = whole.clone();
        let error = match opened {
            Ok(store) => return Ok(Some(store)),
            Err(_) if whole.check().is_err() => return Ok(None),
            // A file that is missing, or open in another process, is not retried.
            Err(Failure::Store(error))
                if session.store.file().is_none() && may_come_up(error.kind()) =>
            {
                error
            }
            Err(failure) => return Err(failure),
        };
        failures += 1;
        let wait = interval.saturating_mul(1 << failures.min(4));
        session
            .out
            .report_error(error.kind().as_str(), &format!("{}{error}{}", stamp(), again(wait)));
        if whole.sleep(wait).await.is_err() {
            return Ok(None);
        }
    }
}

fn step(whole: &ExecutionContext, timeout: Option<Duration>) -> ExecutionContext {
    match timeout {
        Some(timeout) => whole.child().with_timeout(timeout),
        None => whole.child(),
    }
}

fn may_come_up(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unavailable
            | ErrorKind::DeadlineExceeded
            | ErrorKind::ResourceExhausted
            | ErrorKind::RateLimited
    )
}

fn show(sweep: &Sweep, out: &mut Output) -> Result<(), Failure> {
    let next = sweep.next.map(again).unwrap_or_default();
    match &sweep.outcome {
        Ok(evicted) if out.json() => {
            out.object(&SweepLine {
                at: SystemClock.now(),
                evicted: *evicted,
                seconds: sweep.took.as_secs_f64(),
                next_seconds: sweep.next.map(|next| next.as_secs_f64()),
            })?;
            // The reader waits for each line.
            out.flush()
        }
        Ok(evicted) => {
            let took = sweep.took.as_secs_f64();
            let swept = entries(*evicted as u64);
            out.note(&format!("{}swept {swept} in {took:.3} s{next}", stamp()));
            Ok(())
        }
        // An error that ends the service is reported at its end.
        Err(_) if sweep.next.is_none() => Ok(()),
        Err(error) => {
            out.report_error(error.kind().as_str(), &format!("{}{error}{next}", stamp()));
            Ok(())
        }
    }
}

fn stamp() -> String {
    format!("{} ", SystemClock.now())
}

fn again(wait: Duration) -> String {
    let rounded = match wait.as_secs() {
        0 => Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        _ => Duration::from_secs(wait.as_secs_f64().round() as u64),
    };
    format!("; again in {}", format_duration(rounded))
}

fn conclude(stats: &SweeperStats, out: &mut Output) -> Result<(), Failure> {
    let sweeps = count(stats.sweeps, "sweep", "sweeps");
    let failed = match stats.failures {
        0 => String::new(),
        failures => format!(" and {failures} failed"),
    };
    let removed = entries(stats.removed);
    out.note(&format!(
        "{}stopped after {sweeps}{failed}; {removed} removed by completed sweeps",
        stamp()
    ));
    Ok(())
}
