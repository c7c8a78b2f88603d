//! Runs the clients of a plan, round by round.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cubbyhole_core::{CancellationToken, EntryStore, ExecutionContext};
use tokio::task::JoinSet;

use super::check::check;
use super::client::{Client, StepOutcome};
use super::plan::Plan;
use super::progress::Progress;
use super::report::Report;
use super::round::{Round, RoundRecord};
use crate::Sample;

/// The calls of a client in a round. Each round has separate keys, to keep the histories short: the
/// checker's search grows with their length.
const CALLS_PER_ROUND: usize = 60;
/// The time limit of the read that ends a round.
const FINAL_READ_LIMIT: Duration = Duration::from_secs(60);
/// The range of value numbers that a round reserves.
const NUMBERS_PER_ROUND: u64 = 1 << 24;

/// Runs the clients until they have made the planned calls, or until `stop` is cancelled.
///
/// Each round ends with a read of all its keys. While the store does not reply, this read is
/// repeated for up to a minute. The run then checks the history of the round, and ends at the first
/// one that is not linearizable. It needs a tokio runtime with the time driver.
pub async fn run<V: Sample>(
    store: &Arc<dyn EntryStore<V>>,
    plan: &Plan,
    stop: &CancellationToken,
) -> Report {
    run_counted(store, plan, stop, &Arc::default()).await
}

pub(super) async fn run_counted<V: Sample>(
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
            Ok(group) => report.add_group(group),
            Err(error) => report.violation = Some(format!("a client panicked: {error}")),
        }
    }
    report.violation = report
        .violation
        .map(|text| format!("{text}\n  to repeat: CUBBYHOLE_HISTORY_SEED={}", plan.seed));
    report
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
            match Arc::clone(&group).round(round).await {
                Ok(record) => add_round(&mut report, record),
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

    async fn round(self: Arc<Self>, number: u64) -> Result<RoundRecord, String> {
        let ns = self.plan.namespace(self.number, number).map_err(|error| error.to_string())?;
        let base = (number * self.plan.groups as u64 + self.number as u64) * NUMBERS_PER_ROUND + 1;
        let round = Arc::new(Round::new(ns, base));
        let mut clients = JoinSet::new();
        for client in 0..self.plan.clients {
            let (group, round) = (Arc::clone(&self), Arc::clone(&round));
            clients.spawn(async move { group.client(&round, client, number).await });
        }
        while let Some(ended) = clients.join_next().await {
            ended.map_err(|error| format!("a client panicked: {error}"))?;
        }
        let limit = ExecutionContext::new().with_timeout(FINAL_READ_LIMIT);
        let last = self.new_client(&round, self.plan.clients, number).read_all_keys(&limit).await;
        last.map_err(|_| {
            format!("{}: cannot read the keys within {FINAL_READ_LIMIT:?}", round.ns)
        })?;
        let round = Arc::into_inner(round).ok_or("a client still runs after its task ended")?;
        Ok(round.into_record())
    }

    fn new_client<'a>(&'a self, round: &'a Round<V>, client: usize, number: u64) -> Client<'a, V> {
        let id = (number << 16) + ((self.number as u64) << 8) + client as u64;
        // A multiplicative hash: clients with consecutive ids get unrelated seeds.
        let seed = self.plan.seed ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Client::new(self.store.as_ref(), &self.plan, round, &self.progress, seed)
    }

    async fn client(&self, round: &Round<V>, client: usize, number: u64) {
        let mut client = self.new_client(round, client, number);
        let mut made = 0;
        while made < CALLS_PER_ROUND && !self.is_over() {
            if client.step().await == StepOutcome::Recorded {
                made += 1;
                self.progress.operations.fetch_add(1, Ordering::Relaxed);
            }
            // Without this, a store that never waits would serve one client after the other.
            tokio::task::yield_now().await;
        }
    }
}

/// Adds a round to the report, and checks its history.
fn add_round(report: &mut Report, record: RoundRecord) {
    let unknown = record.calls.iter().filter(|call| call.returned.is_none()).count();
    report.operations += record.calls.len() as u64;
    report.unknown += unknown as u64;
    report.failures.extend(record.failures);
    let checked = check(&record.calls).err();
    report.violation = record.contradiction.or(checked);
}
