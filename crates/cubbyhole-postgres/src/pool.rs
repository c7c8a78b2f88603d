//! The pool of connections.

use std::sync::Arc;
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

/// Connections that are opened on demand, used by one call at a time, and given back.
#[derive(Clone)]
pub(crate) struct Pool {
    connections: deadpool::managed::Pool<Connector>,
    /// What is under way: calls, and connections whose statement is being stopped.
    under_way: TaskTracker,
    runtime: Handle,
}

/// A connection for the length of a call. It goes back to the pool when it is dropped.
pub(crate) struct Lease {
    pub(crate) connection: Object<Connector>,
    _under_way: TaskTrackerToken,
}

impl Manager for Connector {
    type Type = Connection;
    type Error = Error;

    async fn create(&self) -> Result<Connection> {
        self.connect().await
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Error> {
        // Without a round trip: a connection that broke in silence fails its next call.
        if connection.is_usable() {
            return Ok(());
        }
        Err(RecycleError::message("the connection is closed"))
    }
}

impl Pool {
    /// Within a tokio runtime, on which connections live.
    pub(crate) fn new(config: Config) -> Result<Self> {
        require_timers()?;
        let runtime = Handle::current();
        let idle_timeout = config.idle_timeout;
        // Connecting has a limit of its own, and an error of its own.
        let timeouts = Timeouts { wait: Some(config.acquire_timeout), ..Timeouts::new() };
        // The connection that was used last is given out first, so that the others fall idle.
        let pool = PoolConfig { max_size: config.pool_size, timeouts, queue_mode: QueueMode::Lifo };
        let connections = deadpool::managed::Pool::builder(Connector::new(config)?)
            .config(pool)
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(|error| Error::internal("the pool cannot be made").with_source(error))?;
        if let Some(timeout) = idle_timeout {
            runtime.spawn(close_idle(connections.weak(), timeout));
        }
        Ok(Self { connections, under_way: TaskTracker::new(), runtime })
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
        let token = self.under_way.token();
        let connection = match ctx.race(self.connections.get()).await? {
            Ok(connection) => connection,
            Err(PoolError::Backend(error)) => return Err(error),
            Err(PoolError::Closed) => return Err(Error::closed()),
            Err(PoolError::Timeout(TimeoutType::Wait)) => {
                return Err(Error::resource_exhausted(format!(
                    "all {} connections of the pool were in use for {:?}; make `pool_size` larger",
                    self.connections.status().max_size,
                    self.config().acquire_timeout
                )));
            }
            Err(error) => return Err(Error::internal("the pool failed").with_source(error)),
        };
        Ok(Lease { connection, _under_way: token })
    }

    /// Refuses new calls and waits for those under way.
    pub(crate) async fn close(&self, ctx: &ExecutionContext) -> Result<()> {
        cooperate().await;
        self.connections.close();
        self.under_way.close();
        require_timers()?;
        ctx.race(self.under_way.wait()).await
    }

    /// How many connections are open, and how many of them are in use.
    pub(crate) fn occupation(&self) -> (usize, usize) {
        let status = self.connections.status();
        (status.size, status.size - status.available)
    }
}

/// Closes connections that were not used for a while, until the pool is gone.
async fn close_idle(pool: deadpool::managed::WeakPool<Connector>, timeout: Duration) {
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

/// Kept apart from the connection, so that a call can be stopped while it holds the connection.
pub(crate) type Control = Arc<crate::connection::Control>;
