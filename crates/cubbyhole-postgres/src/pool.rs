//! The pool of connections.

use std::time::Duration;

use cubbyhole_core::runtime::{cooperate, require_timers};
use cubbyhole_core::{Error, ExecutionContext, Result};
use deadpool::managed::{
    Manager, Metrics, Object, PoolConfig, PoolError, QueueMode, RecycleError, RecycleResult,
    TimeoutType, Timeouts,
};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::config::Config;
use crate::connection::{Connection, Connector};

/// Connections, opened on demand and each used by one call at a time.
#[derive(Clone)]
pub(crate) struct Pool {
    connections: deadpool::managed::Pool<Connector>,
    /// Calls in flight, including abandoned calls whose statement is being cancelled.
    in_flight: TaskTracker,
    runtime: Handle,
}

/// A connection for the duration of one call. Dropping the lease returns the connection.
pub(crate) struct Lease {
    pub(crate) connection: Object<Connector>,
    _in_flight: TaskTrackerToken,
}

impl Manager for Connector {
    type Type = Connection;
    type Error = Error;

    async fn create(&self) -> Result<Connection> {
        self.connect().await
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Error> {
        // A check with a round trip would cost every call. The next call reports a connection that
        // broke unnoticed.
        if connection.is_usable() {
            return Ok(());
        }
        Err(RecycleError::message("the connection is closed"))
    }
}

impl Pool {
    /// Must run within the tokio runtime that will drive the connections.
    pub(crate) fn new(config: Config) -> Result<Self> {
        require_timers()?;
        let runtime = Handle::current();
        let idle_timeout = config.idle_timeout;
        // `create` has no timeout here, because connecting has its own.
        let timeouts = Timeouts { wait: Some(config.acquire_timeout), ..Timeouts::new() };
        // LIFO reuses few connections under light load, so the others reach the idle timeout.
        let pool = PoolConfig { max_size: config.pool_size, timeouts, queue_mode: QueueMode::Lifo };
        let connections = deadpool::managed::Pool::builder(Connector::new(config)?)
            .config(pool)
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(|error| {
                Error::internal("cannot create the connection pool").with_source(error)
            })?;
        if let Some(timeout) = idle_timeout {
            runtime.spawn(close_idle_connections(connections.weak(), timeout));
        }
        Ok(Self { connections, in_flight: TaskTracker::new(), runtime })
    }

    pub(crate) fn config(&self) -> &Config {
        self.connections.manager().config()
    }

    pub(crate) fn connector(&self) -> &Connector {
        self.connections.manager()
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.connections.is_closed() { Err(Error::closed()) } else { Ok(()) }
    }

    pub(crate) async fn acquire(&self, ctx: &ExecutionContext) -> Result<Lease> {
        ctx.check()?;
        let token = self.in_flight.token();
        let connection = match ctx.race(self.connections.get()).await? {
            Ok(connection) => connection,
            Err(PoolError::Backend(error)) => return Err(error),
            Err(PoolError::Closed) => return Err(Error::closed()),
            Err(PoolError::Timeout(TimeoutType::Wait)) => {
                return Err(Error::resource_exhausted(format!(
                    "all {} connections of the pool were in use for {:?}; increase `pool_size`",
                    self.connections.status().max_size,
                    self.config().acquire_timeout
                )));
            }
            Err(error) => {
                return Err(Error::internal("the connection pool failed").with_source(error));
            }
        };
        Ok(Lease { connection, _in_flight: token })
    }

    /// Rejects new calls and waits for the calls in flight.
    pub(crate) async fn close(&self, ctx: &ExecutionContext) -> Result<()> {
        cooperate().await;
        self.connections.close();
        self.in_flight.close();
        require_timers()?;
        ctx.race(self.in_flight.wait()).await
    }

    /// The number of open connections, and how many of them are in use.
    pub(crate) fn connections(&self) -> (usize, usize) {
        let status = self.connections.status();
        (status.size, status.size - status.available)
    }
}

/// Closes connections that were idle for `timeout`, until the pool is closed or dropped.
async fn close_idle_connections(pool: deadpool::managed::WeakPool<Connector>, timeout: Duration) {
    let ctx = ExecutionContext::new();
    let pause = (timeout / 4).max(Duration::from_millis(10));
    while ctx.sleep(pause).await.is_ok() {
        let Some(pool) = pool.upgrade().filter(|pool| !pool.is_closed()) else { return };
        pool.retain(|connection, metrics| connection.is_usable() && metrics.last_used() < timeout);
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("status", &self.connections.status()).finish_non_exhaustive()
    }
}
