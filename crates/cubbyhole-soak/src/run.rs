//! The run: loads on all targets, periodic samples and the final report.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{ExecutionContext, Result, Sweeper};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::process::KernelStats;
use crate::{
    Allowance, BackendName, BackendSample, Load, ProcessSample, Sample, Series, Target, Trend,
    judge,
};

/// The interval between sweeps of each store.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The number of compactions of the embedded file in a run, so each quarter contains several.
const COMPACTIONS: u32 = 16;
/// The shortest interval between compactions, for short runs.
const MIN_COMPACT_INTERVAL: Duration = Duration::from_secs(5);
/// The pause between calls on the in-memory store, which never waits and would use a whole core.
const MEMORY_PAUSE: Duration = Duration::from_millis(1);
/// The timeout of calls that are not part of the load: filling, measuring, compacting, removing.
const SIDE_TIMEOUT: Duration = Duration::from_secs(120);

/// The parameters of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The duration of the load.
    pub duration: Duration,
    /// The interval between samples.
    pub every: Duration,
    /// The backends under load.
    pub backends: Vec<BackendName>,
    /// The seed of the random calls. The interleaving of calls is not reproducible.
    pub seed: u64,
    /// The number of callers per backend.
    pub callers: usize,
}

/// A run with its samples.
pub struct Soak {
    targets: Vec<(Target, Load)>,
    samples: Vec<Sample>,
}

/// The result of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The number of calls on all backends.
    pub calls: u64,
    /// Wrong replies, unexpected errors, and errors of the removal at the end.
    pub failures: Vec<String>,
    /// The judged values and their trends.
    pub trends: Vec<(String, Trend)>,
}

impl Soak {
    /// Opens and fills a store on each backend.
    ///
    /// # Errors
    /// The first error of a backend. Stores that were already opened are removed.
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
            let target = Target::open(&side_context(), *name).await?;
            let pause = if *name == BackendName::Memory { MEMORY_PAUSE } else { Duration::ZERO };
            let store = Arc::clone(target.store());
            let load = Load::new(store, plan.callers, plan.seed, pause)
                .map_err(|error| error.to_string())?;
            self.targets.push((target, load));
            let Some((_, load)) = self.targets.last() else { continue };
            load.fill(&side_context()).await.map_err(|error| format!("filling {name}: {error}"))?;
        }
        Ok(())
    }

    /// Runs for the planned duration or until `stop` ends. Calls `observer` with each sample.
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
                let every = (plan.duration / COMPACTIONS).max(MIN_COMPACT_INTERVAL);
                work.spawn(compact(load.clone(), every, stop.clone()));
            }
        }
        let start = Instant::now();
        let (mut last, mut due) = (start, Duration::ZERO);
        while start.elapsed() < plan.duration {
            // Fixed ticks, because taking a sample also takes time. Missed ticks are skipped.
            due = (due + plan.every).max(start.elapsed()).min(plan.duration);
            if stop.sleep(due.saturating_sub(start.elapsed())).await.is_err() {
                break;
            }
            let interval = last.elapsed();
            last = Instant::now();
            let sample = self.sample(start.elapsed(), interval).await;
            observer(&sample);
            self.samples.push(sample);
        }
        stop.cancel();
        while let Some(result) = work.join_next().await {
            if let (Err(error), Some((_, load))) = (result, self.targets.first()) {
                let error = cubbyhole::Error::internal(error.to_string());
                load.counts().background_error("a task of the run", &error);
            }
        }
    }

    async fn sample(&mut self, elapsed: Duration, interval: Duration) -> Sample {
        let kernel = KernelStats::read();
        let process = ProcessSample {
            memory_bytes: kernel.memory,
            threads: kernel.threads,
            descriptors: kernel.descriptors,
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64,
        };
        let mut backends = Vec::new();
        for (target, load) in &mut self.targets {
            backends.push(sample_backend(target, load, interval).await);
        }
        Sample { elapsed_seconds: elapsed.as_secs_f64(), process, backends }
    }

    /// Removes the stores and returns the result of the run.
    pub async fn conclude(mut self) -> Report {
        let mut calls = 0;
        let mut failures = Vec::new();
        for (target, load) in &self.targets {
            let counts = load.counts();
            calls += counts.total();
            let (wrong, unexpected) = (counts.wrong, counts.unexpected_total());
            if wrong + unexpected > 0 {
                let name = target.name;
                failures.push(format!(
                    "{name}: {wrong} wrong replies, unexpected errors {:?}",
                    counts.unexpected
                ));
                failures
                    .extend(counts.messages.iter().map(|messages| format!("{name}: {messages}")));
            }
        }
        if calls == 0 {
            failures.push("the callers made no call".to_owned());
        }
        let series = self.series();
        failures.extend(self.remove().await);
        let trends = series.into_iter().map(|series| {
            let trend = judge(&series.values, series.allowance);
            (series.what, trend)
        });
        Report { calls, failures, trends: trends.collect() }
    }

    /// The values that must not grow, over time. Values that a platform or backend does not report
    /// are left out.
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
        let name = |what: &str| format!("process: {what}");
        add(name("memory"), Allowance::MEMORY, &|sample| sample.process.memory_bytes);
        add(name("threads"), Allowance::THREADS, &|sample| sample.process.threads);
        add(name("descriptors"), Allowance::DESCRIPTORS, &|sample| sample.process.descriptors);
        add(name("tasks"), Allowance::TASKS, &|sample| Some(sample.process.tasks));
        for (index, (target, _)) in self.targets.iter().enumerate() {
            let name = |what: &str| format!("{}: {what}", target.name);
            add(name("stored"), Allowance::STORED, &|sample| sample.backends[index].stored_bytes);
            add(name("connections"), Allowance::CONNECTIONS, &|sample| {
                sample.backends[index].connections
            });
            add(name("expired"), Allowance::EXPIRED, &|sample| sample.backends[index].expired);
        }
        all
    }

    /// Closes and removes all stores. Returns the errors.
    async fn remove(&mut self) -> Vec<String> {
        let mut failures = Vec::new();
        for (target, load) in self.targets.drain(..) {
            drop(load);
            failures.extend(target.remove(&side_context()).await.err());
        }
        failures
    }
}

impl Report {
    /// Whether the run passed. A run that is too short to judge growth can pass.
    #[must_use]
    pub fn passed(&self) -> bool {
        let grows = self.trends.iter().any(|(_, trend)| matches!(trend, Trend::Grows(_)));
        self.failures.is_empty() && !grows
    }
}

impl fmt::Display for Report {
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
            writeln!(f, "Growth was not judged: the run has too few samples.")?;
        }
        for failure in &self.failures {
            writeln!(f, "FAILED  {failure}")?;
        }
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        write!(f, "soak: {verdict}, {} calls", self.calls)
    }
}

fn side_context() -> ExecutionContext {
    ExecutionContext::new().with_timeout(SIDE_TIMEOUT)
}

async fn sweep(load: Load, seed: u64, stop: ExecutionContext) {
    let (observed, stopped) = (load.clone(), stop.clone());
    let sweeper = Sweeper::new(Arc::clone(load.store()))
        .with_interval(SWEEP_EVERY)
        .with_seed(seed)
        .with_observer(move |sweep| {
            if let (Err(error), Ok(())) = (&sweep.outcome, stopped.check()) {
                observed.counts().background_error("a sweep", error);
            }
        });
    // The observer has counted an error that ends the sweeper.
    drop(sweeper.run(&stop).await);
}

async fn compact(load: Load, every: Duration, stop: ExecutionContext) {
    while stop.sleep(every).await.is_ok() {
        if let Err(error) = load.store().compact(&side_context()).await {
            load.counts().background_error("compacting", &error);
        }
    }
}

/// Samples one backend. A value that cannot be measured counts as an unexpected error.
async fn sample_backend(target: &mut Target, load: &Load, interval: Duration) -> BackendSample {
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
    let mut counts = load.counts();
    for problem in problems {
        counts.background_error("measuring", &cubbyhole::Error::unavailable(problem));
    }
    let usage = usage.map_err(|error| counts.background_error("usage", &error)).ok();
    let calls = counts.take_interval();
    let sample = BackendSample {
        backend: target.name,
        calls_per_second: 0.0,
        p50_micros: 0,
        p99_micros: 0,
        max_micros: 0,
        conflicts: counts.conflicts,
        cut_off: counts.cut_off,
        unexpected: counts.unexpected_total(),
        wrong: counts.wrong,
        entries: usage.map(|usage| usage.entries),
        bytes: usage.and_then(|usage| usage.bytes),
        expired: usage.map(|usage| usage.expired),
        stored_bytes,
        connections,
    };
    sample.with_latencies(&calls, interval)
}

/// The usage of all tenants together.
async fn usage(load: &Load) -> Result<cubbyhole::Usage> {
    let mut all = cubbyhole::Usage::default();
    for tenant in load.data_set().tenants() {
        let usage = load.store().usage(&side_context(), &tenant.clone().into()).await?;
        all.namespaces += usage.namespaces;
        all.entries += usage.entries;
        all.expired += usage.expired;
        all.bytes = Some(all.bytes.unwrap_or(0) + usage.bytes.unwrap_or(0));
    }
    Ok(all)
}
