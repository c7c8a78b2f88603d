//! `evict`: sweeps expired entries out, once or on a timer.

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
Expired entries are invisible before too; this frees their space. Once, for cron; with --every as a
service: each wait varies by a tenth, so that several do not keep step; while the store is
unavailable the waits grow up to sixteen times as long; Ctrl-C, SIGTERM and SIGHUP end it after the
step it is in, with exit code 0. --timeout is then for each sweep. Several may sweep one store. A file admits one
process at a time: let the service that has it open sweep it.

Examples:
  cubbyhole evict
  cubbyhole evict --every 60s --timeout 30s";

/// How much each wait varies.
const JITTER: f64 = 0.1;

/// Sweep expired entries out of the store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Evict {
    /// Again and again, that long apart, until stopped; a line for each sweep
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    every: Option<Duration>,
}

#[derive(Serialize)]
struct Evicted {
    evicted: usize,
}

/// A sweep of many.
#[derive(Serialize)]
struct SweepLine {
    at: Timestamp,
    evicted: usize,
    seconds: f64,
    next_seconds: Option<f64>,
}

impl Evict {
    pub(crate) fn counts_its_own_time(&self) -> bool {
        self.every.is_some()
    }

    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Failure> {
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
    let Some(store) = open_patiently(interval, session).await? else {
        return conclude(&SweeperStats::default(), &mut session.out);
    };
    let (sender, mut sweeps) = mpsc::unbounded_channel();
    let mut sweeper = Sweeper::new(store)
        .with_interval(interval)
        .with_jitter(JITTER)
        // Nobody hears it any more only if the output has failed.
        .with_observer(move |sweep: &Sweep| drop(sender.send(sweep.clone())));
    if let Some(timeout) = session.timeout {
        sweeper = sweeper.with_timeout(timeout);
    }
    let ctx = session.ctx.child();
    let out = &mut session.out;
    let tell = async {
        while let Some(sweep) = sweeps.recv().await {
            if let Err(failure) = show(&sweep, out) {
                ctx.cancel();
                return Err(failure.where_output_is_wanted());
            }
        }
        Ok(())
    };
    let (stats, told) = tokio::join!(sweeper.run(&ctx), tell);
    told?;
    conclude(&stats?, out)
}

/// Opens the store, also one that is not up yet; `None` if it was stopped meanwhile.
async fn open_patiently(
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
            // A file that is not there, or that another has open, stays so.
            Err(Failure::Store(error))
                if session.store.file().is_none() && may_come_up(error.kind()) =>
            {
                error
            }
            Err(failure) => return Err(failure),
        };
        failures += 1;
        let wait = interval.saturating_mul(1 << failures.min(4));
        session.out.complain(error.kind().as_str(), &format!("{}{error}{}", stamp(), again(wait)));
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
        ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::ResourceExhausted
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
            // Whoever reads it waits for each line.
            out.flush()
        }
        Ok(evicted) => {
            let took = sweep.took.as_secs_f64();
            let swept = entries(*evicted as u64);
            out.note(&format!("{}swept {swept} in {took:.3} s{next}", stamp()));
            Ok(())
        }
        // What ends it is told at the end.
        Err(_) if sweep.next.is_none() => Ok(()),
        Err(error) => {
            out.complain(error.kind().as_str(), &format!("{}{error}{next}", stamp()));
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
        failures => format!(" and {failures} that failed"),
    };
    let removed = entries(stats.removed);
    out.note(&format!(
        "{}stopped after {sweeps}{failed}; {removed} removed by whole sweeps",
        stamp()
    ));
    Ok(())
}
