//! One call: to the master of its slot, after redirections and failovers, within its deadline.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cubbyhole_core::runtime::{cooperate, require_timers};
use cubbyhole_core::{Error, ErrorKind, ExecutionContext, Result};
use redis::{Cmd, Pipeline, ToRedisArgs, Value};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::config::{Address, Config};
use crate::connection::Node;
use crate::error::{Effect, Failure, Next, Refusal, judge};
use crate::keys::Place;
use crate::scripts::Script;
use crate::topology::Topology;

/// How often a call follows redirections without a pause.
const REDIRECTIONS_AT_ONCE: u32 = 5;
/// The first pause; each is twice the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// How old the map of a cluster becomes while the store is used.
const MAP_AGE: Duration = Duration::from_secs(2);

/// A command, and the slot that its keys are in.
pub(crate) struct Request {
    slot: u16,
    effect: Effect,
    command: Cmd,
    script: Option<&'static Script>,
}

impl Request {
    pub(crate) fn command(place: &Place, effect: Effect, name: &str) -> Self {
        Self { slot: place.slot(), effect, command: redis::cmd(name), script: None }
    }

    /// A script with all keys that it touches.
    pub(crate) fn script(
        place: &Place,
        effect: Effect,
        script: &'static LazyLock<Script>,
        keys: &[String],
    ) -> Self {
        Self::script_of(place, effect, script, keys, 0)
    }

    /// A script whose arguments have about so many bytes, which is asked of the system at once.
    pub(crate) fn script_of(
        place: &Place,
        effect: Effect,
        script: &'static LazyLock<Script>,
        keys: &[String],
        bytes: usize,
    ) -> Self {
        let script: &'static Script = LazyLock::force(script);
        let names: usize = keys.iter().map(|key| 2 * key.len()).sum();
        let mut command = Cmd::with_capacity(8 + 6 * keys.len(), 128 + names + bytes);
        command.arg("EVALSHA");
        command.arg(&script.digest).arg(keys.len()).arg(keys);
        Self { slot: place.slot(), effect, command, script: Some(script) }
    }

    pub(crate) fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.command.arg(arg);
        self
    }

    /// The command with what goes before and behind it, and its place among them. What goes
    /// together is written together, so that nothing of others comes between.
    fn together(
        &self,
        asking: bool,
        with_script: bool,
        replicas: u32,
        wait: Duration,
    ) -> (Pipeline, usize) {
        let mut together = Pipeline::new();
        if let Some(script) = self.script.filter(|_| with_script) {
            together.cmd("SCRIPT").arg("LOAD").arg(script.source);
        }
        if asking {
            together.cmd("ASKING");
        }
        let place = together.len();
        together.add_command(self.command.clone());
        if replicas > 0 {
            // Zero would wait for ever.
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            together.cmd("WAIT").arg(replicas).arg(millis);
        }
        (together, place)
    }
}

/// What a script answers: a value, or that it wrote nothing and why.
pub(crate) type Answer = Result<Value, Refusal>;

/// Where the calls of a store go through. Cloning it is cheap.
#[derive(Clone)]
pub(crate) struct Caller(Arc<Inner>);

struct Inner {
    topology: Topology,
    config: Config,
    calls: TaskTracker,
    closed: AtomicBool,
    /// A call has ended without an answer since the map was looked at.
    suspect: AtomicBool,
}

/// Whom a call asks.
enum Route {
    Master,
    /// The one to which its slot is being moved, this once.
    Ask(Address),
}

impl Inner {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Caller {
    /// Connects to nothing yet.
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

    /// Reads the map of a cluster anew from time to time while the store is used, as long as there
    /// is a store. A master that hangs and was replaced says nothing, nor does the system.
    pub(crate) fn keep_map(&self) {
        if !self.0.topology.is_cluster() {
            return;
        }
        let store = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let ctx = ExecutionContext::new();
            while ctx.sleep(MAP_AGE).await.is_ok() {
                let Some(inner) = store.upgrade().filter(|inner| !inner.is_closed()) else {
                    return;
                };
                if inner.suspect.swap(false, Ordering::Relaxed) || !inner.calls.is_empty() {
                    // Nobody tells it: the next time.
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

    /// Begins a call, and refuses it once the store is closed.
    pub(crate) async fn begin(&self, ctx: &ExecutionContext) -> Result<()> {
        ctx.begin_in_runtime().await?;
        self.check_open()
    }

    fn check_open(&self) -> Result<()> {
        if self.0.is_closed() { Err(Error::closed()) } else { Ok(()) }
    }

    /// The answer to a request that no script may refuse.
    pub(crate) async fn ask(&self, ctx: &ExecutionContext, request: &Request) -> Result<Value> {
        self.ask_within(ctx, request, &mut self.repeat()).await
    }

    /// The same for one of several requests that have a time to repeat in together.
    pub(crate) async fn ask_within(
        &self,
        ctx: &ExecutionContext,
        request: &Request,
        repeat: &mut Repeat,
    ) -> Result<Value> {
        let answer = self.call(ctx, request, repeat).await?;
        answer.map_err(|refusal| match refusal {
            Refusal::TooLate => too_late(),
            Refusal::Conflict { index, current } => Error::conflict(current).at_batch_index(index),
            Refusal::Unregistered { .. } => {
                Error::internal("a script asked for a registration that it does not need")
            }
        })
    }

    /// One more request is under way, until what this returns is dropped.
    fn begin_request(&self, repeat: &mut Repeat) -> Result<TaskTrackerToken> {
        self.check_open()?;
        repeat.redirections = 0;
        Ok(self.0.calls.token())
    }

    /// The time in which requests that belong together are repeated.
    pub(crate) fn repeat(&self) -> Repeat {
        Repeat::new(self.0.config.retry_timeout)
    }

    /// Sends a request until it is answered, refused for good, or its time is over. What may have
    /// had an effect is never sent again.
    pub(crate) async fn call(
        &self,
        ctx: &ExecutionContext,
        request: &Request,
        repeat: &mut Repeat,
    ) -> Result<Answer> {
        let _under_way = self.begin_request(repeat)?;
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
                Next::Refusal(refusal) => return Ok(Err(refusal)),
                Next::LoadScript => {
                    with_script = true;
                    route = previous;
                    if !asked_for_script {
                        continue;
                    }
                    // Another has flushed the scripts in between.
                    false
                }
                Next::Moved(address) => {
                    self.0.topology.moved(request.slot, &address);
                    if repeat.at_once() {
                        continue;
                    }
                    false
                }
                Next::Ask(address) => {
                    if repeat.at_once() {
                        route = Route::Ask(address);
                        continue;
                    }
                    false
                }
                Next::Later { refresh } => refresh,
                Next::Fail => return Err(failure.into_error(request.effect)),
            };
            // Apart, because a call that is answered at once would carry the room for it along.
            let again = Box::pin(async {
                let again = repeat.after_a_pause(ctx).await?;
                if again && refresh {
                    // If nobody tells the map, the next attempt says why.
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

    /// One attempt. The outer error is that of the context.
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
            // Apart, because the ordinary call would carry the room for it along.
            let together = request.together(asking, with_script, replicas, self.wait(ctx));
            return Box::pin(send_together(together, request.slot, node, replicas, sent)).await;
        }
        let mut connection = node.connection(request.slot).await.map_err(Failure::Unsent)?;
        sent.store(true, Ordering::Relaxed);
        answered(connection.send(&request.command).await)
    }

    /// How long a write of this context waits for replicas.
    fn wait(&self, ctx: &ExecutionContext) -> Duration {
        let wait = self.0.config.wait_timeout;
        ctx.remaining().map_or(wait, |remaining| remaining.min(wait))
    }

    fn next(&self, request: &Request, node: Option<&Node>, failure: &Failure) -> Next {
        let cluster = self.0.topology.is_cluster();
        match failure {
            Failure::Refused(error) => {
                let next = node.map_or(Next::Fail, |node| judge(error, &node.address));
                match next {
                    // A single server that redirects is asked in the wrong way.
                    Next::Moved(_) | Next::Ask(_) if !cluster => Next::Fail,
                    Next::Later { refresh: true } if !cluster => {
                        // It was demoted and keeps its clients: whoever has its name now is found
                        // by connecting anew.
                        node.inspect(|node| node.disconnect());
                        next
                    }
                    next => next,
                }
            }
            Failure::NoOwner => Next::Later { refresh: true },
            Failure::Unsent(error) if cluster && error.kind() == ErrorKind::Unavailable => {
                Next::Later { refresh: true }
            }
            Failure::Lost(_) if request.effect != Effect::Write => Next::Later { refresh: true },
            Failure::Unsent(_)
            | Failure::Lost(_)
            | Failure::FewReplicas(_)
            | Failure::NotWaited(_) => Next::Fail,
        }
    }

    /// Waits for the calls under way and lets go of the connections.
    pub(crate) async fn close(&self, ctx: &ExecutionContext) -> Result<()> {
        cooperate().await;
        self.0.closed.store(true, Ordering::Release);
        self.0.calls.close();
        let waited = match require_timers() {
            Ok(()) => ctx.race(self.0.calls.wait()).await,
            Err(error) => Err(error),
        };
        self.0.topology.disconnect();
        waited
    }
}

pub(crate) fn too_late() -> Error {
    Error::invalid_argument(
        "the TTL ends past the year 9999; leave it out for an entry that never expires",
    )
}

async fn send_together(
    (together, place): (Pipeline, usize),
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
    let answers = connection.send_all(&together).await;
    let mut answers = answers.map_err(Failure::Lost)?.into_iter();
    let prepared: Vec<Value> = answers.by_ref().take(place).collect();
    let value = match answered(Ok(answers.next().unwrap_or_default())) {
        // What went before says why the script is not there. What is answered itself counts, also
        // where what went before was refused: another may have sent the script.
        Err(Failure::Refused(error)) if error.code() == Some("NOSCRIPT") => {
            for prepared in prepared {
                answered(Ok(prepared))?;
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

fn answered(answer: redis::RedisResult<Value>) -> Result<Value, Failure> {
    match answer {
        Ok(value) => value.extract_error().map_err(Failure::Refused),
        Err(error) => Err(Failure::Lost(error)),
    }
}

/// For how long a call goes on trying.
pub(crate) struct Repeat {
    timeout: Duration,
    limit: Option<ExecutionContext>,
    pause: Duration,
    redirections: u32,
}

impl Repeat {
    const fn new(timeout: Duration) -> Self {
        Self { timeout, limit: None, pause: FIRST_PAUSE, redirections: 0 }
    }

    fn at_once(&mut self) -> bool {
        self.redirections += 1;
        self.redirections <= REDIRECTIONS_AT_ONCE
    }

    /// Whether to try again, after a pause that differs from caller to caller.
    pub(crate) async fn after_a_pause(&mut self, ctx: &ExecutionContext) -> Result<bool> {
        if self.timeout.is_zero() {
            return Ok(false);
        }
        let timeout = self.timeout;
        let limit = self.limit.get_or_insert_with(|| ExecutionContext::new().with_timeout(timeout));
        if limit.check().is_err() {
            return Ok(false);
        }
        ctx.sleep(self.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await?;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.redirections = 0;
        Ok(true)
    }
}
