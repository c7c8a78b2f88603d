//! The rules of `Retry` and `Timeout`, each with a scripted store below the layer.
//!
//! The clock of tokio is paused where a call waits, so pauses take no real time.

#![expect(clippy::unwrap_used, reason = "a panic fails the test that calls a helper")]

mod batches;
mod limits;
mod puts;
mod repeats;
mod script;
mod timeout;

use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::{
    Bytes, Condition, EntryStore, Error, ExecutionContext, GetOptions, Namespace, PutOptions,
    Result, Version,
};
use cubbyhole_layers::{Retry, RetryOptions};

use script::{Memory, Script, Step};

const KEY: &str = "k";

/// A retry layer over a script.
struct Bench {
    script: Arc<Script>,
    store: Retry<Arc<Script>>,
    ctx: ExecutionContext,
    ns: Namespace,
}

impl Bench {
    fn new() -> Self {
        Self::with(RetryOptions::new())
    }

    fn with(options: RetryOptions) -> Self {
        let script = Arc::<Script>::default();
        let store = Retry::new(Arc::clone(&script), options).unwrap();
        let (ctx, ns) = (ExecutionContext::new(), Namespace::parse("acme:agent-7").unwrap());
        Self { script, store, ctx, ns }
    }

    /// Puts an entry below the layer, and returns its version.
    async fn existing(&self, key: &str) -> Version {
        let value = Bytes::from("old");
        let always = Condition::Always;
        let memory = &self.script.memory;
        memory.put_entry(&self.ctx, &self.ns, key, value, PutOptions::new(), always).await.unwrap()
    }

    /// Returns the value and the version below the layer.
    async fn current(&self, key: &str) -> Option<(Bytes, Version)> {
        let memory = &self.script.memory;
        let entry = memory.get_entry(&self.ctx, &self.ns, key, GetOptions::new()).await.unwrap();
        entry.map(|entry| (entry.value, entry.meta.version))
    }

    /// A put with a known version.
    async fn put_at(&self, version: Version, condition: Condition) -> Result<Version> {
        let options = PutOptions::new().with_version(version);
        let (ctx, ns) = (&self.ctx, &self.ns);
        self.store.put_entry(ctx, ns, KEY, Bytes::from("new"), options, condition).await
    }

    /// A step in which another client makes a call.
    fn meanwhile<F>(&self, other: impl FnOnce(Memory, ExecutionContext, Namespace) -> F) -> Step
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let memory = Arc::clone(&self.script.memory);
        Step::Meanwhile(Box::pin(other(memory, self.ctx.clone(), self.ns.clone())))
    }

    /// A step in which another client replaces the entry.
    fn replaced(&self, key: &'static str) -> Step {
        self.meanwhile(async move |memory, ctx, ns| {
            let (value, options) = (Bytes::from("other"), PutOptions::new());
            memory.put_entry(&ctx, &ns, key, value, options, Condition::Always).await.unwrap();
        })
    }

    /// A step in which another client deletes the entry.
    fn deleted(&self, key: &'static str) -> Step {
        self.meanwhile(async move |memory, ctx, ns| {
            memory.delete_entry(&ctx, &ns, key, Condition::Always).await.unwrap();
        })
    }

    /// A step in which the first attempt of [`put_at`](Self::put_at) is applied late.
    fn applied_late(&self, version: Version) -> Step {
        self.meanwhile(async move |memory, ctx, ns| {
            let options = PutOptions::new().with_version(version);
            let (value, always) = (Bytes::from("new"), Condition::Always);
            memory.put_entry(&ctx, &ns, KEY, value, options, always).await.unwrap();
        })
    }

    fn script<const N: usize>(&self, steps: [Step; N]) {
        self.script.then(steps);
    }

    fn methods(&self) -> Vec<&'static str> {
        self.script.take_methods()
    }
}

fn refused() -> Error {
    Error::unavailable("the server is starting")
}

/// The error of the first attempt whose outcome is unknown.
fn unanswered() -> Error {
    Error::unavailable("no answer")
        .with_source(std::io::Error::other("connection reset"))
        .with_unknown_outcome()
}

/// Asserts that a call returned the error of [`unanswered`], unchanged.
#[track_caller]
fn assert_unknown<T: std::fmt::Debug>(answer: Result<T>, operation: &str) {
    let error = answer.unwrap_err();
    assert!(error.may_have_been_applied(), "{error:?}");
    assert_eq!((error.message(), error.operation()), ("no answer", Some(operation)));
    assert!(std::error::Error::source(&error).is_some());
}

fn second() -> Duration {
    Duration::from_secs(1)
}
