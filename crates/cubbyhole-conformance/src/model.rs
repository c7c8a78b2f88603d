//! Random sequences of operations against a simple model of a store.
//!
//! The model is a map and a counter of milliseconds; it shares no code with any store, and renders
//! and matches namespaces by itself. The case `model::random_operations` plays sequences on the
//! harness's store and compares every answer; a sequence that fails is shrunk to a minimal one,
//! which it prints together with the seed.
//!
//! - `CUBBYHOLE_MODEL_CASES`: how many sequences, of 50 operations on average; 256 unless set.
//! - `CUBBYHOLE_MODEL_SEED`: the seed that a failure printed, to see it again.
//!
//! On a clock that can be moved, time passes in the sequences and every instant is compared to the
//! millisecond. On a real clock entries either last or have expired long ago.
//!
//! [`replay`] plays a sequence that you keep as a test of its own.

mod operation;
mod play;
mod state;

use std::sync::Arc;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::case::{Outcome, Stop, Verdict, cases};
use crate::suite::number_from_env;
use crate::{Harness, Sample, World};

pub use operation::{Change, Life, Operation, Place, When};

const CASES: u32 = 256;

/// Sequences as the case plays them, for tests of your own.
pub fn sequences() -> impl Strategy<Value = Vec<Operation>> {
    proptest::collection::vec(operation::any_operation(), 0..=100)
}

/// Plays one sequence on a new store of `harness`.
///
/// # Errors
/// Where the store and the model differ.
pub async fn replay<H: Harness>(harness: H, operations: &[Operation]) -> Result<(), String> {
    let harness = Arc::new(harness);
    let store = harness.store().await;
    let world = World::new(harness, store).map_err(|error| error.to_string())?;
    match play::play(&world, operations).await {
        Ok(()) => Ok(()),
        Err(stop) => Err(text_of(stop)),
    }
}

cases! {
    /// Every answer to a random sequence of operations is that of a simple model.
    #[case(store, entry)]
    async fn random_operations<V: Sample>(w: &World<V>) -> Outcome {
        // Without these there is nothing to compare; a store that lacks them says so here.
        w.needs_namespaces()?;
        play::play(w, &[]).await?;
        let seed = seed();
        let world = w.clone();
        let handle = tokio::runtime::Handle::current();
        // The runner of proptest is not asynchronous: it gets a thread on which it may block.
        let run = tokio::task::spawn_blocking(move || {
            let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes(seed));
            let config = Config {
                cases: sequences_to_play(),
                failure_persistence: None,
                max_shrink_iters: 20_000,
                ..Config::default()
            };
            TestRunner::new_with_rng(config, rng).run(&sequences(), |operations| {
                let played = handle
                    .block_on(async { play::play(&world.with_fresh_tenant()?, &operations).await });
                played.map_err(|stop| TestCaseError::fail(text_of(stop)))
            })
        });
        match run.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(TestError::Fail(reason, operations))) => {
                let lines = operations.iter().map(|operation| format!("\n    {operation:?},"));
                let lines: String = lines.collect();
                Err(Stop::failed(format!(
                    "{reason}\n  the shortest sequence found: [{lines}\n  ]\n  \
                     again: CUBBYHOLE_MODEL_SEED={seed}"
                )))
            }
            Ok(Err(error)) => Err(Stop::failed(error.to_string())),
            Err(error) => Err(Stop::failed(format!("the runner died: {error}"))),
        }
    }
}

fn seed() -> u64 {
    number_from_env("CUBBYHOLE_MODEL_SEED").unwrap_or_else(|| fastrand::u64(..))
}

fn sequences_to_play() -> u32 {
    let asked = number_from_env("CUBBYHOLE_MODEL_CASES");
    asked.and_then(|cases| u32::try_from(cases).ok()).unwrap_or(CASES)
}

fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}

fn text_of(stop: Stop) -> String {
    match stop.into_verdict(&[]) {
        Verdict::Passed => String::new(),
        Verdict::Ignored(text) | Verdict::Failed(text) => text,
    }
}
