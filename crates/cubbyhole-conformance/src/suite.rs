//! Runs the cases.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::EntryStore;
use futures_util::FutureExt;
use libtest_mimic::{Arguments, Completion, Trial};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::case::{Case, Level, Needs, Verdict};
use crate::{Harness, Sample, World, cases};

/// A case that takes longer has met a store that hangs.
const PATIENCE: Duration = Duration::from_secs(300);
/// Those that are asked for more than they do by themselves may take long.
const LONG_PATIENCE: Duration = Duration::from_secs(12 * 3600);

/// The whole suite over the stores of one harness.
///
/// [`run`] is all that most test files need; use this to run cases one by one, or to put trials of
/// your own beside them.
pub struct Suite<H: Harness> {
    shared: Arc<Shared<H>>,
    prefix: String,
}

/// A harness and a store of it.
type Place<H> = (Arc<H>, Arc<dyn EntryStore<<H as Harness>::Value>>);

struct Shared<H: Harness> {
    new: Box<dyn Fn() -> H + Send + Sync>,
    runtime: Runtime,
    /// The place of the cases that can live side by side.
    common: OnceCell<Place<H>>,
}

/// Runs the suite as a test program: reads the command line as the standard test runner does, runs
/// each case as a test of its own, in parallel, and says how it went.
///
/// `new` makes a harness: see [`Harness`] for how many are made.
#[must_use]
pub fn run<H: Harness>(new: impl Fn() -> H + Send + Sync + 'static) -> ExitCode {
    match Suite::new(new) {
        Ok(suite) => libtest_mimic::run(&Arguments::from_args(), suite.trials()).exit_code(),
        Err(error) => {
            use std::io::Write as _;
            // Nothing is left to be told if this cannot be written either.
            let _ = writeln!(std::io::stderr(), "cannot start a runtime for the suite: {error}");
            ExitCode::FAILURE
        }
    }
}

impl<H: Harness> Suite<H> {
    /// The suite over the harnesses that `new` makes.
    ///
    /// # Errors
    /// If the runtime that the cases run on cannot be started.
    pub fn new(new: impl Fn() -> H + Send + Sync + 'static) -> std::io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
        let shared = Shared { new: Box::new(new), runtime, common: OnceCell::new() };
        Ok(Self { shared: Arc::new(shared), prefix: String::new() })
    }

    /// Puts `prefix` and `::` before the name of every trial, for several suites in one program.
    #[must_use]
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.prefix = format!("{prefix}::");
        self
    }

    /// The cases, in order.
    #[must_use]
    pub fn cases(&self) -> Vec<Case<H::Value>> {
        cases::all()
    }

    /// The cases as trials for `libtest_mimic::run`.
    #[must_use]
    pub fn trials(&self) -> Vec<Trial> {
        let trial = |case: Case<H::Value>| {
            let shared = Arc::clone(&self.shared);
            let name = format!("{}{}", self.prefix, case.name());
            Trial::ignorable_test(name, move || match shared.run(&case) {
                Verdict::Passed => Ok(Completion::Completed),
                Verdict::Ignored(reason) => Ok(Completion::ignored_with(reason)),
                Verdict::Failed(message) => {
                    Err(format!("{message}\n  contract: {}", case.contract()).into())
                }
            })
        };
        self.cases().into_iter().map(trial).collect()
    }

    /// Runs one case by its name; `None` if there is no such case. Must not be called from within
    /// a runtime.
    #[must_use]
    pub fn run_case(&self, name: &str) -> Option<Verdict> {
        let case = self.cases().into_iter().find(|case| case.name() == name)?;
        Some(self.shared.run(&case))
    }

    /// Runs all cases one after the other; each one's name with its verdict. Must not be called
    /// from within a runtime.
    #[must_use]
    pub fn run_all(&self) -> Vec<(String, Verdict)> {
        let run = |case: Case<H::Value>| (case.name().to_owned(), self.shared.run(&case));
        self.cases().into_iter().map(run).collect()
    }
}

impl<H: Harness> fmt::Debug for Suite<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl<H: Harness> Shared<H> {
    fn run(&self, case: &Case<H::Value>) -> Verdict {
        self.runtime.block_on(async {
            let attempt = AssertUnwindSafe(self.attempt(case)).catch_unwind();
            let patience = patience();
            match tokio::time::timeout(patience, attempt).await {
                Ok(Ok(verdict)) => verdict,
                Ok(Err(panic)) => Verdict::Failed(format!("panicked: {}", panic_text(&*panic))),
                Err(_) => Verdict::Failed(format!("no end after {patience:?}")),
            }
        })
    }

    async fn attempt(&self, case: &Case<H::Value>) -> Verdict {
        let (harness, store) = self.place_for(case.needs()).await;
        let capabilities = harness.capabilities();
        let missing = match case.level() {
            Level::Entry => capabilities.missing.as_slice(),
            Level::Core => &[],
        };
        let ended = match World::new(harness, store) {
            Ok(world) => (case.run)(&world).await,
            Err(error) => Err(error.into()),
        };
        match ended {
            Ok(()) => Verdict::Passed,
            Err(stop) => stop.into_verdict(missing),
        }
    }

    async fn place_for(&self, needs: Needs) -> Place<H> {
        let fresh = async || {
            let harness = Arc::new((self.new)());
            let store = harness.store().await;
            (harness, store)
        };
        if needs == Needs::Store {
            return fresh().await;
        }
        let (harness, store) = self.common.get_or_init(fresh).await;
        if needs == Needs::Time && harness.capabilities().real_time.is_none() {
            return fresh().await;
        }
        (Arc::clone(harness), Arc::clone(store))
    }
}

fn patience() -> Duration {
    let asked = |name| number_from_env(name).is_some();
    let long = asked("CUBBYHOLE_MODEL_CASES") || asked("CUBBYHOLE_HISTORY_OPERATIONS");
    if long { LONG_PATIENCE } else { PATIENCE }
}

/// What a variable of the environment asks of a case.
pub(crate) fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

/// The names of all cases.
#[must_use]
pub fn case_names<V: Sample>() -> Vec<String> {
    cases::all::<V>().iter().map(|case| case.name().to_owned()).collect()
}
