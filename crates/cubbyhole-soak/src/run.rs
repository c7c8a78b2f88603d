//! The run: loads on all targets at once, samples, and what came of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{ExecutionContext, Result, Sweeper};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::process::Kernel;
use crate::{Allowance, BackendName, Load, Process, Row, Sample, Series, Target, Trend, judge};

/// How often each store is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often the embedded file is compacted in a run, so that each quarter has some of its teeth.
const COMPACTIONS: u32 = 16;
/// Compacting is not done all the time, however short the run is.
const COMPACT_AT_MOST_EVERY: Duration = Duration::from_secs(5);
/// Between two calls on the store in memory, which would take a processor for itself.
const MEMORY_PAUSE: Duration = Duration::from_millis(1);
/// For what is done beside the load: filling, measuring, compacting, taking away.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long.
    pub duration: Duration,
    /// How often a sample is taken.
    pub every: Duration,
    /// Which backends.
    pub backends: Vec<BackendName>,
    /// Draws the same calls; how they meet is the machine's choice.
    pub seed: u64,
    /// How many callers each backend has.
    pub callers: usize,
}

/// A run and what it saw.
pub struct Soak {
    targets: Vec<(Target, Load)>,
    samples: Vec<Sample>,
}

/// What came of a run.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Calls, of all backends.
    pub calls: u64,
    /// Wrong answers, unexpected errors, and what could not be taken away at the end.
    pub failures: Vec<String>,
    /// What was judged, and how.
    pub trends: Vec<(String, Trend)>,
}

impl Soak {
    /// Opens and fills everything.
    ///
    /// # Errors
    /// What stands in the way. What was opened before is taken away again.
    pub async fn open(plan: &Plan) -> std::result::Result<Self, String> {
        let mut soak = Self { targets: Vec::new(), samples: Vec::new() };
        let opened = soak.open_all(plan).await;
        if let Err(error) = opened {
            drop(soak.remove().await);
            return Err(error);
        }
        Ok(soak)
    }

    async fn open_all(&mut self, plan: &Plan) -> std::result::Result<(), String> {
        for name in &plan.backends {
            let target = Target::open(&patience(), *name).await?;
            let pause = if *name == BackendName::Memory { MEMORY_PAUSE } else { Duration::ZERO };
            let store = Arc::clone(target.store());
            let load = Load::new(store, plan.callers, plan.seed, pause)
                .map_err(|error| error.to_string())?;
            self.targets.push((target, load));
            let Some((_, load)) = self.targets.last() else { continue };
            load.fill(&patience()).await.map_err(|error| format!("filling {name}: {error}"))?;
        }
        Ok(())
    }

    /// Runs until the plan is fulfilled or `stop` ends, and tells each sample to `observer`.
    pub async fn run(
        &mut self,
        plan: &Plan,
        stop: &ExecutionContext,
        mut observer: impl FnMut(&Sample),
    ) {
        let stop = stop.child();
        let mut work = JoinSet::new();
        for (target, load) in &self.targets {
            let (callers, ctx) = (load.clone(), stop.clone());
            work.spawn(async move { callers.run(&ctx, u64::MAX).await });
            work.spawn(sweep(load.clone(), plan.seed, stop.clone()));
            if target.name == BackendName::Embedded {
                let every = (plan.duration / COMPACTIONS).max(COMPACT_AT_MOST_EVERY);
                work.spawn(compact(load.clone(), every, stop.clone()));
            }
        }
        let began = Instant::now();
        let (mut last, mut due) = (began, Duration::ZERO);
        while began.elapsed() < plan.duration {
            // From tick to tick, for a sample takes some time too; late ones are not made up for.
            due = (due + plan.every).max(began.elapsed()).min(plan.duration);
            if stop.sleep(due.saturating_sub(began.elapsed())).await.is_err() {
                break;
            }
            let over = last.elapsed();
            last = Instant::now();
            let sample = self.sample(began.elapsed(), over).await;
            observer(&sample);
            self.samples.push(sample);
        }
        stop.cancel();
        while let Some(ended) = work.join_next().await {
            if let (Err(error), Some((_, load))) = (ended, self.targets.first()) {
                let error = cubbyhole::Error::internal(error.to_string());
                load.tally().side_error("a task of the run", &error);
            }
        }
    }

    async fn sample(&mut self, elapsed: Duration, over: Duration) -> Sample {
        let kernel = Kernel::read();
        let process = Process {
            memory_bytes: kernel.memory,
            threads: kernel.threads,
            descriptors: kernel.descriptors,
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64,
        };
        let mut backends = Vec::new();
        for (target, load) in &mut self.targets {
            backends.push(row(target, load, over).await);
        }
        Sample { elapsed_seconds: elapsed.as_secs_f64(), process, backends }
    }

    /// Takes everything away and says what came of the run.
    pub async fn conclude(mut self) -> Outcome {
        let mut calls = 0;
        let mut failures = Vec::new();
        for (target, load) in &self.targets {
            let tally = load.tally();
            calls += tally.total();
            let (wrong, unexpected) = (tally.wrong, tally.unexpected_total());
            if wrong + unexpected > 0 {
                let name = target.name;
                failures.push(format!(
                    "{name}: {wrong} wrong answers, unexpected errors {:?}",
                    tally.unexpected
                ));
                failures.extend(tally.kept.iter().map(|kept| format!("{name}: {kept}")));
            }
        }
        if calls == 0 {
            failures.push("no call was made".to_owned());
        }
        let series = self.series();
        failures.extend(self.remove().await);
        let trends = series.into_iter().map(|series| {
            let trend = judge(&series.values, series.allowance);
            (series.what, trend)
        });
        Outcome { calls, failures, trends: trends.collect() }
    }

    /// What may not grow, over time. What a platform or a backend does not tell is not in it.
    fn series(&self) -> Vec<Series> {
        let mut all = Vec::new();
        let mut add = |what: String, allowance, figure: &dyn Fn(&Sample) -> Option<u64>| {
            let values: Option<Vec<f64>> = self
                .samples
                .iter()
                .map(|sample| figure(sample).map(|value| value as f64))
                .collect();
            if let Some(values) = values {
                all.push(Series { what, values, allowance });
            }
        };
        let of_process = |what: &str| format!("process: {what}");
        add(of_process("memory"), Allowance::MEMORY, &|sample| sample.process.memory_bytes);
        add(of_process("threads"), Allowance::THREADS, &|sample| sample.process.threads);
        add(of_process("descriptors"), Allowance::DESCRIPTORS, &|sample| {
            sample.process.descriptors
        });
        add(of_process("tasks"), Allowance::TASKS, &|sample| Some(sample.process.tasks));
        for (index, (target, _)) in self.targets.iter().enumerate() {
            let of = |what: &str| format!("{}: {what}", target.name);
            add(of("stored"), Allowance::STORED, &|sample| sample.backends[index].stored_bytes);
            add(of("connections"), Allowance::CONNECTIONS, &|sample| {
                sample.backends[index].connections
            });
            add(of("expired"), Allowance::EXPIRED, &|sample| sample.backends[index].expired);
        }
        all
    }

    async fn remove(&mut self) -> Vec<String> {
        let mut failures = Vec::new();
        for (target, load) in self.targets.drain(..) {
            drop(load);
            failures.extend(target.remove(&patience()).await.err());
        }
        failures
    }
}

impl Outcome {
    /// Whether all is well: growth that was not judged is no failure.
    #[must_use]
    pub fn passed(&self) -> bool {
        let grows = self.trends.iter().any(|(_, trend)| matches!(trend, Trend::Grows(_)));
        self.failures.is_empty() && !grows
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, trend) in &self.trends {
            match trend {
                Trend::NotJudged => {}
                Trend::Steady(growth) => {
                    writeln!(f, "steady  {what}: {:.0}, then {:.0}", growth.third, growth.last)?;
                }
                Trend::Grows(growth) => {
                    writeln!(f, "GROWS   {what}: {:.0}, then {:.0}", growth.third, growth.last)?;
                }
            }
        }
        if self.trends.iter().all(|(_, trend)| *trend == Trend::NotJudged) {
            writeln!(f, "Growth was not judged: the run is too short for its samples.")?;
        }
        for failure in &self.failures {
            writeln!(f, "FAILED  {failure}")?;
        }
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        write!(f, "soak: {verdict}, {} calls", self.calls)
    }
}

fn patience() -> ExecutionContext {
    ExecutionContext::new().with_timeout(PATIENCE)
}

async fn sweep(load: Load, seed: u64, stop: ExecutionContext) {
    let (observed, ended) = (load.clone(), stop.clone());
    let sweeper = Sweeper::new(Arc::clone(load.store()))
        .with_interval(SWEEP_EVERY)
        .with_seed(seed)
        .with_observer(move |sweep| {
            if let (Err(error), Ok(())) = (&sweep.outcome, ended.check()) {
                observed.tally().side_error("a sweep", error);
            }
        });
    // An error that ends it has been observed.
    drop(sweeper.run(&stop).await);
}

async fn compact(load: Load, every: Duration, stop: ExecutionContext) {
    while stop.sleep(every).await.is_ok() {
        if let Err(error) = load.store().compact(&patience()).await {
            load.tally().side_error("compacting", &error);
        }
    }
}

/// What can be said of a backend now. What cannot be found out counts as an unexpected error.
async fn row(target: &mut Target, load: &Load, over: Duration) -> Row {
    let mut problems = Vec::new();
    let stored_bytes = target.stored().await.unwrap_or_else(|error| {
        problems.push(error);
        None
    });
    let connections = target.connections().await.unwrap_or_else(|error| {
        problems.push(error);
        None
    });
    let usage = usage(load).await;
    let mut tally = load.tally();
    for problem in problems {
        tally.side_error("measuring", &cubbyhole::Error::unavailable(problem));
    }
    let usage = usage.map_err(|error| tally.side_error("usage", &error)).ok();
    let calls = tally.take_interval();
    let row = Row {
        backend: target.name,
        calls_per_second: 0.0,
        p50_micros: 0,
        p99_micros: 0,
        max_micros: 0,
        conflicts: tally.conflicts,
        cut_off: tally.cut_off,
        unexpected: tally.unexpected_total(),
        wrong: tally.wrong,
        entries: usage.map(|usage| usage.entries),
        bytes: usage.and_then(|usage| usage.bytes),
        expired: usage.map(|usage| usage.expired),
        stored_bytes,
        connections,
    };
    row.with_latencies(&calls, over)
}

/// Of all tenants together.
async fn usage(load: &Load) -> Result<cubbyhole::Usage> {
    let mut all = cubbyhole::Usage::default();
    for tenant in load.population().tenants() {
        let usage = load.store().usage(&patience(), &tenant.clone().into()).await?;
        all.namespaces += usage.namespaces;
        all.entries += usage.entries;
        all.expired += usage.expired;
        all.bytes = Some(all.bytes.unwrap_or(0) + usage.bytes.unwrap_or(0));
    }
    Ok(all)
}
