//! Concurrent calls, written down, and whether the answers have an order.
//!
//! Several clients call a store at the same time: reads, puts, conditional puts, deletes, takes,
//! batches. Each call is written down with when it began, when it was answered, and what it was
//! answered. Then a checker looks for an order of the calls that a store without concurrency would
//! have answered alike, in which a call that ended before another began comes before it: the
//! history is *linearizable* then (Herlihy and Wing, 1990). Calls that were cancelled, or lost their
//! connection, may have taken effect at any later time, or never.
//!
//! The case `history::histories_are_linearizable` does this on every store. For tests that break
//! servers meanwhile there is [`run`]:
//!
//! ```
//! # use std::sync::Arc;
//! use cubbyhole_conformance::history::{Plan, run};
//! use cubbyhole_core::{Bytes, CancellationToken, EntryStore, TenantId};
//! use cubbyhole_memory::InMemoryStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store: Arc<dyn EntryStore<Bytes>> = Arc::new(InMemoryStore::new());
//! let plan = Plan::new(TenantId::new("histories")?, 7).with_operations(1_000);
//! let report = run(&store, &plan, &CancellationToken::new()).await;
//! report.verdict()?;
//! assert!(report.operations >= 1_000);
//! # Ok(())
//! # }
//! ```
//!
//! - `CUBBYHOLE_HISTORY_OPERATIONS`: how many calls the case makes; 20,000 unless set.
//! - `CUBBYHOLE_HISTORY_SEED`: the seed that a failure printed. It draws the same calls; how they
//!   meet is the machine's choice.

mod check;
mod client;
mod live;
mod planted;
mod round;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cubbyhole_core::{
    CancellationToken, EntryStore, Error, ErrorKind, ExecutionContext, Namespace, TenantId,
};
use tokio::task::JoinSet;

use crate::case::{Outcome, Stop, cases, check};
use crate::{Sample, World};
use client::{Client, Ended, Ticks};
use round::{Round, Written};

pub use live::{Counts, Live};
pub use planted::{Fault, Planted};

const OPERATIONS: u64 = 20_000;
/// How many calls a client makes in a round. Each round has keys of its own, so that the checker
/// has short histories.
const CALLS_A_ROUND: usize = 60;
/// How long the last look of a round may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Room for the values of one round.
const NUMBERS_A_ROUND: u64 = 1 << 24;

/// Gives each round of each group of clients its namespace.
type Names = Arc<dyn Fn(usize, u64) -> cubbyhole_core::Result<Namespace> + Send + Sync>;

/// What the clients do.
#[derive(Clone)]
pub struct Plan {
    tenant: TenantId,
    seed: u64,
    operations: u64,
    groups: usize,
    clients: usize,
    timeout: Option<Duration>,
    cut_short: Option<(u32, Duration)>,
    sees_presence: bool,
    names: Option<Names>,
}

impl Plan {
    /// Four clients on each of two groups of keys, in namespaces of `tenant`, which should be new;
    /// 20,000 calls, without deadlines.
    #[must_use]
    pub fn new(tenant: TenantId, seed: u64) -> Self {
        Self {
            tenant,
            seed,
            operations: OPERATIONS,
            groups: 2,
            clients: 4,
            timeout: None,
            cut_short: None,
            sees_presence: true,
            names: None,
        }
    }

    /// After how many calls it ends. Those that were refused do not count.
    #[must_use]
    pub fn with_operations(mut self, operations: u64) -> Self {
        self.operations = operations;
        self
    }

    /// How many groups of clients there are, each with keys of its own. At least 1.
    #[must_use]
    pub fn with_groups(mut self, groups: usize) -> Self {
        self.groups = groups.max(1);
        self
    }

    /// For a store that fails meanwhile: the deadline of each call. Answers that say that there is
    /// something, and not what, are left out then, because with many unknown outcomes they decide
    /// nothing.
    #[must_use]
    pub fn under_faults(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self.sees_presence = false;
        self
    }

    /// Gives the rounds their namespaces, by the number of the group and of the round: each must be
    /// one of its own, in which nothing is yet.
    #[must_use]
    pub fn with_names(
        mut self,
        names: impl Fn(usize, u64) -> cubbyhole_core::Result<Namespace> + Send + Sync + 'static,
    ) -> Self {
        self.names = Some(Arc::new(names));
        self
    }

    /// One call in so many (at least 1) is given up after a random time up to `within`.
    #[must_use]
    pub fn cutting_short(mut self, one_in: u32, within: Duration) -> Self {
        self.cut_short = Some((one_in.max(1), within));
        self.sees_presence = false;
        self
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("tenant", &self.tenant)
            .field("seed", &self.seed)
            .field("operations", &self.operations)
            .field("groups", &self.groups)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A call that was answered with an error, other than a conflict.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What it was answered.
    pub error: Error,
    /// After how long.
    pub took: Duration,
}

/// What came of a [`run`].
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// How many calls are in the histories.
    pub operations: u64,
    /// How many of them had an unknown outcome.
    pub unknown: u64,
    /// The calls that failed, those with an unknown outcome among them.
    pub failures: Vec<Failure>,
    violation: Option<String>,
}

impl Report {
    /// Whether the histories are linearizable.
    ///
    /// # Errors
    /// Why not: the calls up to which there is an order, and those that do not fit.
    pub fn verdict(&self) -> Result<(), String> {
        self.violation.clone().map_or(Ok(()), Err)
    }

    /// How many failures are of a kind.
    #[must_use]
    pub fn failures_of(&self, kind: ErrorKind) -> usize {
        self.failures.iter().filter(|failure| failure.error.kind() == kind).count()
    }

    /// Whether the calls failed as they may while a store is harmed: as one of `kinds`, no later than
    /// `latest` after their beginning, and with an error that says whether to make the call again:
    /// what had no effect and may be, or what may have had one and must not; an outage is one of
    /// the two.
    ///
    /// # Errors
    /// The first that did not.
    pub fn check_failures(&self, kinds: &[ErrorKind], latest: Duration) -> Result<(), String> {
        for Failure { error, took } in &self.failures {
            let is_late = *took > latest;
            let (again, perhaps) = (error.is_retryable(), error.may_have_been_applied());
            let contradicts =
                again && perhaps || error.kind() == ErrorKind::Unavailable && !again && !perhaps;
            if is_late || contradicts || !kinds.contains(&error.kind()) {
                return Err(format!("a call failed after {took:?}: {error:?}"));
            }
        }
        Ok(())
    }
}

/// Runs the clients until they have made their calls or `stop` is cancelled, and checks each round
/// at its end; the first that has no order ends the run. Each round ends with a look at all its
/// keys, which is repeated for a minute while the store does not answer. Needs a runtime with time.
pub async fn run<V: Sample>(
    store: &Arc<dyn EntryStore<V>>,
    plan: &Plan,
    stop: &CancellationToken,
) -> Report {
    run_counted(store, plan, stop, &Arc::default()).await
}

async fn run_counted<V: Sample>(
    store: &Arc<dyn EntryStore<V>>,
    plan: &Plan,
    stop: &CancellationToken,
    progress: &Arc<Progress>,
) -> Report {
    let stop = stop.child_token();
    let mut groups = JoinSet::new();
    for group in 0..plan.groups {
        let group = Group {
            number: group,
            store: Arc::clone(store),
            plan: plan.clone(),
            stop: stop.clone(),
            progress: Arc::clone(progress),
        };
        groups.spawn(group.run());
    }
    let mut report = Report::default();
    while let Some(ended) = groups.join_next().await {
        match ended {
            Ok(part) => {
                report.operations += part.operations;
                report.unknown += part.unknown;
                report.failures.extend(part.failures);
                report.violation = report.violation.or(part.violation);
            }
            Err(error) => report.violation = Some(format!("a client died: {error}")),
        }
    }
    report.violation = report
        .violation
        .map(|text| format!("{text}\n  again: CUBBYHOLE_HISTORY_SEED={}", plan.seed));
    report
}

/// What all groups count together.
#[derive(Debug, Default)]
struct Progress {
    ticks: Ticks,
    operations: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    failed_reads: AtomicU64,
    failed_writes: AtomicU64,
    unknown: AtomicU64,
}

impl Progress {
    fn count(&self, may_change: bool, is_answered: bool) {
        let count = match (may_change, is_answered) {
            (false, true) => &self.reads,
            (true, true) => &self.writes,
            (false, false) => &self.failed_reads,
            (true, false) => &self.failed_writes,
        };
        count.fetch_add(1, Ordering::SeqCst);
    }
}

/// Clients that share their keys.
struct Group<V: Sample> {
    number: usize,
    store: Arc<dyn EntryStore<V>>,
    plan: Plan,
    stop: CancellationToken,
    progress: Arc<Progress>,
}

impl<V: Sample> Group<V> {
    async fn run(self) -> Report {
        let group = Arc::new(self);
        let mut report = Report::default();
        let mut round = 0;
        while !group.is_over() && report.violation.is_none() {
            let written = Arc::clone(&group).round(round).await;
            match written {
                Ok(written) => add(&mut report, written),
                Err(text) => report.violation = Some(text),
            }
            round += 1;
        }
        if report.violation.is_some() {
            group.stop.cancel();
        }
        report
    }

    fn is_over(&self) -> bool {
        let made = self.progress.operations.load(Ordering::Relaxed);
        self.stop.is_cancelled() || made >= self.plan.operations
    }

    async fn round(self: Arc<Self>, number: u64) -> Result<Written, String> {
        let ns = self.namespace(number).map_err(|error| error.to_string())?;
        let base = (number * self.plan.groups as u64 + self.number as u64) * NUMBERS_A_ROUND + 1;
        let round = Arc::new(Round::new(ns, base));
        let mut clients = JoinSet::new();
        for client in 0..self.plan.clients {
            let (group, round) = (Arc::clone(&self), Arc::clone(&round));
            clients.spawn(async move { group.client(&round, client, number).await });
        }
        while let Some(ended) = clients.join_next().await {
            ended.map_err(|error| format!("a client died: {error}"))?;
        }
        let patience = ExecutionContext::new().with_timeout(PATIENCE);
        let last = self.new_client(&round, self.plan.clients, number).look_at_last(&patience).await;
        last.map_err(|_| format!("{}: the keys cannot be read after {PATIENCE:?}", round.ns))?;
        let round = Arc::into_inner(round).ok_or("a client goes on after its end")?;
        Ok(round.into_written())
    }

    fn namespace(&self, round: u64) -> cubbyhole_core::Result<Namespace> {
        match &self.plan.names {
            Some(names) => names(self.number, round),
            None => {
                let segment = format!("{}-{round}", self.number);
                Namespace::from_parts(self.plan.tenant.as_str(), [segment])
            }
        }
    }

    fn new_client<'a>(&'a self, round: &'a Round<V>, client: usize, number: u64) -> Client<'a, V> {
        let place = (number << 16) + ((self.number as u64) << 8) + client as u64;
        Client {
            store: self.store.as_ref(),
            plan: &self.plan,
            round,
            progress: &self.progress,
            random: fastrand::Rng::with_seed(
                self.plan.seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            ),
            must_look: false,
        }
    }

    async fn client(&self, round: &Round<V>, client: usize, number: u64) {
        let mut client = self.new_client(round, client, number);
        let mut made = 0;
        while made < CALLS_A_ROUND && !self.is_over() {
            if client.step().await == Ended::Written {
                made += 1;
                self.progress.operations.fetch_add(1, Ordering::Relaxed);
            }
            // A store that never waits would serve one client after the other.
            tokio::task::yield_now().await;
        }
    }
}

fn add(report: &mut Report, written: Written) {
    let unknown = written.calls.iter().filter(|call| call.returned.is_none()).count();
    report.operations += written.calls.len() as u64;
    report.unknown += unknown as u64;
    report.failures.extend(written.failures);
    let checked = check::check(&written.calls).err();
    report.violation = written.nonsense.or(checked);
}

cases! {
    /// What concurrent callers are answered has an order, in which each call takes effect at one
    /// moment between its beginning and its end.
    #[case(store, entry)]
    async fn histories_are_linearizable<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_put_options()?;
        let plan = plan(w);
        let report = run(w.store(), &plan, &CancellationToken::new()).await;
        report.verdict().map_err(Stop::failed)?;
        no_failures(&report)?;
        check!(report.operations >= plan.operations, "only {} calls", report.operations);
        Ok(())
    }

    /// The same where every eighth call is given up in the middle: it takes effect at one moment
    /// from its beginning on, or never.
    #[case(store, entry)]
    async fn calls_that_are_given_up_take_effect_once_or_never<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_put_options()?;
        w.needs_context()?;
        let mut plan = plan(w).cutting_short(8, Duration::from_millis(2));
        plan.operations /= 4;
        let report = run(w.store(), &plan, &CancellationToken::new()).await;
        report.verdict().map_err(Stop::failed)?;
        for Failure { error, .. } in &report.failures {
            let kind = error.kind();
            check!(kind == ErrorKind::DeadlineExceeded, "a call fails: {error:?}");
        }
        check!(!report.failures.is_empty(), "no call was given up");
        Ok(())
    }

    /// The checker sees what it is there for: on this very store, beneath a layer that breaks it,
    /// it finds a stale read, an update that is lost, a condition that is checked apart from the
    /// write, and a batch that is written in parts.
    #[case(store, entry)]
    async fn planted_faults_are_found<V: Sample>(w: &World<V>) -> Outcome {
        w.needs_put_options()?;
        for fault in Fault::ALL {
            let seed = seed();
            let tenant = w.tenant_with(&format!("-{fault:?}"))?;
            let plan = Plan::new(tenant, seed).with_operations(OPERATIONS);
            let broken = Planted::new(Arc::clone(w.store()), fault, seed);
            let broken: Arc<dyn EntryStore<V>> = Arc::new(broken);
            let report = run(&broken, &plan, &CancellationToken::new()).await;
            let found = report.verdict().is_err();
            check!(found, "{fault:?} is not found in {} calls (seed {seed})", report.operations);
        }
        Ok(())
    }
}

fn plan<V: Sample>(w: &World<V>) -> Plan {
    let asked = crate::suite::number_from_env("CUBBYHOLE_HISTORY_OPERATIONS");
    Plan::new(w.tenant().clone(), seed()).with_operations(asked.unwrap_or(OPERATIONS))
}

fn seed() -> u64 {
    crate::suite::number_from_env("CUBBYHOLE_HISTORY_SEED").unwrap_or_else(|| fastrand::u64(..))
}

fn no_failures(report: &Report) -> Outcome {
    match report.failures.first() {
        None => Ok(()),
        Some(failure) => Err(failure.error.clone().into()),
    }
}
