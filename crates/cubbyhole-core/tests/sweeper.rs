//! The sweeper: its timer, its end and its handling of failures. The tests use the runtime's paused
//! clock, which advances when all tasks wait.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cubbyhole_core::{
    Error, ErrorKind, ExecutionContext, Namespace, PutOptions, Result, Store, Sweeper, async_trait,
};
use tokio::time::Instant;

/// A store whose sweeps return scripted failures and then `Ok(1)`. It records the time of each sweep.
#[derive(Default)]
struct Scripted {
    failures: Mutex<Vec<Error>>,
    asked_at: Mutex<Vec<Instant>>,
}

impl Scripted {
    fn failing(failures: impl IntoIterator<Item = Error>) -> Arc<Self> {
        let mut failures: Vec<Error> = failures.into_iter().collect();
        failures.reverse();
        Arc::new(Self { failures: Mutex::new(failures), asked_at: Mutex::default() })
    }

    fn waits(&self) -> Vec<Duration> {
        let asked_at = self.asked_at.lock().unwrap();
        asked_at.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

#[async_trait]
impl Store<u8> for Scripted {
    async fn put_with_options(
        &self,
        _: &ExecutionContext,
        _: &Namespace,
        _: &str,
        _: u8,
        _: PutOptions,
    ) -> Result<()> {
        Ok(())
    }

    async fn get(&self, _: &ExecutionContext, _: &Namespace, _: &str) -> Result<Option<u8>> {
        Ok(None)
    }

    async fn delete(&self, _: &ExecutionContext, _: &Namespace, _: &str) -> Result<()> {
        Ok(())
    }

    async fn list(
        &self,
        _: &ExecutionContext,
        _: &Namespace,
        _: Option<&str>,
    ) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn evict_expired(&self, ctx: &ExecutionContext) -> Result<usize> {
        self.asked_at.lock().unwrap().push(Instant::now());
        // The deadline uses the context's clock, which is not paused.
        if ctx.deadline().is_some() {
            ctx.check()?;
        }
        match self.failures.lock().unwrap().pop() {
            Some(error) => Err(error),
            None => Ok(1),
        }
    }
}

/// Returns a context that is cancelled after `duration` of the paused clock.
fn ending_after(duration: Duration) -> ExecutionContext {
    let ctx = ExecutionContext::new();
    let end = ctx.clone();
    tokio::spawn(async move {
        end.sleep(duration).await.ok();
        end.cancel();
    });
    ctx
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn sweeps_immediately_and_periodically_until_context_ends() {
    let store = Scripted::failing([]);
    let sweeper = Sweeper::new(Arc::clone(&store)).with_interval(MINUTE).with_jitter(0.0);
    let stats = sweeper.run(&ending_after(MINUTE * 3 + MINUTE / 2)).await.unwrap();
    assert_eq!((stats.sweeps, stats.removed, stats.failures), (4, 4, 0));
    assert_eq!(store.waits(), [MINUTE; 3]);
}

#[tokio::test(start_paused = true)]
async fn jitter_varies_the_waits_within_its_bounds() {
    let store = Scripted::failing([]);
    let sweeper = Sweeper::new(Arc::clone(&store)).with_interval(MINUTE).with_jitter(0.5);
    sweeper.with_seed(7).run(&ending_after(MINUTE * 100)).await.unwrap();
    let waits = store.waits();
    assert!(
        waits
            .iter()
            .all(|wait| (MINUTE / 2..=MINUTE * 3 / 2 + Duration::from_millis(1)).contains(wait))
    );
    let (shortest, longest) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!(*longest - *shortest > MINUTE / 2, "{shortest:?} to {longest:?}");
}

#[tokio::test(start_paused = true)]
async fn outage_doubles_the_wait_until_the_store_is_back() {
    let outage = Error::unavailable("down");
    let store = Scripted::failing(std::iter::repeat_n(outage, 6));
    let observed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&observed);
    let sweeper = Sweeper::new(Arc::clone(&store))
        .with_interval(MINUTE)
        .with_jitter(0.0)
        .with_observer(move |sweep| {
            count.fetch_add(usize::from(sweep.outcome.is_err()), Ordering::SeqCst);
        });
    let stats = sweeper.run(&ending_after(MINUTE * 65 + MINUTE / 2)).await.unwrap();
    assert_eq!(store.waits(), [2, 4, 8, 16, 16, 16, 1, 1, 1].map(|factor| MINUTE * factor));
    assert_eq!((stats.failures, observed.load(Ordering::SeqCst)), (6, 6));
}

#[tokio::test(start_paused = true)]
async fn timed_out_sweep_fails_and_observer_gets_next_wait() {
    let store = Scripted::failing([]);
    let observed = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&observed);
    let sweeper = Sweeper::new(Arc::clone(&store))
        .with_interval(MINUTE)
        .with_jitter(0.0)
        .with_timeout(Duration::from_nanos(1))
        .with_observer(move |sweep| {
            let kind = sweep.outcome.as_ref().err().map(Error::kind);
            seen.lock().unwrap().push((kind, sweep.next));
        });
    let stats = sweeper.run(&ending_after(MINUTE * 2 + MINUTE / 2)).await.unwrap();
    assert_eq!((stats.sweeps, stats.failures), (0, 3));
    let late = Some(ErrorKind::DeadlineExceeded);
    let expected = [(late, Some(MINUTE)); 3];
    assert_eq!(*observed.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn permanent_failure_ends_the_sweeper() {
    let store = Scripted::failing([Error::permission_denied("not yours")]);
    let error = Sweeper::new(store).run(&ExecutionContext::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn ended_context_sweeps_nothing() {
    let store = Scripted::failing([]);
    let ctx = ExecutionContext::new();
    ctx.cancel();
    let stats = Sweeper::new(Arc::clone(&store)).run(&ctx).await.unwrap();
    assert_eq!(stats.sweeps, 0);
    assert!(store.asked_at.lock().unwrap().is_empty());
}

/// Without timers the sweeper could not wait for the next sweep.
#[test]
fn runtime_without_timers_is_refused() {
    let store = Scripted::failing([]);
    let bare = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let ctx = ExecutionContext::new();
    let run = Sweeper::new(Arc::clone(&store)).run(&ctx);
    let error = bare.block_on(run).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(store.asked_at.lock().unwrap().is_empty());
}
