//! Copies namespaces concurrently, each page by page.
//!
//! Entries that the target already has are skipped. A repeated copy therefore continues an
//! interrupted one, or copies only the changes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{
    Backend, Batch, Bytes, Condition, Error, ErrorKind, ExecutionContext, Expiry, GetOptions,
    Namespace, Operation, PutOptions, Result, ScanItem, ScanOptions,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::pages::{FIRST_PAGE, next_limit};
use crate::entries::live_puts::{live_at, write_live};
use crate::entries::rerooting::Rerooting;
use crate::entries::walk::Namespaces;

/// How many namespaces are copied concurrently, to overlap their round trips.
const CONCURRENCY: usize = 8;
/// The approximate size of a batch. It is far below the limit of a store.
const BATCH_BYTES: usize = 16 * 1024 * 1024;
/// The page size when listing the keys of the target.
const TARGET_PAGE: usize = 1000;
/// How long in-flight writes may take after Ctrl-C or the deadline. Waiting for them keeps the
/// counts exact.
const GRACE: Duration = Duration::from_secs(2);

/// The stores and options of a copy.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) source: Arc<dyn Backend>,
    /// `None` for a dry run to a missing file.
    pub(super) target: Option<Arc<dyn Backend>>,
    /// Renames the namespaces; `None` if they keep their names.
    pub(super) rerooting: Option<Rerooting>,
    /// Whether entries that differ in the target are kept.
    pub(super) keep_existing: bool,
    pub(super) dry_run: bool,
    /// The context of reads, which ends with the command.
    pub(super) reading: ExecutionContext,
    /// The context of writes, which ends after a grace period.
    pub(super) writing: ExecutionContext,
}

/// The counts of a copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CopyCounts {
    pub(super) copied: u64,
    /// The bytes of keys and values that were copied.
    pub(super) bytes: u64,
    /// Entries that the target already had.
    pub(super) skipped: u64,
    /// Entries that differ in the target and were kept.
    pub(super) kept: u64,
    /// Entries that had expired by the target's clock.
    pub(super) expired: u64,
    pub(super) unreadable: u64,
    /// Entries whose write has an unknown outcome.
    pub(super) unknown: u64,
    /// Namespaces with at least one entry.
    pub(super) namespaces: u64,
}

impl CopyCounts {
    fn add(&mut self, step: &Self) {
        self.copied += step.copied;
        self.bytes += step.bytes;
        self.skipped += step.skipped;
        self.kept += step.kept;
        self.expired += step.expired;
        self.unreadable += step.unreadable;
        self.unknown += step.unknown;
        self.namespaces += step.namespaces;
    }

    /// Returns the number of entries that were read.
    pub(super) fn entries(&self) -> u64 {
        self.copied + self.skipped + self.kept + self.expired + self.unreadable
    }
}

/// An event of the task of a namespace.
enum CopyEvent {
    Step(CopyCounts),
    Unreadable { namespace: Namespace, key: String, error: Error },
}

/// Observes the progress of a copy.
pub(super) trait CopyObserver {
    fn progress(&mut self, counts: &CopyCounts);
    fn unreadable(&mut self, namespace: &Namespace, key: &str, error: &Error);
}

/// Copies the namespaces. The counts are exact even if the copy fails.
pub(super) async fn run(
    plan: &Plan,
    mut namespaces: Namespaces,
    observer: &mut (dyn CopyObserver + Send),
) -> (CopyCounts, Result<()>) {
    let (sender, mut events) = mpsc::channel(64);
    let mut tasks = JoinSet::new();
    let mut counts = CopyCounts::default();
    let mut more = true;
    let mut outcome = Ok(());
    let grace_over = grace_over(plan);
    tokio::pin!(grace_over);
    loop {
        while more && outcome.is_ok() && tasks.len() < CONCURRENCY {
            match namespaces.next().await {
                Ok(Some(namespace)) => {
                    tasks.spawn(copy_namespace(plan.clone(), namespace, sender.clone()));
                }
                Ok(None) => more = false,
                Err(error) => {
                    plan.reading.cancel();
                    outcome = Err(error);
                }
            }
        }
        tokio::select! {
            // Receive events first, so they are counted before a task ends.
            biased;
            Some(event) = events.recv() => handle(event, &mut counts, observer),
            ended = tasks.join_next() => match ended {
                None => break,
                Some(ended) => {
                    let ended = ended.unwrap_or_else(|panic| {
                        Err(Error::internal("a namespace could not be copied").with_source(panic))
                    });
                    if outcome.is_ok() && ended.is_err() {
                        // The other tasks finish their writes and stop reading.
                        plan.reading.cancel();
                        outcome = ended;
                    }
                }
            },
            () = &mut grace_over, if !plan.writing.cancellation().is_cancelled() => {
                plan.writing.cancel();
            }
        }
    }
    while let Ok(event) = events.try_recv() {
        handle(event, &mut counts, observer);
    }
    (counts, outcome)
}

async fn grace_over(plan: &Plan) {
    plan.reading.ended().await;
    // The grace period needs a context that has not ended.
    drop(ExecutionContext::new().sleep(GRACE).await);
}

fn handle(event: CopyEvent, counts: &mut CopyCounts, observer: &mut (dyn CopyObserver + Send)) {
    match event {
        CopyEvent::Step(step) => {
            counts.add(&step);
            observer.progress(counts);
        }
        CopyEvent::Unreadable { namespace, key, error } => {
            observer.unreadable(&namespace, &key, &error);
        }
    }
}

/// A readable entry of the source.
struct Readable {
    key: String,
    value: Bytes,
    item: ScanItem<()>,
}

impl Readable {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }

    fn put(&self, condition: Condition) -> Operation<Bytes> {
        let options = PutOptions::new().with_expiry(Expiry::of(&self.item.meta));
        Operation::Put { key: self.key.clone(), value: self.value.clone(), options, condition }
    }
}

async fn copy_namespace(
    plan: Plan,
    namespace: Namespace,
    events: mpsc::Sender<CopyEvent>,
) -> Result<()> {
    // Renamed first: a name that would be too long is reported before anything is written.
    let renamed = match &plan.rerooting {
        Some(rerooting) => rerooting.apply(&namespace)?,
        None => namespace.clone(),
    };
    let mut options = ScanOptions::new().with_limit(FIRST_PAGE);
    let mut held_any = false;
    loop {
        // Checked here, because the scan may not observe the context.
        plan.reading.check()?;
        let page = plan.source.scan(&plan.reading, &namespace, options.clone()).await?;
        let after = options.after().map(str::to_owned);
        let mut step = CopyCounts::default();
        let readable = sort_out(page.items, &namespace, &mut step, &events).await?;
        let limit = next_limit(readable.iter().map(Readable::bytes));
        let entries = readable.len();
        let wanted = choose(&plan, &renamed, after.as_deref(), readable, &mut step).await?;
        if !held_any && (entries > 0 || step.unreadable > 0) {
            held_any = true;
            step.namespaces = 1;
        }
        let written = match plan.dry_run {
            true => try_out(&plan, &renamed, &wanted, &mut step).await,
            false => write(&plan, &renamed, &wanted, &mut step).await,
        };
        // The receiver is gone only if the command has ended.
        let _ = events.send(CopyEvent::Step(step)).await;
        written?;
        let Some(next) = page.next else { return Ok(()) };
        options = options.with_after(next);
        options = options.with_limit(limit);
    }
}

/// Returns the readable entries, and reports and counts the others.
async fn sort_out(
    items: Vec<ScanItem<Bytes>>,
    namespace: &Namespace,
    step: &mut CopyCounts,
    events: &mpsc::Sender<CopyEvent>,
) -> Result<Vec<Readable>> {
    let mut readable = Vec::with_capacity(items.len());
    for ScanItem { key, meta, value_bytes, value } in items {
        match value {
            Some(Ok(value)) => {
                let item = ScanItem { key: String::new(), meta, value_bytes, value: None };
                readable.push(Readable { key, value, item });
            }
            Some(Err(error)) => {
                step.unreadable += 1;
                let namespace = namespace.clone();
                let _ = events.send(CopyEvent::Unreadable { namespace, key, error }).await;
            }
            None => return Err(Error::internal("a page came without values")),
        }
    }
    Ok(readable)
}

/// Returns the entries that must be written: those that the target does not have. `namespace` is the
/// name in the target.
async fn choose(
    plan: &Plan,
    namespace: &Namespace,
    after: Option<&str>,
    readable: Vec<Readable>,
    step: &mut CopyCounts,
) -> Result<Vec<Readable>> {
    let Some(target) = &plan.target else { return Ok(readable) };
    let present = present(&**target, &plan.reading, namespace, after, &readable).await?;
    let alike: Vec<&Readable> = readable
        .iter()
        .filter(|entry| {
            present.get(entry.key.as_str()).is_some_and(|there| {
                Expiry::of(&there.meta) == Expiry::of(&entry.item.meta)
                    && there.value_bytes.is_none_or(|bytes| bytes == entry.value.len() as u64)
            })
        })
        .collect();
    let same = equal(&**target, &plan.reading, namespace, &alike).await?;
    let mut wanted = Vec::with_capacity(readable.len());
    for entry in readable {
        if same.contains(&entry.key) {
            step.skipped += 1;
        } else if plan.keep_existing && present.contains_key(&entry.key) {
            step.kept += 1;
        } else {
            wanted.push(entry);
        }
    }
    Ok(wanted)
}

/// Returns the entries of the target that have one of these keys, without values.
async fn present(
    target: &dyn Backend,
    ctx: &ExecutionContext,
    namespace: &Namespace,
    after: Option<&str>,
    readable: &[Readable],
) -> Result<HashMap<String, ScanItem<Bytes>>> {
    let mut present = HashMap::new();
    let (Some(last), wanted) = (
        readable.last().map(|entry| entry.key.as_str()),
        readable.iter().map(|entry| entry.key.as_str()).collect::<HashSet<_>>(),
    ) else {
        return Ok(present);
    };
    let mut options = ScanOptions::new().keys_only().with_limit(TARGET_PAGE);
    if let Some(after) = after {
        options = options.with_after(after);
    }
    loop {
        let page = target.scan(ctx, namespace, options.clone()).await?;
        let beyond = page.items.last().is_none_or(|item| item.key.as_str() >= last);
        for item in page.items {
            if wanted.contains(item.key.as_str()) {
                present.insert(item.key.clone(), item);
            }
        }
        match page.next {
            Some(next) if !beyond => options = options.with_after(next),
            _ => return Ok(present),
        }
    }
}

/// Returns the keys of the entries whose value in the target is equal.
async fn equal(
    target: &dyn Backend,
    ctx: &ExecutionContext,
    namespace: &Namespace,
    alike: &[&Readable],
) -> Result<HashSet<String>> {
    if alike.is_empty() {
        return Ok(HashSet::new());
    }
    let keys: Vec<&str> = alike.iter().map(|entry| entry.key.as_str()).collect();
    let answers = target.get_many(ctx, namespace, &keys, GetOptions::new()).await?;
    Ok(alike
        .iter()
        .zip(answers)
        .filter(|(entry, answer)| {
            // An entry that is unreadable in the target is overwritten.
            matches!(answer, Ok(Some(found)) if found.value == entry.value)
        })
        .map(|(entry, _)| entry.key.clone())
        .collect())
}

async fn write(
    plan: &Plan,
    namespace: &Namespace,
    mut wanted: &[Readable],
    step: &mut CopyCounts,
) -> Result<()> {
    let Some(target) = &plan.target else { return Ok(()) };
    let condition = match plan.keep_existing {
        true => Condition::IfAbsent,
        false => Condition::Always,
    };
    while !wanted.is_empty() {
        plan.reading.check()?;
        let mut bytes = 0;
        let fits = wanted.iter().take_while(|entry| {
            bytes += entry.bytes();
            bytes <= BATCH_BYTES
        });
        let (now, later) = wanted.split_at(fits.count().max(1));
        wanted = later;
        let batch: Batch<Bytes> = now.iter().map(|entry| entry.put(condition)).collect();
        match write_live(&**target, &plan.writing, namespace, batch).await {
            Ok(live) => count(now, &live, step),
            // Another writer has created one of the entries since the comparison.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                one_by_one(&**target, plan, namespace, now, step).await?;
            }
            Err(error) => {
                if error.may_have_been_applied() {
                    step.unknown += now.len() as u64;
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

async fn one_by_one(
    target: &dyn Backend,
    plan: &Plan,
    namespace: &Namespace,
    entries: &[Readable],
    step: &mut CopyCounts,
) -> Result<()> {
    for entry in entries {
        let batch = Batch::from_iter([entry.put(Condition::IfAbsent)]);
        match write_live(target, &plan.writing, namespace, batch).await {
            Ok(live) => count(std::slice::from_ref(entry), &live, step),
            Err(error) if error.kind() == ErrorKind::Conflict => step.kept += 1,
            Err(error) => {
                step.unknown += u64::from(error.may_have_been_applied());
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Counts the entries like a write, without writing.
async fn try_out(
    plan: &Plan,
    namespace: &Namespace,
    wanted: &[Readable],
    step: &mut CopyCounts,
) -> Result<()> {
    let expiries: Vec<_> = wanted.iter().map(|entry| entry.item.meta.expires_at).collect();
    let live = match &plan.target {
        Some(target) if expiries.iter().any(Option::is_some) => {
            live_at(&expiries, target.current_time(&plan.reading, namespace).await?)
        }
        _ => vec![true; wanted.len()],
    };
    count(wanted, &live, step);
    Ok(())
}

fn count(entries: &[Readable], live: &[bool], step: &mut CopyCounts) {
    for (entry, live) in entries.iter().zip(live) {
        if *live {
            step.copied += 1;
            step.bytes += entry.bytes() as u64;
        } else {
            step.expired += 1;
        }
    }
}

#[cfg(test)]
mod tests;
