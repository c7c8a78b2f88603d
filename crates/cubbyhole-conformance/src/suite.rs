//! The runner: executes the cases, or returns them as trials for `libtest_mimic`.

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

use crate::case::{Case, Level, Needs};
use crate::outcome::Verdict;
use crate::world::World;
use crate::{Harness, Sample, cases, env};

/// The time limit of a case. It fails cases on a store that hangs.
const TIME_LIMIT: Duration = Duration::from_secs(300);
/// The time limit if an environment variable asks for more sequences or calls than the default.
const LONG_TIME_LIMIT: Duration = Duration::from_secs(12 * 3600);

/// All cases, for the stores of one harness.
///
/// Most test files only need [`run`]. Use this type to run single cases, or to add trials of your
/// own.
pub struct Suite<H: Harness> {
    shared: Arc<Shared<H>>,
    prefix: String,
}

/// A harness, and a store that it created.
type StoreOf<H> = (Arc<H>, Arc<dyn EntryStore<<H as Harness>::Value>>);

struct Shared<H: Harness> {
    new: Box<dyn Fn() -> H + Send + Sync>,
    runtime: Runtime,
    /// The store of the cases that only need a fresh tenant.
    common: OnceCell<StoreOf<H>>,
}

/// Runs the suite as a test program. This is the `main` of most test files.
///
/// It accepts the command line of the standard test runner, runs each case as a separate test, in
/// parallel, and prints the results. `new` creates a harness; [`Harness`] says how often it is
/// called.
#[must_use]
pub fn run<H: Harness>(new: impl Fn() -> H + Send + Sync + 'static) -> ExitCode {
    match Suite::new(new) {
        Ok(suite) => libtest_mimic::run(&Arguments::from_args(), suite.trials()).exit_code(),
        Err(error) => {
            use std::io::Write as _;
            // If stderr is closed too, there is no way left to report the error.
            let _ =
                writeln!(std::io::stderr(), "cannot start the tokio runtime of the suite: {error}");
            ExitCode::FAILURE
        }
    }
}

impl<H: Harness> Suite<H> {
    /// Creates the suite for the harnesses that `new` creates.
    ///
    /// # Errors
    /// If the tokio runtime for the cases cannot be started.
    pub fn new(new: impl Fn() -> H + Send + Sync + 'static) -> std::io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
        let shared = Shared { new: Box::new(new), runtime, common: OnceCell::new() };
        Ok(Self { shared: Arc::new(shared), prefix: String::new() })
    }

    /// Adds `prefix` and `::` to the name of every trial, to run several suites in one program.
    #[must_use]
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.prefix = format!("{prefix}::");
        self
    }

    /// Returns the cases, in order.
    #[must_use]
    pub fn cases(&self) -> Vec<Case<H::Value>> {
        cases::all()
    }

    /// Returns the cases as trials for `libtest_mimic::run`.
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

    /// Runs one case by its name. Returns `None` if there is no case with this name.
    ///
    /// # Panics
    /// If it is called within a tokio runtime.
    #[must_use]
    pub fn run_case(&self, name: &str) -> Option<Verdict> {
        let case = self.cases().into_iter().find(|case| case.name() == name)?;
        Some(self.shared.run(&case))
    }

    /// Runs all cases one after the other, and returns their names and verdicts.
    ///
    /// # Panics
    /// If it is called within a tokio runtime.
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
            let limit = time_limit();
            match tokio::time::timeout(limit, attempt).await {
                Ok(Ok(verdict)) => verdict,
                Ok(Err(panic)) => Verdict::Failed(format!(
                    "the case or the store panicked: {}",
                    panic_text(&*panic)
                )),
                Err(_) => Verdict::Failed(format!(
                    "the case did not end within {limit:?}: the store hangs, or is too slow"
                )),
            }
        })
    }

    async fn attempt(&self, case: &Case<H::Value>) -> Verdict {
        let (harness, store) = self.store_for(case.needs()).await;
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

    async fn store_for(&self, needs: Needs) -> StoreOf<H> {
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

fn time_limit() -> Duration {
    let is_set = |name| env::number(name).is_some();
    let long = is_set("CUBBYHOLE_MODEL_CASES") || is_set("CUBBYHOLE_HISTORY_OPERATIONS");
    if long { LONG_TIME_LIMIT } else { TIME_LIMIT }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

/// Returns the names of all cases.
#[must_use]
pub fn case_names<V: Sample>() -> Vec<String> {
    cases::all::<V>().iter().map(|case| case.name().to_owned()).collect()
}
