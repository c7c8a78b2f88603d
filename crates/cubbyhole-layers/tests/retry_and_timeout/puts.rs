//! Puts of unknown outcome.

use cubbyhole_core::{Bytes, Condition, EntryStore, Error, PutOptions, Store, Version};
use cubbyhole_layers::RetryOptions;

use crate::script::Step;
use crate::{Bench, KEY, assert_unknown, refused, unanswered};

#[tokio::test(start_paused = true)]
async fn applied_put_succeeds() {
    let bench = Bench::new();
    let Bench { store, ctx, ns, .. } = &bench;
    bench.script([Step::ApplyThenFail(unanswered())]);
    store.put(ctx, ns, KEY, Bytes::from("new")).await.unwrap();
    assert_eq!(bench.methods(), ["put_with_options", "stat"]);

    let current = bench.current(KEY).await.unwrap().1;
    for condition in [Condition::IfVersion(current), Condition::Always, Condition::IfPresent] {
        bench.script([Step::ApplyThenFail(unanswered())]);
        let (value, options) = (Bytes::from("new"), PutOptions::new());
        let version = store.put_entry(ctx, ns, KEY, value, options, condition).await.unwrap();
        assert_eq!(bench.current(KEY).await, Some((Bytes::from("new"), version)));
        assert_eq!(bench.methods(), ["put_entry", "stat"]);
    }
}

#[tokio::test(start_paused = true)]
async fn put_keeps_the_version_that_the_caller_set() {
    let bench = Bench::new();
    let mine = Version::draw();
    bench.script([Step::ApplyThenFail(unanswered())]);
    assert_eq!(bench.put_at(mine, Condition::IfAbsent).await.unwrap(), mine);
    assert_eq!(bench.current(KEY).await.unwrap().1, mine);
}

#[tokio::test(start_paused = true)]
async fn put_that_would_apply_twice_is_not_repeated() {
    let bench = Bench::new();
    bench.script([Step::Fail(unanswered())]);
    assert_unknown(bench.put_at(Version::draw(), Condition::IfAbsent).await, "put_entry");
    assert_eq!(bench.methods(), ["put_entry", "stat"]);
    assert_eq!(bench.current(KEY).await, None);

    let before = bench.existing(KEY).await;
    for condition in [Condition::Always, Condition::IfPresent] {
        bench.script([Step::Fail(unanswered())]);
        assert_unknown(bench.put_at(Version::draw(), condition).await, "put_entry");
        assert_eq!(bench.methods(), ["put_entry", "stat"]);
    }
    assert_eq!(bench.current(KEY).await, Some((Bytes::from("old"), before)));
}

#[tokio::test(start_paused = true)]
async fn put_at_a_version_is_repeated_while_it_is_unchanged() {
    let bench = Bench::new();
    let (held, mine) = (Condition::IfVersion(bench.existing(KEY).await), Version::draw());
    bench.script([
        Step::Fail(unanswered()),
        Step::Pass,
        Step::Fail(unanswered()),
        Step::Pass,
        Step::Pass,
    ]);
    assert_eq!(bench.put_at(mine, held).await.unwrap(), mine);
    assert_eq!(bench.methods(), ["put_entry", "stat", "put_entry", "stat", "put_entry"]);
    assert_eq!(bench.current(KEY).await, Some((Bytes::from("new"), mine)));
}

#[tokio::test(start_paused = true)]
async fn late_first_attempt_makes_the_repeat_succeed() {
    let bench = Bench::new();
    let (held, mine) = (Condition::IfVersion(bench.existing(KEY).await), Version::draw());
    bench.script([Step::Fail(unanswered()), Step::Pass, bench.applied_late(mine)]);
    assert_eq!(bench.put_at(mine, held).await.unwrap(), mine);
    assert_eq!(bench.methods(), ["put_entry", "stat", "put_entry"]);
}

#[tokio::test(start_paused = true)]
async fn put_stays_unknown_when_another_client_replaced_it() {
    let bench = Bench::new();
    let held = Condition::IfVersion(bench.existing(KEY).await);
    bench.script([Step::Fail(unanswered()), bench.replaced(KEY)]);
    assert_unknown(bench.put_at(Version::draw(), held).await, "put_entry");
    assert_eq!(bench.methods(), ["put_entry", "stat"]);

    // The repeat certainly fails, but the first attempt may have been applied before.
    let held = Condition::IfVersion(bench.existing(KEY).await);
    bench.script([Step::Fail(unanswered()), Step::Pass, bench.replaced(KEY)]);
    assert_unknown(bench.put_at(Version::draw(), held).await, "put_entry");
    assert_eq!(bench.methods(), ["put_entry", "stat", "put_entry"]);
}

#[tokio::test(start_paused = true)]
async fn conflict_without_an_unknown_attempt_stays_a_conflict() {
    let bench = Bench::new();
    let current = bench.existing(KEY).await;
    bench.script([Step::Fail(refused())]);
    let error = bench.put_at(current, Condition::IfAbsent).await.unwrap_err();
    assert_eq!(error.current_version(), Some(current));
    assert!(!error.may_have_been_applied());
    assert_eq!(bench.methods(), ["put_entry", "put_entry"]);
}

#[tokio::test(start_paused = true)]
async fn certain_failure_after_an_unknown_one_stays_unknown() {
    let bench = Bench::with(RetryOptions::new().with_max_attempts(5));
    let held = Condition::IfVersion(bench.existing(KEY).await);
    // An ended call is not settled. A read that succeeds finds the old version.
    let cases = [
        (Error::deadline_exceeded(), &["put_entry", "stat", "put_entry"][..], 0),
        (Error::permission_denied("x"), &["put_entry", "stat", "put_entry", "stat"], 0),
        (refused(), &["put_entry", "stat", "put_entry", "stat", "stat"], 2),
    ];
    for (certain, methods, refused_reads) in cases {
        bench.script([Step::Fail(unanswered()), Step::Pass, Step::Fail(certain)]);
        bench.script.then((0..refused_reads).map(|_| Step::Fail(refused())));
        assert_unknown(bench.put_at(Version::draw(), held).await, "put_entry");
        assert_eq!(bench.methods(), methods);
    }
}

#[tokio::test(start_paused = true)]
async fn read_settles_a_certain_failure_after_an_unknown_one() {
    let bench = Bench::new();
    for certain in [refused(), Error::permission_denied("x")] {
        let (held, mine) = (Condition::IfVersion(bench.existing(KEY).await), Version::draw());
        let late = bench.applied_late(mine);
        bench.script([Step::Fail(unanswered()), Step::Pass, late, Step::Fail(certain)]);
        assert_eq!(bench.put_at(mine, held).await.unwrap(), mine);
        assert_eq!(bench.methods(), ["put_entry", "stat", "put_entry", "stat"]);
    }
}

#[tokio::test(start_paused = true)]
async fn settling_read_is_repeated_after_a_certain_refusal() {
    let bench = Bench::new();
    let mine = Version::draw();
    bench.script([Step::ApplyThenFail(unanswered()), Step::Fail(refused())]);
    assert_eq!(bench.put_at(mine, Condition::Always).await.unwrap(), mine);
    assert_eq!(bench.methods(), ["put_entry", "stat", "stat"]);
}

#[tokio::test(start_paused = true)]
async fn failed_settling_read_leaves_the_outcome_unknown() {
    let bench = Bench::new();
    let denied = Error::permission_denied("reads are forbidden");
    bench.script([Step::ApplyThenFail(unanswered()), Step::Fail(denied)]);
    assert_unknown(bench.put_at(Version::draw(), Condition::Always).await, "put_entry");
    assert_eq!(bench.methods(), ["put_entry", "stat"]);
}
