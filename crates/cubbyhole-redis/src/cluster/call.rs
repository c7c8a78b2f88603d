//! Calls: a request goes to the master of its slot, and follows redirections and failovers within
//! its deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cubbyhole_core::runtime::{cooperate, require_timers};
use cubbyhole_core::{Error, ErrorKind, ExecutionContext, Namespace, Result, TenantId};
use redis::{Pipeline, Value};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::next_step::NextStep;
use super::node::Node;
use super::request::Request;
use super::retry::Retry;
use super::topology::Topology;
use crate::config::{Address, Config};
use crate::effect::Effect;
use crate::error::Failure;
use crate::keys::HashTag;
use crate::refusal::Refusal;

/// The interval at which the slot map is re-read while the store is in use.
const MAP_REFRESH_INTERVAL: Duration = Duration::from_secs(2);

/// The reply of a script: a value, or a refusal, which means that it wrote nothing.
pub(crate) type ScriptReply = Result<Value, Refusal>;

/// Sends the requests of a store. Clones are cheap and share the connections.
#[derive(Clone)]
pub(crate) struct Caller(Arc<Inner>);

struct Inner {
    topology: Topology,
    config: Config,
    calls: TaskTracker,
    closed: AtomicBool,
    /// Whether a call has ended without a reply since the slot map was last read.
    suspect: AtomicBool,
}

/// The destination of a request.
enum Route {
    Master,
    /// The node to which the slot is being migrated, for this one request.
    Ask(Address),
}

impl Inner {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Caller {
    /// Does not connect yet.
    pub(crate) fn new(config: Config) -> Result<Self> {
        let topology = Topology::new(&config)?;
        Ok(Self(Arc::new(Inner {
            topology,
            config,
            calls: TaskTracker::new(),
            closed: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
        })))
    }

    /// Spawns a task that re-reads the slot map of a cluster while the store is in use. It ends
    /// with the store. Without it, calls would wait for a master that hangs and was replaced,
    /// because no error reports that.
    pub(crate) fn spawn_map_refresh(&self) {
        if !self.0.topology.is_cluster() {
            return;
        }
        let store = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let ctx = ExecutionContext::new();
            while ctx.sleep(MAP_REFRESH_INTERVAL).await.is_ok() {
                let Some(inner) = store.upgrade().filter(|inner| !inner.is_closed()) else {
                    return;
                };
                if inner.suspect.swap(false, Ordering::Relaxed) || !inner.calls.is_empty() {
                    // A failed read is repeated at the next interval.
                    let _ = inner.topology.refresh(inner.topology.generation(), None).await;
                }
            }
        });
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.0.topology
    }

    /// The hash tag of a namespace's keys.
    pub(crate) fn namespace_tag(&self, ns: &Namespace) -> HashTag {
        HashTag::of_namespace(self.config().prefix(), ns)
    }

    /// The hash tag of a tenant's index of namespaces.
    pub(crate) fn tenant_tag(&self, tenant: &TenantId) -> HashTag {
        HashTag::of_tenant(self.config().prefix(), tenant)
    }

    /// The hash tag of the index of tenants.
    pub(crate) fn root_tag(&self) -> HashTag {
        HashTag::root(self.config().prefix())
    }

    /// Begins a call. Fails if the store is closed or the context has ended.
    pub(crate) async fn begin(&self, ctx: &ExecutionContext) -> Result<()> {
        ctx.begin_in_runtime().await?;
        self.check_open()
    }

    fn check_open(&self) -> Result<()> {
        if self.0.is_closed() { Err(Error::closed()) } else { Ok(()) }
    }

    /// Sends a request and returns its reply. A refusal becomes an error.
    pub(crate) async fn ask(&self, ctx: &ExecutionContext, request: &Request) -> Result<Value> {
        self.ask_within(ctx, request, &mut self.retry()).await
    }

    /// The same as [`ask`](Self::ask), with a retry limit that several requests share.
    pub(crate) async fn ask_within(
        &self,
        ctx: &ExecutionContext,
        request: &Request,
        retry: &mut Retry,
    ) -> Result<Value> {
        let answer = self.call(ctx, request, retry).await?;
        answer.map_err(Refusal::into_error)
    }

    /// Registers a request as in flight until the returned token is dropped.
    fn begin_request(&self, retry: &mut Retry) -> Result<TaskTrackerToken> {
        self.check_open()?;
        retry.begin_request();
        Ok(self.0.calls.token())
    }

    /// Starts the retry limit of one call, which may send several requests.
    pub(crate) fn retry(&self) -> Retry {
        Retry::new(self.0.config.retry_timeout)
    }

    /// Sends a request, and retries it until it succeeds, fails permanently or exceeds the retry
    /// limit. A write that may have had an effect is never retried.
    pub(crate) async fn call(
        &self,
        ctx: &ExecutionContext,
        request: &Request,
        retry: &mut Retry,
    ) -> Result<ScriptReply> {
        let _in_flight = self.begin_request(retry)?;
        let mut route = Route::Master;
        let mut with_script = false;
        loop {
            let seen = self.0.topology.generation();
            let node = match &route {
                Route::Master => self.0.topology.master(request.slot),
                Route::Ask(address) => Some(self.0.topology.node(address)),
            };
            let failure = match &node {
                None => Failure::NoOwner,
                Some(node) => {
                    let asking = matches!(route, Route::Ask(_));
                    match self.attempt(ctx, request, node, asking, with_script).await? {
                        Ok(value) => return Ok(Ok(value)),
                        Err(failure) => failure,
                    }
                }
            };
            let asked_for_script = std::mem::take(&mut with_script);
            let previous = std::mem::replace(&mut route, Route::Master);
            let refresh = match self.next(request, node.as_deref(), &failure) {
                NextStep::Refusal(refusal) => return Ok(Err(refusal)),
                NextStep::LoadScript => {
                    with_script = true;
                    route = previous;
                    if !asked_for_script {
                        continue;
                    }
                    // Another client flushed the scripts between the two commands.
                    false
                }
                NextStep::Moved(address) => {
                    self.0.topology.set_master(request.slot, &address);
                    if retry.follows_redirection() {
                        continue;
                    }
                    false
                }
                NextStep::Ask(address) => {
                    if retry.follows_redirection() {
                        route = Route::Ask(address);
                        continue;
                    }
                    false
                }
                NextStep::Later { refresh } => refresh,
                NextStep::Fail => return Err(failure.into_error(request.effect)),
            };
            // Boxed, so the future of a call without retries stays small.
            let again = Box::pin(async {
                let again = retry.wait(ctx).await?;
                if again && refresh {
                    // If no server returns a map, the next attempt fails with the reason.
                    let doubt = node.as_ref().map(|node| (request.slot, &node.address));
                    let _ = ctx.race(self.0.topology.refresh(seen, doubt)).await?;
                }
                Ok::<_, Error>(again)
            });
            if !again.await? {
                return Err(failure.into_error(request.effect));
            }
        }
    }

    /// Sends a request once. The outer error is that of the context.
    async fn attempt(
        &self,
        ctx: &ExecutionContext,
        request: &Request,
        node: &Node,
        asking: bool,
        with_script: bool,
    ) -> Result<Result<Value, Failure>> {
        let sent = AtomicBool::new(false);
        let sending = self.send(ctx, request, node, asking, with_script, &sent);
        ctx.race(sending).await.map_err(|ended| {
            self.0.suspect.store(true, Ordering::Relaxed);
            let unknown = request.effect == Effect::Write && sent.load(Ordering::Relaxed);
            if unknown { ended.with_unknown_outcome() } else { ended }
        })
    }

    async fn send(
        &self,
        ctx: &ExecutionContext,
        request: &Request,
        node: &Node,
        asking: bool,
        with_script: bool,
        sent: &AtomicBool,
    ) -> Result<Value, Failure> {
        let replicas = match request.effect {
            Effect::Write | Effect::Registration => self.0.config.wait_replicas,
            Effect::Read => 0,
        };
        if asking || with_script || replicas > 0 {
            // Boxed, so the future of an ordinary call stays small.
            let pipeline = request.pipeline(asking, with_script, replicas, self.wait(ctx));
            return Box::pin(send_pipeline(pipeline, request.slot, node, replicas, sent)).await;
        }
        let mut connection = node.connection(request.slot).await.map_err(Failure::Unsent)?;
        sent.store(true, Ordering::Relaxed);
        into_result(connection.send(&request.command).await)
    }

    /// Returns how long a write with this context waits for replicas.
    fn wait(&self, ctx: &ExecutionContext) -> Duration {
        let wait = self.0.config.wait_timeout;
        ctx.remaining().map_or(wait, |remaining| remaining.min(wait))
    }

    fn next(&self, request: &Request, node: Option<&Node>, failure: &Failure) -> NextStep {
        let cluster = self.0.topology.is_cluster();
        match failure {
            Failure::Refused(error) => {
                let next =
                    node.map_or(NextStep::Fail, |node| NextStep::after(error, &node.address));
                match next {
                    // A redirection from a single server means that the URL is wrong.
                    NextStep::Moved(_) | NextStep::Ask(_) if !cluster => NextStep::Fail,
                    NextStep::Later { refresh: true } if !cluster => {
                        // The server was demoted and keeps its connections. Connecting again finds
                        // the new master if it has taken over the host name.
                        node.inspect(|node| node.release_connections());
                        next
                    }
                    next => next,
                }
            }
            Failure::NoOwner => NextStep::Later { refresh: true },
            Failure::Unsent(error) if cluster && error.kind() == ErrorKind::Unavailable => {
                NextStep::Later { refresh: true }
            }
            Failure::Lost(_) if request.effect != Effect::Write => {
                NextStep::Later { refresh: true }
            }
            Failure::Unsent(_)
            | Failure::Lost(_)
            | Failure::FewReplicas(_)
            | Failure::NotWaited(_) => NextStep::Fail,
        }
    }

    /// Waits for the calls in flight and releases the connections.
    pub(crate) async fn close(&self, ctx: &ExecutionContext) -> Result<()> {
        cooperate().await;
        self.0.closed.store(true, Ordering::Release);
        self.0.calls.close();
        let waited = match require_timers() {
            Ok(()) => ctx.race(self.0.calls.wait()).await,
            Err(error) => Err(error),
        };
        self.0.topology.release_connections();
        waited
    }
}

async fn send_pipeline(
    (pipeline, position): (Pipeline, usize),
    slot: u16,
    node: &Node,
    replicas: u32,
    sent: &AtomicBool,
) -> Result<Value, Failure> {
    let connecting = async {
        if replicas > 0 { node.waiting_connection().await } else { node.connection(slot).await }
    };
    let mut connection = connecting.await.map_err(Failure::Unsent)?;
    sent.store(true, Ordering::Relaxed);
    let answers = connection.send_all(&pipeline).await;
    let mut answers = answers.map_err(Failure::Lost)?.into_iter();
    let prepared: Vec<Value> = answers.by_ref().take(position).collect();
    let value = match into_result(Ok(answers.next().unwrap_or_default())) {
        // If the script is missing, the reply to `SCRIPT LOAD` says why. Otherwise that reply does
        // not matter: another client may have loaded the script.
        Err(Failure::Refused(error)) if error.code() == Some("NOSCRIPT") => {
            for prepared in prepared {
                into_result(Ok(prepared))?;
            }
            return Err(Failure::Refused(error));
        }
        answer => answer?,
    };
    match answers.next() {
        Some(Value::Int(count)) if count < i64::from(replicas) => Err(Failure::FewReplicas(count)),
        Some(Value::ServerError(error)) => Err(Failure::NotWaited(error.into())),
        _ => Ok(value),
    }
}

fn into_result(answer: redis::RedisResult<Value>) -> Result<Value, Failure> {
    match answer {
        Ok(value) => value.extract_error().map_err(Failure::Refused),
        Err(error) => Err(Failure::Lost(error)),
    }
}
