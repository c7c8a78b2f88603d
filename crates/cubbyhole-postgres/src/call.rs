//! Calls SQL functions: one round trip per call, raced against the caller's context.
//!
//! A call is a future that owns its connection. If the context ends or the caller drops the call, a
//! background task takes over the future, sends a cancel request, and waits until both the
//! statement and the cancel request have ended (see [`ConnectionControl::cancel`]). Only then does
//! the connection return to the pool: a pending cancel request could otherwise hit the next
//! statement on the connection.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use cubbyhole_core::{Error, ExecutionContext, Result};
use futures_util::future::{BoxFuture, join, join3};
use tokio::runtime::Handle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement as Prepared};

use crate::config::Pooler;
use crate::connection::{Connection, ConnectionControl};
use crate::error::{self, Effect};
use crate::functions::{CallStatements, FUNCTION_COUNT, Function, Param};
use crate::pool::{Lease, Pool};

/// How many times a call is attempted that conflicts with other transactions.
const MAX_ATTEMPTS: u32 = 20;
/// How long cancelling a statement may take before the connection is closed.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// The interval between cancel requests for one statement.
const CANCEL_INTERVAL: Duration = Duration::from_millis(500);

/// Marks the `statement_timeout` of a connection as unknown. It equals no call's timeout, so the
/// next call sets its own.
const UNKNOWN_TIMEOUT: Option<Duration> = Some(Duration::MAX);

/// Runs calls on connections of the pool.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) pool: Pool,
    statements: Arc<CallStatements>,
}

/// A function with its arguments.
struct Call {
    statements: Arc<CallStatements>,
    function: Function,
    params: Vec<Param>,
    pooler: Pooler,
    /// Whether statements stay prepared on their connections.
    is_cached: bool,
    /// The `statement_timeout` of this call, if it has one.
    timeout: Option<Duration>,
}

impl Caller {
    pub(crate) fn new(pool: Pool) -> Self {
        let statements = Arc::new(CallStatements::new(pool.config().schema()));
        Self { pool, statements }
    }

    /// Checks the context, the runtime and that the store is open.
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
            statements: Arc::clone(&self.statements),
            function,
            params,
            pooler: config.pooler,
            is_cached: config.statement_cache,
            timeout: ctx.remaining().and_then(statement_timeout),
        };
        self.run(ctx, effect, |lease, stopped| call.run(lease, stopped)).await
    }

    /// Runs `work` on a connection until it completes or the context ends. `work` returns the
    /// lease, and must start no further statement once its flag is set.
    pub(crate) async fn run<T, F>(
        &self,
        ctx: &ExecutionContext,
        effect: Effect,
        work: impl FnOnce(Lease, StopFlag) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = (Lease, Result<T, CallFailure>)> + Send + 'static,
    {
        let lease = self.pool.acquire(ctx).await?;
        // Nothing is sent yet: if the context has ended, the call certainly had no effect.
        ctx.check()?;
        let control = Arc::clone(&lease.connection.control);
        let stopped = StopFlag::default();
        let work = Box::pin(work(lease, stopped.clone()));
        let runtime = self.pool.runtime().clone();
        let mut running = RunningCall { work: Some(work), control, stopped, runtime };
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

/// Set once the caller has abandoned the call.
#[derive(Clone, Default)]
pub(crate) struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why a call failed.
pub(crate) enum CallFailure {
    Server(tokio_postgres::Error),
    /// Every attempt conflicted with other transactions and had no effect.
    TooManyConflicts,
    /// The store rejected the call itself.
    Rejected(Error),
}

impl CallFailure {
    fn into_error(self, effect: Effect, schema: &str) -> Error {
        match self {
            Self::Server(error) => error::from_call(error, effect, schema),
            Self::TooManyConflicts => Error::unavailable(error::TOO_MANY_CONFLICTS),
            Self::Rejected(error) => error,
        }
    }
}

type Work<T> = BoxFuture<'static, (Lease, Result<T, CallFailure>)>;

/// A call in flight. Dropping it before its end cancels the statement in a background task.
struct RunningCall<T: Send + 'static> {
    work: Option<Work<T>>,
    control: Arc<ConnectionControl>,
    stopped: StopFlag,
    runtime: Handle,
}

impl<T: Send + 'static> Future for RunningCall<T> {
    type Output = Result<T, CallFailure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        work.as_mut().poll(cx).map(|(lease, answer)| {
            self.work = None;
            drop(lease);
            answer
        })
    }
}

impl<T: Send + 'static> Drop for RunningCall<T> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        self.stopped.0.store(true, Ordering::Release);
        let control = Arc::clone(&self.control);
        self.runtime.spawn(cancel_and_finish(work, control));
    }
}

/// Cancels the statement of an abandoned call and waits for its end, then returns the connection to
/// the pool.
///
/// Each cancel request ends before the wait for the statement begins. The request is repeated,
/// because one that arrives before the statement has no effect.
async fn cancel_and_finish<T>(work: Work<T>, control: Arc<ConnectionControl>) {
    let mut work = pin!(work);
    let cancelling = async {
        loop {
            if control.cancel().await.is_err() {
                return None;
            }
            if let Ok((lease, _)) = tokio::time::timeout(CANCEL_INTERVAL, work.as_mut()).await {
                return Some(lease);
            }
        }
    };
    match tokio::time::timeout(CANCEL_TIMEOUT, cancelling).await {
        Ok(Some(lease)) => drop(lease),
        // Close before `work` is dropped: dropping it returns the lease to the pool.
        Ok(None) | Err(_) => control.close(),
    }
}

impl Call {
    /// Sends the call and reads its rows. Retries after a conflict with another transaction, and
    /// once after a migration invalidated prepared statements.
    async fn run(
        self,
        mut lease: Lease,
        stopped: StopFlag,
    ) -> (Lease, Result<Vec<Row>, CallFailure>) {
        let never_ends = ExecutionContext::new();
        for attempt in 0..MAX_ATTEMPTS {
            let (answer, sets_timeout) = self.exchange(&mut lease.connection).await;
            if stopped.is_set() {
                // The server may notice the timeout of this statement only during the next call,
                // and cancel that call. With an unknown timeout, the next call sets its own, and
                // is retried if it is cancelled.
                lease.connection.statement_timeout = UNKNOWN_TIMEOUT;
            }
            let error = match answer {
                Ok(rows) => return (lease, Ok(rows)),
                Err(error) => error,
            };
            if error::retires_connection(&error) {
                lease.connection.control.retire();
            }
            if stopped.is_set() {
                return (lease, Err(CallFailure::Server(error)));
            }
            if sets_timeout && error::is_query_canceled(&error) {
                // The timeout of the previous call expired, not that of this call. Send it again.
            } else if error::has_stale_statement(&error) && attempt == 0 {
                lease.connection.prepared = Default::default();
            } else if error::is_transaction_conflict(&error) {
                tracing::debug!(
                    function = ?self.function,
                    attempt,
                    sql_state = error.code().map(SqlState::code),
                    "retrying after a conflict with another transaction"
                );
                let max_millis = 1_u64 << attempt.min(6);
                let pause = Duration::from_micros(fastrand::u64(0..=max_millis * 1000));
                // The sleep cannot fail, because its context never ends.
                let _ = never_ends.sleep(pause).await;
                if stopped.is_set() {
                    return (lease, Err(CallFailure::TooManyConflicts));
                }
            } else {
                return (lease, Err(CallFailure::Server(error)));
            }
        }
        (lease, Err(CallFailure::TooManyConflicts))
    }

    /// Makes one round trip: statements that are awaited together are written together.
    ///
    /// Also returns whether the previous call's timeout may have cancelled this call. The `SET`
    /// that precedes the call is a statement too and runs under the previous timeout. If that is a
    /// millisecond or two, a busy server may exceed it and cancel the `SET`, or the call after it.
    async fn exchange(
        &self,
        connection: &mut Connection,
    ) -> (Result<Vec<Row>, tokio_postgres::Error>, bool) {
        let Connection { client, control, prepared, statement_timeout } = connection;
        let answer = match (self.pooler, self.timeout) {
            (Pooler::Transaction, Some(timeout)) => {
                let begin = format!("BEGIN; SET LOCAL statement_timeout = {}", timeout.as_millis());
                let (begun, answer, ended) = join3(
                    client.batch_execute(&begin),
                    self.send(client, prepared),
                    client.batch_execute("COMMIT"),
                )
                .await;
                // A cancelled COMMIT leaves the transaction open. It had no effect, but it would
                // block the next call on this connection.
                if ended.is_err() && client.batch_execute("ROLLBACK").await.is_err() {
                    control.retire();
                }
                match (begun, answer) {
                    // The call was rejected because BEGIN or SET was cancelled.
                    (Err(begun), Err(rejected)) if error::is_in_failed_transaction(&rejected) => {
                        return (Err(begun), true);
                    }
                    // Without BEGIN, the call ran as a transaction on its own and is committed.
                    (Err(_), answer) => answer,
                    // Prefer the call's error: the error of COMMIT only follows from it.
                    (Ok(()), answer) => answer.and_then(|rows| ended.map(|()| rows)),
                }
            }
            (Pooler::None, timeout) if timeout != *statement_timeout => {
                let set = match timeout {
                    Some(timeout) => format!("SET statement_timeout = {}", timeout.as_millis()),
                    None => "RESET statement_timeout".to_owned(),
                };
                let (set, answer) =
                    join(client.batch_execute(&set), self.send(client, prepared)).await;
                if set.is_ok() {
                    *statement_timeout = timeout;
                }
                return (answer, true);
            }
            (Pooler::None, _) | (Pooler::Transaction, None) => self.send(client, prepared).await,
        };
        (answer, false)
    }

    /// Sends the statement. The first call on a connection sends it unprepared, and prepares it in
    /// the same round trip for the next call.
    async fn send(
        &self,
        client: &Client,
        prepared: &mut [Option<Prepared>; FUNCTION_COUNT],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let statement = self.statements.get(self.function);
        let params = self.params.iter().map(|param| &**param as &(dyn ToSql + Sync));
        let cached = &mut prepared[self.function as usize];
        if let Some(cached) = cached {
            let params: Vec<_> = params.collect();
            return client.query(cached, &params).await;
        }
        let params: Vec<_> = params.zip(statement.types.iter().cloned()).collect();
        let unprepared = client.query_typed(&statement.text, &params);
        if !self.is_cached {
            return unprepared.await;
        }
        let prepare = client.prepare_typed(&statement.text, &statement.types);
        let (answer, prepared) = join(unprepared, prepare).await;
        *cached = prepared.ok();
        answer
    }
}

/// The `statement_timeout` for a call whose deadline is `remaining` away: at least as long, and at
/// most an eighth longer. The rounding gives similar deadlines equal timeouts, which saves `SET`
/// statements.
///
/// The caller's own timer enforces the exact deadline. The timeout of the server ends statements
/// that no cancel request reaches. `None` if the deadline exceeds the range of the setting.
fn statement_timeout(remaining: Duration) -> Option<Duration> {
    let millis = u64::try_from(remaining.as_nanos().div_ceil(1_000_000)).ok()?.max(1);
    let step = (1_u64 << millis.ilog2()).div_ceil(8);
    let timeout = millis.div_ceil(step) * step;
    i32::try_from(timeout).ok().map(|_| Duration::from_millis(timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statement_timeout_exceeds_the_deadline_by_at_most_an_eighth() {
        for millis in (1..5000).chain([29_990, 30_000, 86_400_000]) {
            let timeout = statement_timeout(Duration::from_millis(millis)).unwrap();
            let max = Duration::from_millis(millis + millis.div_ceil(8));
            assert!(
                timeout >= Duration::from_millis(millis) && timeout <= max,
                "{millis}: {timeout:?}"
            );
        }
        assert_eq!(statement_timeout(Duration::from_nanos(1)), Some(Duration::from_millis(1)));
        assert_eq!(statement_timeout(Duration::from_secs(3_000_000)), None);
        assert_eq!(statement_timeout(Duration::MAX), None);
    }

    #[test]
    fn similar_deadlines_have_the_same_statement_timeout() {
        let of = |millis| statement_timeout(Duration::from_millis(millis));
        assert_eq!(of(29_990), of(29_200));
    }
}
