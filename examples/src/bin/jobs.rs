//! Workers that share a queue of jobs: each job is claimed by one of them, a claim is a lease that a
//! dead worker loses, and what was done is recorded once.
//!
//! ```text
//! cargo run -p cubbyhole-examples --bin jobs -- redb:jobs.redb
//! ```
//!
//! All that belongs to a job stands in one namespace under three keys, so that one batch moves it on:
//! `job:ID` while it is to be done, `lease:ID` while somebody works on it, `done:ID` afterwards.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_macros,
    reason = "it tells what it does on the terminal"
)]

use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{
    Backend, Batch, Condition, EntryStore, EntryStoreExt, Error, ErrorKind, ExecutionContext,
    Expiry, JsonCodec, Namespace, NamespacePrefix, PutOptions, Result, ScanOptions, Typed,
    TypedExt, Version,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

/// A worker that does not say for that long that it is alive has lost its job. The longest pause of
/// a process that lives must be shorter.
const LEASE: Duration = Duration::from_secs(2);
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How often a worker that finds nothing to claim looks again.
const PAUSE: Duration = Duration::from_millis(50);

const JOBS: usize = 20;
const WORKERS: [&str; 3] = ["anna", "ben", "cleo"];
/// Claims a job and is never heard of again.
const DYING: &str = "dora";
/// A job that takes longer than a lease lasts.
const LONG: usize = 5;

/// What stands in the queue's namespace. One type, because a batch writes all kinds.
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
    /// How often it was claimed. A program of yours gives a job up that has killed a few workers.
    attempts: u32,
}

#[derive(Clone)]
struct Queue {
    store: Typed<Record, JsonCodec, Arc<dyn Backend>>,
    ns: Namespace,
}

/// A job that is ours as long as the lease is.
struct Claim {
    id: String,
    job: Job,
    job_version: Version,
    lease_version: Version,
}

/// What a look at the queue gave.
enum Found {
    Claimed(Claim),
    /// Others work on all there is. Should one of them die, its job comes back.
    AllTaken,
    Nothing,
}

impl Queue {
    /// Adds a job; adding it again changes nothing.
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

    /// Claims the first job that nobody else has.
    async fn claim(&self, ctx: &ExecutionContext, worker: &str) -> Result<Found> {
        let mut found = Found::Nothing;
        let mut options = ScanOptions::new().with_prefix("job:");
        loop {
            let page = self.store.scan(ctx, &self.ns, options.clone()).await?;
            for item in page.items {
                let id = item.key.strip_prefix("job:").unwrap_or(&item.key).to_owned();
                match item.value {
                    Some(Ok(Record::Job(job))) => {
                        found = Found::AllTaken;
                        if let Some(claim) =
                            self.try_claim(ctx, worker, id, job, item.meta.version).await?
                        {
                            return Ok(Found::Claimed(claim));
                        }
                    }
                    // Somebody must look at it; the others are done meanwhile.
                    _ => println!("{worker}: job {id} cannot be read"),
                }
            }
            match page.next {
                Some(next) => options = options.with_after(next),
                None => return Ok(found),
            }
        }
    }

    /// The lease is written only if there is none, or only an expired one; the job is counted up
    /// only if it is as we saw it, and not done meanwhile. Both or neither.
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
        // Drawn here, so that we know what is ours.
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

    /// Works, and says every now and then that the worker is alive. Stops if the lease is lost.
    async fn work<F: Future>(
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
            // If another has the lease by now, this prolongs theirs, which does no harm: what counts
            // is that `finish` asks for our own.
            if !self.store.touch(ctx, &self.ns, &key, Expiry::After(LEASE)).await? {
                return Err(Error::conflict(None));
            }
        }
    }

    /// Records what was done, if the lease is still ours. `Conflict` if not: then it is another's to
    /// record. The work itself may so have been begun twice; only one of both ends here.
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

/// Claims and does jobs until there is none. Returns how many it did.
async fn worker(ctx: ExecutionContext, queue: Queue, name: &'static str) -> Result<usize> {
    let mut count = 0;
    loop {
        let claim = match queue.claim(&ctx, name).await? {
            Found::Claimed(claim) => claim,
            Found::AllTaken => {
                ctx.sleep(PAUSE).await?;
                continue;
            }
            Found::Nothing => return Ok(count),
        };
        if claim.job.attempts > 1 {
            println!("{name}: job {} comes back, attempt {}", claim.id, claim.job.attempts);
        }
        // In place of sending a mail. Give the mail server the job's id, so that it drops a mail that
        // comes twice.
        let send = ctx.sleep(Duration::from_millis(claim.job.work_ms));
        let ended = async {
            queue.work(&ctx, &claim, send).await??;
            queue.finish(&ctx, name, &claim).await
        };
        match ended.await {
            Ok(()) => {
                println!("{name}: mailed {}, job {}", claim.job.to, claim.id);
                count += 1;
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                println!("{name}: lost job {}", claim.id);
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
    let store = cubbyhole::open(&ctx, &url).await?;
    let ns = Namespace::from_parts("acme", ["mail", "jobs"])?;
    // What an earlier run left.
    store.erase_all(&ctx, &NamespacePrefix::from(&ns)).await?;
    let queue = Queue { store: store.clone().typed(), ns };

    for number in 0..JOBS {
        let work_ms = if number == LONG { 2 * LEASE.as_millis() as u64 } else { 10 };
        let job = Job { to: format!("person{number}@example.org"), work_ms, attempts: 0 };
        queue.add(&ctx, &format!("{number:04}"), job).await?;
    }
    println!("{JOBS} jobs, {} workers, and one that dies", WORKERS.len());

    // Its process is killed, in the midst of a job: nothing is given back.
    if let Found::Claimed(claim) = queue.claim(&ctx, DYING).await? {
        println!("{DYING}: claimed job {} and died", claim.id);
    }
    let mut workers = JoinSet::new();
    for name in WORKERS {
        workers.spawn(worker(ctx.clone(), queue.clone(), name));
    }
    let mut done = 0;
    while let Some(ended) = workers.join_next().await {
        done += ended??;
    }
    println!("{done} jobs were done");
    store.close(&ctx).await?;
    Ok(())
}
