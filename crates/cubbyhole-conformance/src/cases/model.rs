//! Random sequences of operations, compared with a model of a store.

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::Sample;
use crate::case::cases;
use crate::env;
use crate::model::{message_of, play, sequences};
use crate::outcome::{Outcome, Stop};
use crate::world::World;

const DEFAULT_SEQUENCES: u32 = 256;

cases! {
    /// The store replies to a random sequence of operations like a simple model.
    #[case(store, entry)]
    async fn random_operations<V: Sample>(w: &World<V>) -> Outcome {
        // The model compares namespaces and needs every method. An empty sequence calls them, so a
        // store that lacks one is reported as ignored.
        w.needs_namespaces()?;
        play(w, &[]).await?;
        let seed = env::number("CUBBYHOLE_MODEL_SEED").unwrap_or_else(|| fastrand::u64(..));
        let world = w.clone();
        let handle = tokio::runtime::Handle::current();
        // The runner of proptest is synchronous, so it runs on a thread that may block.
        let run = tokio::task::spawn_blocking(move || {
            let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes(seed));
            let config = Config {
                cases: number_of_sequences(),
                failure_persistence: None,
                max_shrink_iters: 20_000,
                ..Config::default()
            };
            TestRunner::new_with_rng(config, rng).run(&sequences(), |operations| {
                let played =
                    handle.block_on(async { play(&world.with_fresh_tenant()?, &operations).await });
                played.map_err(|stop| TestCaseError::fail(message_of(stop)))
            })
        });
        match run.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(TestError::Fail(reason, operations))) => {
                let lines = operations.iter().map(|operation| format!("\n    {operation:?},"));
                let lines: String = lines.collect();
                Err(Stop::failed(format!(
                    "{reason}\n  the shortest failing sequence: [{lines}\n  ]\n  \
                     to repeat: CUBBYHOLE_MODEL_SEED={seed}"
                )))
            }
            Ok(Err(error)) => Err(Stop::failed(error.to_string())),
            Err(error) => Err(Stop::failed(format!("the test runner panicked: {error}"))),
        }
    }
}

fn number_of_sequences() -> u32 {
    let number = env::number("CUBBYHOLE_MODEL_CASES");
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(DEFAULT_SEQUENCES)
}

fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}
