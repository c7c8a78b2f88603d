//! Batches of unknown outcome.

use cubbyhole_core::{Batch, Bytes, Condition, EntryStore, PutOptions, Result, Version, Written};

use crate::script::Step;
use crate::{Bench, assert_unknown, unanswered};

fn put_at(batch: Batch<Bytes>, key: &str, version: Version, condition: Condition) -> Batch<Bytes> {
    let options = PutOptions::new().with_version(version);
    batch.put_with(key, Bytes::from("new"), options, condition)
}

async fn write(bench: &Bench, batch: Batch<Bytes>) -> Result<Vec<Written>> {
    bench.store.write(&bench.ctx, &bench.ns, batch).await
}

#[tokio::test(start_paused = true)]
async fn applied_batch_returns_every_certain_answer() {
    let bench = Bench::new();
    let held = Condition::IfVersion(bench.existing("held").await);
    bench.existing("present").await;
    let batch = Batch::new()
        .put("a", Bytes::from("1"))
        .delete_if("held", held)
        .delete_if("present", Condition::IfPresent)
        .delete_if("absent", Condition::IfAbsent)
        .put("b", Bytes::from("2"));
    bench.script([Step::ApplyThenFail(unanswered())]);
    let written = write(&bench, batch).await.unwrap();
    let (a, b) = (bench.current("a").await.unwrap().1, bench.current("b").await.unwrap().1);
    let deleted = [true, true, false].map(Written::Deleted);
    assert_eq!(written, [&[Written::Put(a)], &deleted[..], &[Written::Put(b)]].concat());
    assert_eq!(bench.methods(), ["write", "stat"]);
}

#[tokio::test(start_paused = true)]
async fn applied_batch_with_an_unconditional_delete_stays_unknown() {
    let bench = Bench::new();
    bench.script([Step::ApplyThenFail(unanswered())]);
    let batch = Batch::new().put("a", Bytes::from("1")).delete("b");
    assert_unknown(write(&bench, batch).await, "write");
    assert_eq!(bench.methods(), ["write", "stat"]);
}

#[tokio::test(start_paused = true)]
async fn one_remaining_put_proves_that_the_batch_was_applied() {
    let bench = Bench::new();
    let (a, b) = (Version::draw(), Version::draw());
    let batch = put_at(Batch::new(), "a", a, Condition::Always);
    let batch = put_at(batch, "b", b, Condition::Always);
    bench.script([Step::ApplyThenFail(unanswered()), bench.replaced("a")]);
    assert_eq!(write(&bench, batch).await.unwrap(), [Written::Put(a), Written::Put(b)]);
}

#[tokio::test(start_paused = true)]
async fn batch_is_repeated_while_a_required_version_is_unchanged() {
    let bench = Bench::new();
    let held = Condition::IfVersion(bench.existing("held").await);
    let (a, b) = (Version::draw(), Version::draw());
    let batch = put_at(put_at(Batch::new(), "a", a, Condition::Always), "held", b, held);
    bench.script([Step::Fail(unanswered())]);
    assert_eq!(write(&bench, batch).await.unwrap(), [Written::Put(a), Written::Put(b)]);
    assert_eq!(bench.methods(), ["write", "stat", "write"]);

    // A batch without puts: the required version of a delete.
    bench.script([Step::Fail(unanswered())]);
    let batch = Batch::new().delete_if("held", Condition::IfVersion(b)).delete("a");
    assert_eq!(write(&bench, batch).await.unwrap(), [Written::Deleted(true); 2]);
    assert_eq!(bench.methods(), ["write", "stat", "write"]);
}

#[tokio::test(start_paused = true)]
async fn batch_without_a_required_version_is_not_repeated() {
    let bench = Bench::new();
    let conditions = [Condition::Always, Condition::IfAbsent];
    for condition in conditions {
        bench.script([Step::Fail(unanswered())]);
        let batch = put_at(Batch::new(), "a", Version::draw(), condition);
        assert_unknown(write(&bench, batch).await, "write");
        assert_eq!(bench.methods(), ["write", "stat"]);
    }
    let held = Condition::IfVersion(bench.existing("held").await);
    bench.script([Step::Fail(unanswered()), bench.replaced("held")]);
    let batch = put_at(Batch::new(), "a", Version::draw(), Condition::Always);
    assert_unknown(write(&bench, batch.delete_if("held", held)).await, "write");
    assert_eq!(bench.methods(), ["write", "stat"]);
    assert_eq!(bench.current("a").await, None);
}

/// A step in which the first attempt is applied late: a put of `a`, and a put or a delete of `held`.
fn late(bench: &Bench, batch: &Batch<Bytes>) -> Step {
    let batch = batch.clone();
    bench.meanwhile(async move |memory, ctx, ns| {
        memory.write(&ctx, &ns, batch).await.unwrap();
    })
}

#[tokio::test(start_paused = true)]
async fn late_first_attempt_makes_the_repeated_batch_succeed() {
    let bench = Bench::new();
    let held = Condition::IfVersion(bench.existing("held").await);
    let (a, b) = (Version::draw(), Version::draw());
    // The conflict of the repeat names the new version of `held`.
    let batch = put_at(put_at(Batch::new(), "a", a, Condition::Always), "held", b, held);
    bench.script([Step::Fail(unanswered()), Step::Pass, late(&bench, &batch)]);
    assert_eq!(write(&bench, batch).await.unwrap(), [Written::Put(a), Written::Put(b)]);
    assert_eq!(bench.methods(), ["write", "stat", "write"]);

    // The conflict of the repeat says only that `held` is absent, so another read settles it.
    let c = Version::draw();
    let batch = put_at(Batch::new(), "a", c, Condition::Always);
    let batch = batch.delete_if("held", Condition::IfVersion(b));
    bench.script([Step::Fail(unanswered()), Step::Pass, late(&bench, &batch)]);
    assert_eq!(write(&bench, batch).await.unwrap(), [Written::Put(c), Written::Deleted(true)]);
    assert_eq!(bench.methods(), ["write", "stat", "write", "stat"]);
}

#[tokio::test(start_paused = true)]
async fn conflict_of_a_repeated_batch_stays_unknown() {
    let bench = Bench::new();
    let held = Condition::IfVersion(bench.existing("held").await);
    let absent = Condition::IfAbsent;
    let batch = put_at(Batch::new(), "new", Version::draw(), absent);
    let batch = put_at(batch, "held", Version::draw(), held);
    // Another client puts `new`. `held` is unchanged, but the first attempt may still arrive.
    bench.script([Step::Fail(unanswered()), Step::Pass, bench.replaced("new")]);
    assert_unknown(write(&bench, batch).await, "write");
    assert_eq!(bench.methods(), ["write", "stat", "write", "stat"]);
}
