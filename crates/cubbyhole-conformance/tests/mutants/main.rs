//! Mutants: broken stores that the suite must catch. They prove that the cases can fail.

mod conditions;
mod deletions;
mod idle;
mod mutant;
mod names;
mod pages;
mod prefixes;
mod recursive;
mod reverse;
mod runtime;
mod stat;
mod ttls;
mod writes;

use cubbyhole_conformance::model::{Lifetime, Location, Operation, replay};
use cubbyhole_conformance::{Suite, Verdict};

use mutant::{Mutant, MutantHarness, Sound};

/// Proves that the layer of the mutants itself breaks nothing.
#[test]
fn sound_store_passes_every_case() -> std::io::Result<()> {
    let suite = Suite::new(MutantHarness::<Sound>::default)?;
    for (name, verdict) in suite.run_all() {
        assert!(!matches!(verdict, Verdict::Failed(_)), "{name}: {verdict:?}");
    }
    Ok(())
}

/// Asserts that the model prints a seed and a sequence of at most six operations.
fn is_shrunk<M: Mutant>() -> std::io::Result<()> {
    let verdict = Suite::new(MutantHarness::<M>::default)?.run_case("model::random_operations");
    let Some(Verdict::Failed(message)) = verdict else {
        let message = format!("the model does not catch the mutant: {verdict:?}");
        return Err(std::io::Error::other(message));
    };
    assert!(message.contains("CUBBYHOLE_MODEL_SEED="), "the message has no seed: {message}");
    let operations = message.lines().filter(|line| line.starts_with("    ")).count();
    assert!((1..=6).contains(&operations), "{operations} operations remain: {message}");
    Ok(())
}

#[test]
fn failing_sequence_is_shrunk_to_few_operations() -> std::io::Result<()> {
    is_shrunk::<ttls::ExpiresEarly>()?;
    is_shrunk::<ttls::TouchRevivesExpired>()?;
    is_shrunk::<writes::BatchIsNotAtomic>()
}

#[tokio::test]
async fn saved_sequence_can_be_replayed() {
    let at = Location { namespace: 1, key: 2 };
    let sequence =
        [Operation::Put(at, 1, Lifetime::Millis(5)), Operation::Advance(4), Operation::Get(at)];
    assert_eq!(replay(MutantHarness::<Sound>::default(), &sequence).await, Ok(()));
    assert!(replay(MutantHarness::<ttls::ExpiresEarly>::default(), &sequence).await.is_err());
}
