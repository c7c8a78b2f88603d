//! The budget, the attempts, the pauses and the end of a context.

use std::time::Duration;

use cubbyhole_core::{
    Bytes, Condition, EntryStore, Error, ErrorKind, ExecutionContext, Store, Version,
};
use cubbyhole_layers::RetryOptions;
use tokio::time::Instant;

use crate::script::Step;
use crate::{Bench, KEY, assert_unknown, refused, second, unanswered};

#[tokio::test(start_paused = true)]
async fn outage_of_a_thousand_calls_costs_a_fifth_more() {
    for reserve in [0, 10, 100] {
        let bench = Bench::with(RetryOptions::new().with_reserve(reserve));
        let Bench { store, ctx, ns, .. } = &bench;
        for _ in 0..1_000 {
            // More steps than attempts: the rest is discarded after the outage.
            bench.script.then((0..10).map(|_| Step::Fail(refused())));
            store.get(ctx, ns, KEY).await.unwrap_err();
            bench.script.discard_steps();
        }
        let calls = bench.methods().len();
        let most = 1_200 + usize::try_from(reserve).unwrap();
        // With an empty reserve the bucket holds nothing, so no retry is possible at all.
        let least = if reserve == 0 { 1_000 } else { 1_190 };
        assert!((least..=most).contains(&calls), "{calls} calls with a reserve of {reserve}");
    }
}

#[tokio::test(start_paused = true)]
async fn settling_reads_count_as_retries() {
    let options = RetryOptions::new().with_budget(0.0).with_reserve(1);
    let bench = Bench::with(options);
    let held = Condition::IfVersion(bench.existing(KEY).await);
    bench.script([Step::Fail(unanswered())]);
    assert_unknown(bench.put_at(Version::draw(), held).await, "put_entry");
    assert_eq!(bench.methods(), ["put_entry", "stat"]);
    bench.script([Step::ApplyThenFail(unanswered())]);
    assert_unknown(bench.put_at(Version::draw(), held).await, "put_entry");
    assert_eq!(bench.methods(), ["put_entry"]);
}

#[tokio::test(start_paused = true)]
async fn clones_share_one_budget() {
    let options = RetryOptions::new().with_budget(0.0).with_reserve(1);
    let bench = Bench::with(options);
    let (clone, ctx, ns) = (bench.store.clone(), &bench.ctx, &bench.ns);
    bench.script([Step::Fail(refused())]);
    clone.get(ctx, ns, KEY).await.unwrap();
    bench.script([Step::Fail(refused())]);
    bench.store.get(ctx, ns, KEY).await.unwrap_err();
    assert_eq!(bench.methods(), ["get"; 3]);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_limited() {
    for attempts in [1, 2, 5] {
        let bench = Bench::with(RetryOptions::new().with_max_attempts(attempts));
        bench.script.then((0..attempts).map(|_| Step::Fail(refused())));
        bench.store.get(&bench.ctx, &bench.ns, KEY).await.unwrap_err();
        assert_eq!(bench.methods().len(), usize::try_from(attempts).unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_double_up_to_the_maximum() {
    let millis = Duration::from_millis;
    let options = RetryOptions::new().with_base_backoff(millis(10)).with_max_backoff(millis(40));
    let bench = Bench::with(options);
    let mut longest = Duration::ZERO;
    for _ in 0..50 {
        bench.script.then((0..10).map(|_| Step::Fail(refused())));
        let start = Instant::now();
        bench.store.get(&bench.ctx, &bench.ns, KEY).await.unwrap_err();
        longest = longest.max(start.elapsed());
        bench.script.discard_steps();
    }
    // 10 + 20 + 7 × 40 ms, and at most 1 ms for each timer.
    assert!(longest <= millis(10 + 20 + 7 * 40 + 9), "{longest:?}");
    // Without growth, 9 pauses take at most 99 ms.
    assert!(longest > millis(100), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn pause_is_as_long_as_the_server_asks() {
    let bench = Bench::new();
    let minute = Duration::from_secs(60);
    bench.script([Step::Fail(Error::rate_limited("slow down", Some(minute)))]);
    let start = Instant::now();
    bench.store.get(&bench.ctx, &bench.ns, KEY).await.unwrap();
    let pause = start.elapsed();
    assert!((minute..=minute + Duration::from_millis(11)).contains(&pause), "{pause:?}");
}

#[tokio::test(start_paused = true)]
async fn pause_past_the_deadline_returns_the_error_immediately() {
    let bench = Bench::new();
    let ctx = ExecutionContext::new().with_timeout(Duration::from_secs(3_600));
    let longer = Some(Duration::from_secs(3_601));
    bench.script([Step::Fail(Error::rate_limited("slow down", longer))]);
    let start = Instant::now();
    let error = bench.store.get(&ctx, &bench.ns, KEY).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::RateLimited, longer));
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(bench.methods(), ["get"]);
}

#[tokio::test(start_paused = true)]
async fn cancellation_ends_a_pause() {
    let bench = Bench::new();
    let Bench { store, ctx, ns, .. } = &bench;
    bench.script([Step::Fail(Error::rate_limited("slow down", Some(Duration::from_secs(3_600))))]);
    let start = Instant::now();
    let cancel = async {
        tokio::time::sleep_until(start + second()).await;
        ctx.cancel();
    };
    let (answer, ()) = tokio::join!(store.get(ctx, ns, KEY), cancel);
    assert_eq!(answer.unwrap_err().message(), "slow down");
    assert_eq!(start.elapsed(), second());
    assert_eq!(bench.methods(), ["get"]);
}

#[tokio::test(start_paused = true)]
async fn cancellation_during_the_pause_leaves_the_outcome_unknown() {
    // Long enough that the drawn pause has not ended when the test cancels.
    let long = Duration::from_secs(1_000_000_000);
    let options = RetryOptions::new().with_base_backoff(long).with_max_backoff(long);
    let bench = Bench::with(options);
    let ctx = &bench.ctx;
    bench.script([Step::ApplyThenFail(unanswered())]);
    let cancel = async {
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(1)).await;
        ctx.cancel();
    };
    let put = bench.put_at(Version::draw(), Condition::Always);
    let (answer, ()) = tokio::join!(put, cancel);
    assert_unknown(answer, "put_entry");
    assert_eq!(bench.methods(), ["put_entry"]);
}

#[test]
fn runtime_without_timers_gets_no_retries() {
    let bench = Bench::new();
    let bare = tokio::runtime::Builder::new_current_thread().build().unwrap();
    bare.block_on(async {
        bench.script([Step::Fail(refused())]);
        let error = bench.store.get(&bench.ctx, &bench.ns, KEY).await.unwrap_err();
        assert!(error.is_retryable());
        assert_eq!(bench.methods(), ["get"]);
        bench.script([Step::ApplyThenFail(unanswered())]);
        assert_unknown(bench.put_at(Version::draw(), Condition::Always).await, "put_entry");
        assert_eq!(bench.methods(), ["put_entry"]);
        bench.store.put(&bench.ctx, &bench.ns, KEY, Bytes::from("v")).await.unwrap();
        assert!(bench.store.take(&bench.ctx, &bench.ns, KEY).await.unwrap().is_some());
    });
}

#[test]
fn invalid_options_are_refused() {
    let new = RetryOptions::new;
    let invalid = [
        (new().with_budget(-0.1), "budget"),
        (new().with_budget(1.1), "budget"),
        (new().with_budget(f64::NAN), "budget"),
        (new().with_max_attempts(0), "max_attempts"),
        (new().with_base_backoff(Duration::ZERO), "base backoff"),
        (new().with_max_backoff(Duration::from_millis(9)), "base backoff"),
    ];
    for (options, name) in invalid {
        let error = options.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains(name), "{error}");
        assert!(cubbyhole_layers::Retry::new((), options).is_err());
    }
    for options in [new(), new().with_budget(0.0), new().with_budget(1.0)] {
        options.check().unwrap();
    }
}
