//! A model of the protocol that registers namespaces on a Redis Cluster, with every interleaving.
//!
//! A namespace's entries and its tenant's index are in different slots, and no step changes both.
//! The model explores every order of the steps of a few clients, with time passing between any two
//! steps. In each reachable state it checks the guarantees of listings and sweeps.
//!
//! The orders include crashes, because a crashed client takes no further step, and requests that
//! the network delays. Clients may start again any number of times. The number of states is finite,
//! because only the order of tokens counts, and ages end at the largest relevant one.
//!
//! A listing reads the index first and then the namespace. It has no steps in the model: if each
//! live namespace is in the index in every state, a listing misses none.
//!
//! Each test of a broken protocol shows that the exploration finds that mistake. With
//! `--nocapture`, it prints the steps. `docs/design/redis.md` explains why the protocol is correct.
//! The Lua scripts implement it.

#![expect(clippy::expect_used, clippy::panic, reason = "a panic fails the test")]
#![expect(
    clippy::print_stdout,
    clippy::disallowed_macros,
    reason = "the output of the tests contains counts and counterexamples"
)]

mod explore;
mod protocol;

use explore::{Counterexample, Exploration, Violation, explore};
use protocol::{Lifetime, Protocol, TokenSource};

const CORRECT: Protocol = Protocol {
    writers: 2,
    sweepers: 2,
    token_lifetime: Lifetime::For(1),
    fence_lifetime: Lifetime::For(3),
    tokens: TokenSource::Increasing,
    reports_fence: true,
    checks_and_fences_atomically: true,
    never_lowers_fence: true,
    compares_token: true,
    sweeps_unmarked: true,
};

/// Asserts that a protocol keeps every guarantee.
fn check_correct(name: &str, protocol: Protocol) {
    let Exploration { states, counterexample } = explore(&protocol);
    println!("{name}: {states} states");
    if let Some(counterexample) = counterexample {
        panic!("{name}:\n{counterexample}");
    }
    // An exploration without steps would find no violation either.
    assert!(states > 2_000, "{name}: only {states} states");
}

/// Asserts that the first violation of a broken protocol is this one.
fn check_broken(name: &str, protocol: Protocol, violation: Violation) -> Counterexample {
    let counterexample = explore(&protocol).counterexample.expect("no violation found");
    println!("{name}:\n{counterexample}");
    assert_eq!(counterexample.violation, violation, "{name}:\n{counterexample}");
    counterexample
}

fn check_loses_namespace(name: &str, protocol: Protocol) -> Counterexample {
    check_broken(name, protocol, Violation::LiveButNotListed)
}

/// In addition, no stale name remains and no writer repeats its steps indefinitely.
#[test]
fn live_namespaces_are_listed_in_every_state() {
    check_correct("the protocol", CORRECT);
}

#[test]
fn removal_without_token_and_fence_loses_a_live_namespace() {
    let naive = Protocol {
        token_lifetime: Lifetime::Forever,
        fence_lifetime: Lifetime::Zero,
        compares_token: false,
        writers: 1,
        sweepers: 1,
        ..CORRECT
    };
    assert!(!check_loses_namespace("naive", naive).takes_time());
}

#[test]
fn missing_fence_loses_a_live_namespace() {
    let broken = Protocol { fence_lifetime: Lifetime::Zero, ..CORRECT };
    assert!(!check_loses_namespace("no fence", broken).takes_time());
}

#[test]
fn removal_that_ignores_the_token_loses_a_live_namespace() {
    let broken = Protocol { compares_token: false, ..CORRECT };
    assert!(!check_loses_namespace("no comparison of tokens", broken).takes_time());
}

#[test]
fn fence_that_expires_before_tokens_loses_a_live_namespace() {
    let (token_lifetime, fence_lifetime) = (Lifetime::For(2), Lifetime::For(1));
    let broken = Protocol { token_lifetime, fence_lifetime, ..CORRECT };
    assert!(check_loses_namespace("short fence", broken).takes_time());
}

#[test]
fn fence_that_lasts_as_long_as_its_tokens_is_sufficient() {
    let (token_lifetime, fence_lifetime) = (Lifetime::For(2), Lifetime::For(2));
    let equal = Protocol { token_lifetime, fence_lifetime, ..CORRECT };
    check_correct("equal lifetimes of tokens and fences", equal);
}

#[test]
fn tokens_that_never_expire_need_fences_that_never_expire() {
    let forever = Protocol { token_lifetime: Lifetime::Forever, ..CORRECT };
    assert!(check_loses_namespace("tokens never expire", forever).takes_time());
    let both = Protocol { fence_lifetime: Lifetime::Forever, ..forever };
    check_correct("tokens and fences never expire", both);
}

#[test]
fn separate_check_and_fence_steps_lose_a_live_namespace() {
    let broken = Protocol { checks_and_fences_atomically: false, ..CORRECT };
    assert!(!check_loses_namespace("separate check and fence", broken).takes_time());
}

#[test]
fn lowered_fence_loses_a_live_namespace() {
    let broken = Protocol { never_lowers_fence: false, ..CORRECT };
    assert!(!check_loses_namespace("lowered fence", broken).takes_time());
}

/// A sweeper that is delayed until its fence has expired can remove a name that a later writer
/// listed with the same token. While the fence lasts, it rejects such a token.
#[test]
fn tokens_may_repeat_only_while_the_fence_lasts() {
    let tokens = TokenSource::Arbitrary { max: 3 };
    let repeated = Protocol { tokens, ..CORRECT };
    let broken = Protocol { writers: 1, ..repeated };
    assert!(check_loses_namespace("repeated tokens", broken).takes_time());
    let lasting = Protocol { fence_lifetime: Lifetime::Forever, ..repeated };
    check_correct("repeated tokens, fences never expire", lasting);
}

#[test]
fn writer_that_does_not_learn_the_fence_may_never_succeed() {
    let tokens = TokenSource::Arbitrary { max: 3 };
    let broken = Protocol { tokens, reports_fence: false, ..CORRECT };
    check_broken("unreported fence", broken, Violation::WriterNeverSucceeds);
}

#[test]
fn sweeper_that_requires_a_marker_leaves_a_stale_name() {
    let broken = Protocol { sweeps_unmarked: false, ..CORRECT };
    check_broken("unmarked names are not swept", broken, Violation::NeverSwept);
}
