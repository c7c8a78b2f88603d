//! A job queue that several workers share. One worker claims each job with a lease. If the worker
//! crashes, the lease expires and another worker takes the job. Each result is recorded once.
//!
//! ```text
//! cargo run -p cubbyhole-examples --bin jobs -- redb:jobs.redb
//! ```
//!
//! A job uses three keys of one namespace, because a batch changes one namespace: `job:ID` until
//! the job is done, `lease:ID` while a worker works on it, and `done:ID` afterwards.
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "the example prints its steps")]

use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{
    Backend, Batch, Condition, EntryStore, EntryStoreExt, ErrorKind, ExecutionContext, Expiry,
    JsonCodec, Namespace, NamespacePrefix, PutOptions, Result, ScanOptions, Typed, TypedExt,
    Version,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

/// A worker loses its job if it sends no heartbeat for this long. The lease must be longer than the
/// longest pause of a healthy process.
const LEASE: Duration = Duration::from_secs(2);
/// The interval at which a worker extends its lease.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// The pause before a worker tries again to claim a job, if other workers have claimed all of them.
const PAUSE: Duration = Duration::from_millis(50);

const JOBS: usize = 20;
const WORKERS: [&str; 3] = ["anna", "ben", "cleo"];
/// Claims a job and crashes.
const CRASHING: &str = "dora";
/// The number of a job that takes longer than a lease.
const LONG: usize = 5;

/// The values in the namespace of the queue. One type, because a batch writes values of one type.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Job(Job),
    Lease { worker: String },
    Done { worker: String, attempts: u32 },
}

#[derive(Clone, Serialize, Deserialize)]
struct Job {
    to: String,
    work_ms: u64,
    /// The number of claims. A real program gives up a job after several attempts.
    attempts: u32,
}

#[derive(Clone)]
struct Queue {
    store: Typed<Record, JsonCodec, Arc<dyn Backend>>,
    ns: Namespace,
}

/// A job that this worker owns until the lease expires.
struct Claim {
    id: String,
    job: Job,
    job_version: Version,
    lease_version: Version,
}

/// The result of an attempt to claim a job.
enum ClaimOutcome {
    Claimed(Claim),
    /// Other workers have claimed all jobs. If one of them crashes, its job becomes available
    /// again.
    AllClaimed,
    QueueEmpty,
}

impl Queue {
    /// Adds a job. Adding the same id again has no effect.
    async fn add(&self, ctx: &ExecutionContext, id: &str, job: Job) -> Result<()> {
        let key = format!("job:{id}");
        let options = PutOptions::new();
        let record = Record::Job(job);
        match self.store.put_entry(ctx, &self.ns, &key, record, options, Condition::IfAbsent).await
        {
            Err(error) if error.kind() != ErrorKind::Conflict => Err(error),
            _ => Ok(()),
        }
    }

    /// Claims the first job that no other worker has claimed.
    async fn claim(&self, ctx: &ExecutionContext, worker: &str) -> Result<ClaimOutcome> {
        let mut outcome = ClaimOutcome::QueueEmpty;
        let mut options = ScanOptions::new().with_prefix("job:");
        loop {
            let page = self.store.scan(ctx, &self.ns, options.clone()).await?;
            for item in page.items {
                let id = item.key.strip_prefix("job:").unwrap_or(&item.key).to_owned();
                match item.value {
                    Some(Ok(Record::Job(job))) => {
                        outcome = ClaimOutcome::AllClaimed;
                        if let Some(claim) =
                            self.try_claim(ctx, worker, id, job, item.meta.version).await?
                        {
                            return Ok(ClaimOutcome::Claimed(claim));
                        }
                    }
                    // An unreadable job needs an operator. It must not block the other jobs.
                    _ => println!("{worker}: cannot read job {id}"),
                }
            }
            match page.next {
                Some(next) => options = options.with_after(next),
                None => return Ok(outcome),
            }
        }
    }

    /// Writes the lease and counts the attempt in one batch. The batch is applied only if no live
    /// lease exists and the job is unchanged since it was read. Otherwise returns `None`.
    async fn try_claim(
        &self,
        ctx: &ExecutionContext,
        worker: &str,
        id: String,
        job: Job,
        seen: Version,
    ) -> Result<Option<Claim>> {
        let job = Job { attempts: job.attempts + 1, ..job };
        let lease = Record::Lease { worker: worker.to_owned() };
        // The worker draws the versions itself, so it knows which versions are its own.
        let (lease_version, job_version) = (Version::draw(), Version::draw());
        let leased = PutOptions::new().with_ttl(LEASE).with_version(lease_version);
        let counted = PutOptions::new().with_version(job_version);
        let batch = Batch::new()
            .put_with(format!("lease:{id}"), lease, leased, Condition::IfAbsent)
            .put_with(
                format!("job:{id}"),
                Record::Job(job.clone()),
                counted,
                Condition::IfVersion(seen),
            );
        match self.store.write(ctx, &self.ns, batch).await {
            Ok(_) => Ok(Some(Claim { id, job, job_version, lease_version })),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs `work` and extends the lease at each heartbeat. Fails with `Conflict` if the lease has
    /// expired.
    async fn with_lease<F: Future>(
        &self,
        ctx: &ExecutionContext,
        claim: &Claim,
        work: F,
    ) -> Result<F::Output> {
        let key = format!("lease:{}", claim.id);
        let mut work = pin!(work);
        loop {
            let until_heartbeat = ctx.child().with_timeout(HEARTBEAT);
            if let Ok(output) = until_heartbeat.race(&mut work).await {
                return Ok(output);
            }
            ctx.check()?;
            // Fails with `Conflict` if the lease has expired or another worker has it.
            let held = Condition::IfVersion(claim.lease_version);
            self.store.touch(ctx, &self.ns, &key, Expiry::After(LEASE), held).await?;
        }
    }

    /// Records the result if this worker still has the lease. Fails with `Conflict` otherwise: then
    /// another worker records it. A job can be started twice, but only one result is recorded.
    async fn finish(&self, ctx: &ExecutionContext, worker: &str, claim: &Claim) -> Result<()> {
        let (id, attempts) = (&claim.id, claim.job.attempts);
        let done = Record::Done { worker: worker.to_owned(), attempts };
        let batch = Batch::new()
            .delete_if(format!("lease:{id}"), Condition::IfVersion(claim.lease_version))
            .delete_if(format!("job:{id}"), Condition::IfVersion(claim.job_version))
            .put_with(format!("done:{id}"), done, PutOptions::new(), Condition::IfAbsent);
        self.store.write(ctx, &self.ns, batch).await?;
        Ok(())
    }
}

/// Claims and runs jobs until the queue is empty. Returns the number of jobs done.
async fn worker(ctx: ExecutionContext, queue: Queue, name: &'static str) -> Result<usize> {
    let mut count = 0;
    loop {
        let claim = match queue.claim(&ctx, name).await? {
            ClaimOutcome::Claimed(claim) => claim,
            ClaimOutcome::AllClaimed => {
                ctx.sleep(PAUSE).await?;
                continue;
            }
            ClaimOutcome::QueueEmpty => return Ok(count),
        };
        if claim.job.attempts > 1 {
            println!("{name}: retrying job {}, attempt {}", claim.id, claim.job.attempts);
        }
        // The sleep replaces sending mail. A real program passes the job's id to the mail server,
        // which then drops a mail that is sent twice.
        let send = ctx.sleep(Duration::from_millis(claim.job.work_ms));
        let result = async {
            queue.with_lease(&ctx, &claim, send).await??;
            queue.finish(&ctx, name, &claim).await
        };
        match result.await {
            Ok(()) => {
                println!("{name}: mailed {}, job {}", claim.job.to, claim.id);
                count += 1;
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                println!("{name}: lost the lease of job {}", claim.id);
            }
            Err(error) => return Err(error),
        }
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn StdError>> {
    let url = std::env::args().nth(1).or_else(|| std::env::var("CUBBYHOLE_STORE").ok());
    let url = url.unwrap_or_else(|| "redb:jobs.redb".to_owned());
    let ctx = ExecutionContext::new().with_timeout(Duration::from_secs(120));
    // `cubbyhole::open`, with all layers if `CUBBYHOLE_KEY_FILE` is set.
    let store = cubbyhole_examples::open(&ctx, &url).await?;
    let ns = Namespace::from_parts("acme", ["mail", "jobs"])?;
    // Remove the records of an earlier run.
    store.erase_all(&ctx, &NamespacePrefix::from(&ns)).await?;
    let queue = Queue { store: store.clone().typed(), ns };

    for number in 0..JOBS {
        let work_ms = if number == LONG { 2 * LEASE.as_millis() as u64 } else { 10 };
        let job = Job { to: format!("person{number}@example.org"), work_ms, attempts: 0 };
        queue.add(&ctx, &format!("{number:04}"), job).await?;
    }
    println!("{JOBS} jobs, {} workers and one worker that crashes", WORKERS.len());

    // A crashed worker neither finishes its job nor releases its lease.
    if let ClaimOutcome::Claimed(claim) = queue.claim(&ctx, CRASHING).await? {
        println!("{CRASHING}: claimed job {} and crashed", claim.id);
    }
    let mut workers = JoinSet::new();
    for name in WORKERS {
        workers.spawn(worker(ctx.clone(), queue.clone(), name));
    }
    let mut done = 0;
    while let Some(result) = workers.join_next().await {
        done += result??;
    }
    println!("{done} jobs done");
    store.close(&ctx).await?;
    Ok(())
}
