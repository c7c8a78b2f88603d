//! How long an entry is served.

use std::time::Duration;

use cubbyhole_core::{Clock, Error, ManualClock, Namespace, PutOptions, Store};

use crate::probe::{MAX_STALE, bytes, cached, cached_with, ctx, get, ns};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn expiry_follows_the_backend_with_the_client_an_hour_off() {
    for client_ahead in [true, false] {
        let (ahead, behind) = (ManualClock::default(), ManualClock::default());
        ahead.set(behind.now().checked_add(HOUR).unwrap());
        let (client, backend) = if client_ahead { (ahead, behind) } else { (behind, ahead) };
        let (layer, probe) = cached_with(client, backend, HOUR);
        let ttl = PutOptions::new().with_ttl(seconds(10));
        layer.put_with_options(&ctx(), &ns(), "k", bytes("v"), ttl).await.unwrap();
        assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("v")), false));

        // 10 s, less 1 ms for the resolution of the backend's time and 9 ms for its rate.
        probe.advance(Duration::from_millis(9_989));
        assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("v")), true));
        probe.advance(Duration::from_millis(1));
        assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("v")), false));
        probe.advance(Duration::from_millis(9));
        assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("v")), false));
        probe.advance(Duration::from_millis(1));
        assert_eq!(get(&layer, &probe, "k").await, (None, false));
    }
}

/// The backend's answer is two seconds old when it arrives.
#[tokio::test]
async fn slow_answer_about_the_time_does_not_extend_an_entry() {
    let (layer, probe) = cached_with(ManualClock::default(), ManualClock::default(), HOUR);
    probe.plan.lock().unwrap().time_latency = seconds(2);
    let ttl = PutOptions::new().with_ttl(seconds(10));
    layer.put_with_options(&ctx(), &ns(), "k", bytes("v"), ttl).await.unwrap();
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("v")), false));
    probe.advance(seconds(7));
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("v")), true));
    probe.advance(seconds(1));
    assert_eq!(get(&layer, &probe, "k").await, (None, false));
}

#[tokio::test]
async fn time_is_requested_once_a_minute_for_each_namespace() {
    let (layer, probe) = cached();
    let other = Namespace::parse("globex").unwrap();
    let ttl = PutOptions::new().with_ttl(HOUR);
    for key in ["a", "b", "c"] {
        for ns in [&ns(), &other] {
            layer.put_with_options(&ctx(), ns, key, bytes("v"), ttl).await.unwrap();
        }
    }
    layer.get(&ctx(), &ns(), "a").await.unwrap();
    layer.get(&ctx(), &ns(), "b").await.unwrap();
    assert_eq!(probe.time_requests(), 1);
    // Its server may have another clock.
    layer.get(&ctx(), &other, "a").await.unwrap();
    assert_eq!(probe.time_requests(), 2);
    probe.advance(MINUTE);
    layer.get(&ctx(), &ns(), "c").await.unwrap();
    assert_eq!(probe.time_requests(), 3);
    // Without an expiry the time is not needed.
    layer.put(&ctx(), &ns(), "d", bytes("v")).await.unwrap();
    probe.advance(MINUTE);
    layer.get(&ctx(), &ns(), "d").await.unwrap();
    assert_eq!(probe.time_requests(), 3);
}

/// A sample of the time that is almost a minute old is still a bound.
#[tokio::test]
async fn old_sample_of_the_time_does_not_extend_an_entry() {
    let (layer, probe) = cached_with(ManualClock::default(), ManualClock::default(), HOUR);
    let put = async |key, ttl| {
        let ttl = PutOptions::new().with_ttl(ttl);
        layer.put_with_options(&ctx(), &ns(), key, bytes("v"), ttl).await.unwrap();
    };
    put("first", HOUR).await;
    get(&layer, &probe, "first").await;
    probe.advance(seconds(59));
    put("k", seconds(10)).await;
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("v")), false));
    assert_eq!(probe.time_requests(), 1);
    probe.advance(seconds(9));
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("v")), true));
    probe.advance(seconds(1));
    assert_eq!(get(&layer, &probe, "k").await, (None, false));
}

#[tokio::test]
async fn entry_that_expires_is_not_cached_without_the_time() {
    let unknown = [
        (Error::unsupported("no clock"), 1),
        // The next read asks again.
        (Error::unavailable("no connection"), 3),
    ];
    for (error, requests) in unknown {
        let (layer, probe) = cached();
        probe.plan.lock().unwrap().time_error = Some(error);
        let ttl = PutOptions::new().with_ttl(HOUR);
        layer.put_with_options(&ctx(), &ns(), "ttl", bytes("v"), ttl).await.unwrap();
        layer.put(&ctx(), &ns(), "never", bytes("v")).await.unwrap();
        for _ in 0..3 {
            assert_eq!(get(&layer, &probe, "ttl").await, (Some(bytes("v")), false));
        }
        assert_eq!(probe.time_requests(), requests);
        get(&layer, &probe, "never").await;
        assert_eq!(get(&layer, &probe, "never").await, (Some(bytes("v")), true));
    }
}

#[tokio::test]
async fn write_below_the_layer_is_seen_after_max_stale() {
    let (layer, probe) = cached();
    let inner = &probe.store;
    inner.put(&ctx(), &ns(), "k", bytes("old")).await.unwrap();
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("old")), false));
    assert_eq!(get(&layer, &probe, "absent").await, (None, false));
    inner.put(&ctx(), &ns(), "k", bytes("new")).await.unwrap();
    inner.put(&ctx(), &ns(), "absent", bytes("new")).await.unwrap();

    probe.advance(MAX_STALE - Duration::from_millis(1));
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("old")), true));
    assert_eq!(get(&layer, &probe, "absent").await, (None, true));
    probe.advance(Duration::from_millis(1));
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("new")), false));
    assert_eq!(get(&layer, &probe, "absent").await, (Some(bytes("new")), false));
}

#[tokio::test]
async fn max_stale_counts_from_the_start_of_the_read() {
    let (layer, probe) = cached();
    probe.store.put(&ctx(), &ns(), "k", bytes("old")).await.unwrap();
    let mut stopped = probe.stop_after_read();
    let reader = layer.clone();
    let read = tokio::spawn(async move { reader.get(&ctx(), &ns(), "k").await });
    stopped.reached().await;
    probe.store.put(&ctx(), &ns(), "k", bytes("new")).await.unwrap();
    probe.advance(seconds(3));
    stopped.resume();
    assert_eq!(read.await.unwrap().unwrap(), Some(bytes("old")));
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("old")), true));
    probe.advance(seconds(2));
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("new")), false));
}

#[tokio::test]
async fn wall_clock_of_the_client_has_no_influence() {
    let (layer, probe) = cached();
    probe.store.put(&ctx(), &ns(), "k", bytes("v")).await.unwrap();
    get(&layer, &probe, "k").await;
    let client = &probe.clocks[1];
    client.set(client.now().checked_add(HOUR).unwrap());
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("v")), true));
    client.set_back(2 * HOUR);
    probe.advance(MAX_STALE);
    assert_eq!(get(&layer, &probe, "k").await, (Some(bytes("v")), false));
}
