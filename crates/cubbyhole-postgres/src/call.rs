//! One call of a function: one round trip, raced against the caller's context.
//!
//! What is sent is a future that owns all it needs. A caller that goes away, by its context's end
//! or by dropping the call, leaves that future to a task, which asks the server to stop the
//! statement and waits for both ends (see [`Control::cancel`](crate::connection::Control::cancel))
//! before the connection is used again. Without the second end the request to stop could hit the
//! connection's next statement.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use cubbyhole_core::{Error, ExecutionContext, Result, Timestamp};
use futures_util::future::{BoxFuture, join, join3};
use tokio::runtime::Handle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement as Prepared};

use crate::config::Pooler;
use crate::connection::Connection;
use crate::error::{self, Effect};
use crate::functions::{COUNT, Function, Functions, Param};
use crate::pool::{Control, Lease, Pool};
use crate::rows;

/// How often a call that lost a race against others is tried again.
const MOST_ATTEMPTS: u32 = 20;
/// How long a connection whose caller has gone may take to come to its end before it is closed.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);
/// How long a statement may go on after a request to stop it before the next one.
const CANCEL_PAUSE: Duration = Duration::from_millis(500);

/// The limit of a connection whose next call is to set its own in any case; no call has it.
const UNKNOWN_LIMIT: Option<Duration> = Some(Duration::MAX);

/// Makes calls over the pool.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) pool: Pool,
    functions: Arc<Functions>,
}

/// A function with its arguments.
struct Call {
    functions: Arc<Functions>,
    function: Function,
    params: Vec<Param>,
    pooler: Pooler,
    cached: bool,
    limit: Option<Duration>,
}

impl Caller {
    pub(crate) fn new(pool: Pool) -> Self {
        let functions = Arc::new(Functions::new(pool.config().schema()));
        Self { pool, functions }
    }

    /// Begins a call, and refuses it once the store is closed.
    pub(crate) async fn begin(&self, ctx: &ExecutionContext) -> Result<()> {
        ctx.begin_in_runtime().await?;
        self.pool.check_open()
    }

    /// Calls `function` and returns its rows, in one round trip.
    pub(crate) async fn call(
        &self,
        ctx: &ExecutionContext,
        effect: Effect,
        function: Function,
        params: Vec<Param>,
    ) -> Result<Vec<Row>> {
        let config = self.pool.config();
        let call = Call {
            functions: Arc::clone(&self.functions),
            function,
            params,
            pooler: config.pooler,
            cached: config.statement_cache,
            limit: ctx.remaining().and_then(time_limit),
        };
        self.run(ctx, effect, |lease, stopped| call.run(lease, stopped)).await
    }

    /// The database's time.
    pub(crate) async fn current_time(&self, ctx: &ExecutionContext) -> Result<Timestamp> {
        self.begin(ctx).await?;
        let rows = self.call(ctx, Effect::Read, Function::Clock, Vec::new()).await?;
        rows::instant(rows::scalar(&rows)?)
    }

    /// Runs `work` on a connection until it is done or the context ends. `work` gives back the
    /// lease, and starts nothing new once it is told that it is stopped.
    pub(crate) async fn run<T, F>(
        &self,
        ctx: &ExecutionContext,
        effect: Effect,
        work: impl FnOnce(Lease, Stopped) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = (Lease, Result<T, Failure>)> + Send + 'static,
    {
        let lease = self.pool.acquire(ctx).await?;
        // Nothing was sent yet: a context that ends here had no effect.
        ctx.check()?;
        let control = Arc::clone(&lease.connection.control);
        let stopped = Stopped::default();
        let work = Box::pin(work(lease, stopped.clone()));
        let runtime = self.pool.runtime().clone();
        let mut running = Running { work: Some(work), control, stopped, runtime };
        tokio::select! {
            biased;
            answer = &mut running => answer.map_err(|failure| {
                failure.into_error(effect, self.pool.config().schema())
            }),
            ended = ctx.ended() => Err(match effect {
                Effect::Read => ended,
                Effect::Write => ended.with_unknown_outcome(),
            }),
        }
    }
}

/// Whether the caller has gone.
#[derive(Clone, Default)]
pub(crate) struct Stopped(Arc<AtomicBool>);

impl Stopped {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why a call failed.
pub(crate) enum Failure {
    Server(tokio_postgres::Error),
    /// It lost against others again and again, each time without effect.
    KeptLosing,
    Refused(Error),
}

impl Failure {
    fn into_error(self, effect: Effect, schema: &str) -> Error {
        match self {
            Self::Server(error) => error::from_call(error, effect, schema),
            Self::KeptLosing => {
                Error::unavailable("the call kept colliding with others; try again")
            }
            Self::Refused(error) => error,
        }
    }
}

type Work<T> = BoxFuture<'static, (Lease, Result<T, Failure>)>;

/// Work under way. Dropped before its end, it is stopped at the server in a task of its own.
struct Running<T: Send + 'static> {
    work: Option<Work<T>>,
    control: Control,
    stopped: Stopped,
    runtime: Handle,
}

impl<T: Send + 'static> Future for Running<T> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        work.as_mut().poll(cx).map(|(lease, answer)| {
            self.work = None;
            drop(lease);
            answer
        })
    }
}

impl<T: Send + 'static> Drop for Running<T> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        self.stopped.0.store(true, Ordering::Release);
        let control = Arc::clone(&self.control);
        self.runtime.spawn(stop(work, control));
    }
}

/// Stops a statement whose caller has gone, and gives the connection back if it is sure to be
/// quiet: every request to stop it has ended before the end of the statement is waited for. One
/// that came too early for the statement is repeated.
async fn stop<T>(work: Work<T>, control: Control) {
    let mut work = pin!(work);
    let stopping = async {
        loop {
            if control.cancel().await.is_err() {
                return None;
            }
            if let Ok((lease, _)) = tokio::time::timeout(CANCEL_PAUSE, work.as_mut()).await {
                return Some(lease);
            }
        }
    };
    match tokio::time::timeout(CANCEL_PATIENCE, stopping).await {
        Ok(Some(lease)) => drop(lease),
        // Closed first: the lease, within the work, is given back after that.
        Ok(None) | Err(_) => control.close(),
    }
}

impl Call {
    /// Sends the call and reads its answer; again if it lost a race against another, which leaves
    /// no effect. Statements that a migration made stale are forgotten once.
    async fn run(self, mut lease: Lease, stopped: Stopped) -> (Lease, Result<Vec<Row>, Failure>) {
        let never_ends = ExecutionContext::new();
        for attempt in 0..MOST_ATTEMPTS {
            let (answer, has_new_limit) = self.exchange(&mut lease.connection).await;
            if stopped.is_set() {
                // It may have ended as late as its limit, which the next call must be able to tell.
                lease.connection.time_limit = UNKNOWN_LIMIT;
            }
            let error = match answer {
                Ok(rows) => return (lease, Ok(rows)),
                Err(error) => error,
            };
            if error::spoils_connection(&error) {
                lease.connection.control.spoil();
            }
            if stopped.is_set() {
                return (lease, Err(Failure::Server(error)));
            }
            if has_new_limit && error::was_stopped(&error) {
                // Not this call's time was up: its caller is still there.
            } else if error::statements_are_stale(&error) && attempt == 0 {
                lease.connection.prepared = Default::default();
            } else if error::lost_a_race(&error) {
                tracing::debug!(
                    function = ?self.function,
                    attempt,
                    sql_state = error.code().map(SqlState::code),
                    "made again: it lost a race against another call"
                );
                let most = 1_u64 << attempt.min(6);
                let pause = Duration::from_micros(fastrand::u64(0..=most * 1000));
                // It cannot fail: its context never ends.
                let _ = never_ends.sleep(pause).await;
                if stopped.is_set() {
                    return (lease, Err(Failure::KeptLosing));
                }
            } else {
                return (lease, Err(Failure::Server(error)));
            }
        }
        (lease, Err(Failure::KeptLosing))
    }

    /// One round trip: what is awaited together is written together. Also whether a new time limit
    /// went ahead of the statement, and the server stopped that or did not come to it in time. It is
    /// a statement too, and has the limit of the call before, which it may exceed on a busy server
    /// if that was a millisecond or two; or, where it comes to that too late, the statement that
    /// follows is stopped.
    async fn exchange(
        &self,
        connection: &mut Connection,
    ) -> (Result<Vec<Row>, tokio_postgres::Error>, bool) {
        let Connection { client, control, prepared, time_limit } = connection;
        let answer = match (self.pooler, self.limit) {
            (Pooler::Transaction, Some(limit)) => {
                let begin = format!("BEGIN; SET LOCAL statement_timeout = {}", limit.as_millis());
                let (begun, answer, ended) = join3(
                    client.batch_execute(&begin),
                    self.send(client, prepared),
                    client.batch_execute("COMMIT"),
                )
                .await;
                // What stops the end before the server has begun it leaves the transaction open:
                // without effect, and in the way of the connection's next call.
                if ended.is_err() && client.batch_execute("ROLLBACK").await.is_err() {
                    control.spoil();
                }
                match (begun, answer) {
                    // What was stopped ahead of the call is why the call was not looked at.
                    (Err(begun), Err(refused)) if error::follows_another(&refused) => {
                        return (Err(begun), true);
                    }
                    // Where there was no transaction to commit, the call was one by itself, and is
                    // committed.
                    (Err(_), answer) => answer,
                    // The call's own error tells more than those that follow from it.
                    (Ok(()), answer) => answer.and_then(|rows| ended.map(|()| rows)),
                }
            }
            (Pooler::None, limit) if limit != *time_limit => {
                let set = match limit {
                    Some(limit) => format!("SET statement_timeout = {}", limit.as_millis()),
                    None => "RESET statement_timeout".to_owned(),
                };
                let (set, answer) =
                    join(client.batch_execute(&set), self.send(client, prepared)).await;
                if set.is_ok() {
                    *time_limit = limit;
                }
                return (answer, true);
            }
            (Pooler::None, _) | (Pooler::Transaction, None) => self.send(client, prepared).await,
        };
        (answer, false)
    }

    /// Sends the statement; the first time on a connection it is prepared alongside, for the next.
    async fn send(
        &self,
        client: &Client,
        prepared: &mut [Option<Prepared>; COUNT],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let statement = self.functions.get(self.function);
        let params = self.params.iter().map(|param| &**param as &(dyn ToSql + Sync));
        let kept = &mut prepared[self.function as usize];
        if let Some(kept) = kept {
            let params: Vec<_> = params.collect();
            return client.query(kept, &params).await;
        }
        let params: Vec<_> = params.zip(statement.types.iter().cloned()).collect();
        let once = client.query_typed(&statement.text, &params);
        if !self.cached {
            return once.await;
        }
        let prepare = client.prepare_typed(&statement.text, &statement.types);
        let (answer, prepared) = join(once, prepare).await;
        *kept = prepared.ok();
        answer
    }
}

/// The server's time limit for a call that has this long left: no shorter, and up to an eighth
/// longer, so that calls with like deadlines have like limits and seldom need to set a new one.
/// The caller's own clock is exact; this one stops what no request to stop it reaches. `None` for
/// longer than the server can count.
fn time_limit(remaining: Duration) -> Option<Duration> {
    let millis = u64::try_from(remaining.as_nanos().div_ceil(1_000_000)).ok()?.max(1);
    let step = (1_u64 << millis.ilog2()).div_ceil(8);
    let limit = millis.div_ceil(step) * step;
    i32::try_from(limit).ok().map(|_| Duration::from_millis(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_limit_is_not_shorter_and_not_much_longer() {
        for millis in (1..5000).chain([29_990, 30_000, 86_400_000]) {
            let limit = time_limit(Duration::from_millis(millis)).unwrap();
            let most = Duration::from_millis(millis + millis.div_ceil(8));
            assert!(limit >= Duration::from_millis(millis) && limit <= most, "{millis}: {limit:?}");
        }
        assert_eq!(time_limit(Duration::from_nanos(1)), Some(Duration::from_millis(1)));
        assert_eq!(time_limit(Duration::from_secs(3_000_000)), None);
        assert_eq!(time_limit(Duration::MAX), None);
    }

    #[test]
    fn like_deadlines_have_like_limits() {
        let of = |millis| time_limit(Duration::from_millis(millis));
        assert_eq!(of(29_990), of(29_200));
    }
}
