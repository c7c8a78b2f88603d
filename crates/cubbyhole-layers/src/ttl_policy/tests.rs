//! Tests of `TtlPolicy`: every expiry, rule and call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cubbyhole_core::{Clock, ErrorKind, ManualClock, Timestamp};
use cubbyhole_memory::InMemoryStore;

use super::*;

const DEFAULT: Duration = Duration::from_secs(60);
const MAX: Duration = Duration::from_secs(600);
const MILLI: Duration = Duration::from_millis(1);

type Memory = InMemoryStore<u32>;

/// A store that counts the calls of `current_time`.
#[derive(Clone)]
struct Recording {
    inner: Memory,
    times: Arc<Mutex<usize>>,
}

#[async_trait]
impl Store<u32> for Recording {
    delegate!(u32, |layer| layer.inner =>
        put_with_options, get, delete, list, put, list_namespaces, evict_expired
    );
}

#[async_trait]
impl EntryStore<u32> for Recording {
    async fn current_time(&self, ctx: &ExecutionContext, ns: &Namespace) -> Result<Timestamp> {
        *self.times.lock().unwrap() += 1;
        self.inner.current_time(ctx, ns).await
    }

    delegate!(u32, |layer| layer.inner =>
        get_entry, get_many, stat, put_entry, delete_entry, write, scan, scan_recursive,
        scan_namespaces, scan_tenants, touch, take, delete_prefix, erase, usage, max_value_bytes
    );
}

struct World {
    store: TtlPolicy<Recording>,
    clock: ManualClock,
    ctx: ExecutionContext,
    ns: Namespace,
}

/// A call that sets an expiry.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Call {
    Put,
    PutEntry,
    Write,
    Touch,
}

const CALLS: [Call; 4] = [Call::Put, Call::PutEntry, Call::Write, Call::Touch];

impl World {
    fn new(rule: TtlRule) -> Self {
        let clock = ManualClock::default();
        let inner = InMemoryStore::builder().with_clock(clock.clone()).build();
        let inner = Recording { inner, times: Arc::default() };
        let store = TtlPolicy::new(inner, rule).unwrap();
        let ns = Namespace::parse("acme:a").unwrap();
        Self { store, clock, ctx: ExecutionContext::new(), ns }
    }

    /// Sets the expiry of `k`, and returns the time until it expires and the idle TTL.
    async fn set(
        &self,
        call: Call,
        expiry: Expiry,
    ) -> Result<(Option<Duration>, Option<Duration>)> {
        let Self { store, ctx, ns, .. } = self;
        let options = PutOptions::new().with_expiry(expiry);
        match call {
            Call::Put => store.put_with_options(ctx, ns, "k", 1, options).await?,
            Call::PutEntry => {
                store.put_entry(ctx, ns, "k", 1, options, Condition::Always).await?;
            }
            Call::Write => {
                let batch = Batch::new().put_with("k", 1, options, Condition::Always).delete("x");
                store.write(ctx, ns, batch).await?;
            }
            Call::Touch => {
                store.inner().put(ctx, ns, "k", 1).await?;
                assert!(store.touch(ctx, ns, "k", expiry, Condition::Always).await?);
            }
        }
        Ok(self.left(ns).await)
    }

    async fn left(&self, ns: &Namespace) -> (Option<Duration>, Option<Duration>) {
        let stat = self.store.stat(&self.ctx, ns, &["k"]).await.unwrap()[0];
        let meta = stat.expect("the entry exists").meta;
        let left = meta.expires_at.map(|at| at.saturating_since(self.clock.now()));
        (left, meta.idle_ttl)
    }

    async fn exists(&self) -> bool {
        self.store.get(&self.ctx, &self.ns, "k").await.unwrap().is_some()
    }

    fn at(&self, left: Duration) -> Timestamp {
        self.clock.now().checked_add(left).unwrap()
    }

    fn times(&self) -> usize {
        *self.store.inner().times.lock().unwrap()
    }
}

/// What becomes of an expiry: its time left and its idle TTL. `None` if it is refused.
type Outcome = Option<(Option<Duration>, Option<Duration>)>;

async fn check(rule: TtlRule, expiry: impl Fn(&World) -> Expiry, expected: Outcome) {
    for call in CALLS {
        let world = World::new(rule);
        let expiry = expiry(&world);
        let found = world.set(call, expiry).await;
        if let Err(error) = &found {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert!(!error.may_have_been_applied());
            let operation = match call {
                Call::Put => "put",
                Call::PutEntry => "put_entry",
                Call::Write => "write",
                Call::Touch => "touch",
            };
            assert_eq!(error.operation(), Some(operation));
            assert!(error.message().contains("600s"), "{error}");
            assert_eq!(world.exists().await, call == Call::Touch);
        }
        assert_eq!(found.ok(), expected, "{call:?} with {expiry:?}");
    }
}

fn both() -> [TtlRule; 2] {
    let rule = TtlRule::new().with_max(MAX);
    [rule, rule.with_default(DEFAULT)].map(|rule| rule.with_too_long(TooLong::Refuse))
}

#[tokio::test]
async fn rule_without_limits_keeps_every_expiry() {
    let rule = TtlRule::new();
    check(rule, |_| Expiry::Never, Some((None, None))).await;
    check(rule, |_| Expiry::After(MAX), Some((Some(MAX), None))).await;
    check(rule, |_| Expiry::Idle(MAX), Some((Some(MAX), Some(MAX)))).await;
    check(rule, |world| Expiry::At(world.at(MAX)), Some((Some(MAX), None))).await;
    let expiry = |world: &World| Expiry::IdleUntil { ttl: MAX, expires_at: world.at(DEFAULT) };
    check(rule, expiry, Some((Some(DEFAULT), Some(MAX)))).await;
}

#[tokio::test]
async fn never_gets_the_default() {
    let default = TtlRule::new().with_default(DEFAULT);
    for too_long in [TooLong::Clamp, TooLong::Refuse] {
        for rule in [default, default.with_max(MAX), default.with_max(DEFAULT)] {
            let rule = rule.with_too_long(too_long);
            check(rule, |_| Expiry::Never, Some((Some(DEFAULT), None))).await;
        }
    }
    // A default alone shortens nothing.
    check(default, |_| Expiry::After(MAX), Some((Some(MAX), None))).await;
    check(default, |world| Expiry::At(world.at(MAX)), Some((Some(MAX), None))).await;
}

#[tokio::test]
async fn never_is_too_long_for_a_maximum_without_default() {
    let rule = TtlRule::new().with_max(MAX);
    check(rule, |_| Expiry::Never, Some((Some(MAX), None))).await;
    check(rule.with_too_long(TooLong::Refuse), |_| Expiry::Never, None).await;
}

#[tokio::test]
async fn ttl_up_to_the_maximum_is_kept() {
    let [refuse, with_default] = both();
    for rule in [refuse, with_default, refuse.with_too_long(TooLong::Clamp)] {
        for ttl in [MILLI, MAX - MILLI, MAX] {
            check(rule, |_| Expiry::After(ttl), Some((Some(ttl), None))).await;
            check(rule, |_| Expiry::Idle(ttl), Some((Some(ttl), Some(ttl)))).await;
            check(rule, |world| Expiry::At(world.at(ttl)), Some((Some(ttl), None))).await;
            let expiry = |world: &World| Expiry::IdleUntil { ttl: MAX, expires_at: world.at(ttl) };
            check(rule, expiry, Some((Some(ttl), Some(MAX)))).await;
        }
    }
}

#[tokio::test]
async fn ttl_above_the_maximum_is_clamped() {
    let rule = TtlRule::new().with_max(MAX);
    for rule in [rule, rule.with_default(DEFAULT)] {
        for ttl in [MAX + MILLI, MAX * 1000] {
            check(rule, |_| Expiry::After(ttl), Some((Some(MAX), None))).await;
            check(rule, |_| Expiry::Idle(ttl), Some((Some(MAX), Some(MAX)))).await;
            check(rule, |world| Expiry::At(world.at(ttl)), Some((Some(MAX), None))).await;
            let idle = |world: &World| Expiry::IdleUntil { ttl, expires_at: world.at(MILLI) };
            check(rule, idle, Some((Some(MILLI), Some(MAX)))).await;
            let until = |world: &World| Expiry::IdleUntil { ttl: MAX, expires_at: world.at(ttl) };
            check(rule, until, Some((Some(MAX), Some(MAX)))).await;
        }
        check(rule, |_| Expiry::At(Timestamp::MAX), Some((Some(MAX), None))).await;
    }
}

#[tokio::test]
async fn ttl_above_the_maximum_is_refused() {
    for rule in both() {
        for ttl in [MAX + Duration::from_nanos(1), MAX + MILLI, MAX * 1000] {
            check(rule, |_| Expiry::After(ttl), None).await;
            check(rule, |_| Expiry::Idle(ttl), None).await;
            check(rule, |world| Expiry::At(world.at(ttl)), None).await;
            let idle = |world: &World| Expiry::IdleUntil { ttl, expires_at: world.at(MILLI) };
            check(rule, idle, None).await;
            let until = |world: &World| Expiry::IdleUntil { ttl: MAX, expires_at: world.at(ttl) };
            check(rule, until, None).await;
        }
    }
}

#[tokio::test]
async fn refusal_names_the_ttl_rounded_to_milliseconds() {
    let world = World::new(both()[0]);
    let ttl = MAX + Duration::from_nanos(1);
    let error = world.set(Call::Put, Expiry::After(ttl)).await.unwrap_err();
    assert!(error.message().contains("the TTL of 600.001s is longer"), "{error}");
    let instant = Expiry::At(world.at(MAX + MILLI));
    let error = world.set(Call::Put, instant).await.unwrap_err();
    assert!(error.message().contains("would expire in 600.001s"), "{error}");
}

#[tokio::test]
async fn invalid_ttls_and_past_instants_reach_the_store() {
    for rule in [TtlRule::new().with_max(MAX), both()[1]] {
        for call in CALLS {
            let world = World::new(rule);
            for expiry in [Expiry::After(Duration::ZERO), Expiry::Idle(Duration::ZERO)] {
                let error = world.set(call, expiry).await.unwrap_err();
                assert!(error.message().contains("more than zero"), "{error}");
            }
            for expiry in [Expiry::After(Duration::MAX), Expiry::Idle(Duration::MAX)] {
                let error = world.set(call, expiry).await.unwrap_err();
                assert!(error.message().contains("year 9999"), "{error}");
            }
        }
        let world = World::new(rule);
        let (ctx, ns) = (&world.ctx, &world.ns);
        let past = PutOptions::new().with_expires_at(Timestamp::EPOCH);
        world.store.put_with_options(ctx, ns, "k", 1, past).await.unwrap();
        assert!(!world.exists().await);
    }
}

#[tokio::test]
async fn put_without_options_gets_the_default() {
    let world = World::new(TtlRule::new().with_default(DEFAULT));
    world.store.put(&world.ctx, &world.ns, "k", 1).await.unwrap();
    assert_eq!(world.left(&world.ns).await, (Some(DEFAULT), None));
    world.clock.advance(DEFAULT - MILLI);
    assert!(world.exists().await);
    world.clock.advance(MILLI);
    assert!(!world.exists().await);
}

#[tokio::test]
async fn put_without_options_is_refused_without_a_default() {
    let world = World::new(both()[0]);
    let error = world.store.put(&world.ctx, &world.ns, "k", 1).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::InvalidArgument, Some("put")));
    assert!(!world.exists().await);
}

#[tokio::test]
async fn extending_reads_obey_the_maximum() {
    let ttls = [(MAX, MAX), (MAX + MILLI, MAX), (MAX * 1000, MAX), (DEFAULT, DEFAULT)];
    for (ttl, expected) in ttls {
        for many in [false, true] {
            let world = World::new(TtlRule::new().with_max(MAX));
            world.set(Call::Put, Expiry::After(MILLI)).await.unwrap();
            extend(&world, many, ttl).await.unwrap();
            assert_eq!(world.left(&world.ns).await.0, Some(expected));

            let world = World::new(both()[0]);
            world.set(Call::Put, Expiry::After(MILLI)).await.unwrap();
            let extended = extend(&world, many, ttl).await;
            if ttl <= MAX {
                extended.unwrap();
                continue;
            }
            let error = extended.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            let operation = if many { "get_many" } else { "get_entry" };
            assert_eq!(error.operation(), Some(operation));
            assert_eq!(world.left(&world.ns).await.0, Some(MILLI));
        }
    }
}

async fn extend(world: &World, many: bool, ttl: Duration) -> Result<()> {
    let World { store, ctx, ns, .. } = world;
    let options = GetOptions::new().with_extended_ttl(ttl);
    if many {
        store.get_many(ctx, ns, &["k"], options).await.map(drop)
    } else {
        store.get_entry(ctx, ns, "k", options).await.map(drop)
    }
}

#[tokio::test]
async fn clamped_read_still_refreshes() {
    let world = World::new(TtlRule::new().with_max(MAX));
    world.set(Call::Put, Expiry::Idle(MAX)).await.unwrap();
    world.clock.advance(MAX / 2);
    let options = GetOptions::new().refreshing().fresh();
    let kept = world.store.read(&world.ctx, "get_entry", &world.ns, options).await.unwrap();
    assert_eq!(kept, options);
    let longer = options.with_extended_ttl(MAX * 2);
    let clamped = world.store.read(&world.ctx, "get_entry", &world.ns, longer).await.unwrap();
    assert_eq!(clamped, options.with_extended_ttl(MAX));
    world.store.get_entry(&world.ctx, &world.ns, "k", options).await.unwrap();
    assert_eq!(world.left(&world.ns).await, (Some(MAX), Some(MAX)));
}

#[tokio::test]
async fn backend_time_is_read_for_instants_under_a_maximum_only() {
    let rules = [TtlRule::new(), TtlRule::new().with_default(DEFAULT)];
    for (rule, limited) in [
        (rules[0], false),
        (rules[1], false),
        (rules[0].with_max(MAX), true),
        (rules[1].with_max(MAX), true),
    ] {
        for call in CALLS {
            let world = World::new(rule);
            for expiry in [Expiry::Never, Expiry::After(MAX), Expiry::Idle(MAX)] {
                world.set(call, expiry).await.unwrap();
            }
            assert_eq!(world.times(), 0);
            let instants = [
                Expiry::At(world.at(DEFAULT)),
                Expiry::IdleUntil { ttl: DEFAULT, expires_at: world.at(DEFAULT) },
            ];
            for expiry in instants {
                world.set(call, expiry).await.unwrap();
            }
            assert_eq!(world.times(), if limited { 2 } else { 0 });
        }
    }
}

#[tokio::test]
async fn batch_reads_the_time_once_and_limits_each_put() {
    let world = World::new(TtlRule::new().with_max(MAX).with_default(DEFAULT));
    let late = PutOptions::new().with_expires_at(world.at(MAX * 2));
    let put =
        |batch: Batch<u32>, key: &str, options| batch.put_with(key, 1, options, Condition::Always);
    let mut batch = Batch::new().put("never", 1).delete("gone");
    batch = put(batch, "late", late);
    batch = put(batch, "later", late);
    batch = put(batch, "long", PutOptions::new().with_ttl(MAX * 2));
    let written = world.store.write(&world.ctx, &world.ns, batch).await.unwrap();
    assert_eq!(written.len(), 5);
    assert_eq!(world.times(), 1);
    let keys = ["never", "late", "later", "long"];
    let stats = world.store.stat(&world.ctx, &world.ns, &keys).await.unwrap();
    let left = |stat: &Option<cubbyhole_core::EntryStat>| {
        stat.unwrap().meta.expires_at.unwrap().saturating_since(world.clock.now())
    };
    assert_eq!(stats.iter().map(left).collect::<Vec<_>>(), [DEFAULT, MAX, MAX, MAX]);
}

#[tokio::test]
async fn one_refused_put_refuses_the_batch() {
    let world = World::new(both()[1]);
    let long = PutOptions::new().with_ttl(MAX + MILLI);
    let batch = Batch::new().put("k", 1).put_with("long", 1, long, Condition::Always);
    let error = world.store.write(&world.ctx, &world.ns, batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(!world.exists().await);
}

#[tokio::test]
async fn options_other_than_the_expiry_are_kept() {
    let world = World::new(TtlRule::new().with_max(MAX));
    let version = Version::draw();
    let options = PutOptions::new().with_version(version);
    let (ctx, ns) = (&world.ctx, &world.ns);
    let written = world.store.put_entry(ctx, ns, "k", 1, options, Condition::IfAbsent).await;
    assert_eq!(written.unwrap(), version);
    let again = world.store.put_entry(ctx, ns, "k", 1, options, Condition::IfAbsent).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn longest_prefix_that_matches_whole_segments_applies() {
    let seconds = |seconds| TtlRule::new().with_default(Duration::from_secs(seconds));
    let rules =
        [("a", 1), ("ab", 2), ("a:b", 3), ("a:b:c", 4), (r"a\:b", 5), (r"x\\", 6), ("a:bc", 7)];
    let mut orders = vec![rules.to_vec(), rules.iter().rev().copied().collect()];
    orders[1].insert(0, ("a:b", 99));
    for order in orders {
        let mut world = World::new(seconds(100));
        for (prefix, ttl) in order {
            let prefix = NamespacePrefix::parse(prefix).unwrap();
            world.store = world.store.with_rule(prefix, seconds(ttl)).unwrap();
        }
        for (name, expected) in [
            ("a", 1),
            ("a:x", 1),
            ("ab", 2),
            ("ab:b", 2),
            ("abc", 100),
            ("a:b", 3),
            ("a:b:x", 3),
            ("a:bb", 1),
            ("a:bc", 7),
            ("a:b:c", 4),
            ("a:b:c:d", 4),
            ("a:b:cd", 3),
            (r"a:b\:c", 1),
            (r"a\:b", 5),
            (r"a\:b:c", 5),
            (r"a\:bc", 100),
            (r"x\\", 6),
            (r"x\\:y", 6),
            (r"x\\\:y", 100),
            ("other", 100),
        ] {
            let ns = Namespace::parse(name).unwrap();
            world.store.put(&world.ctx, &ns, "k", 1).await.unwrap();
            let left = world.left(&ns).await.0;
            assert_eq!(left, Some(Duration::from_secs(expected)), "{name}");
        }
    }
}

#[tokio::test]
async fn rules_are_not_merged() {
    let world = World::new(TtlRule::new().with_default(DEFAULT).with_max(MAX));
    let prefix = NamespacePrefix::from(&world.ns);
    let store = world.store.clone().with_rule(prefix, TtlRule::new()).unwrap();
    let world = World { store, ..world };
    assert_eq!(world.set(Call::Put, Expiry::Never).await.unwrap(), (None, None));
}

#[test]
fn check_names_the_field() {
    let day = Duration::from_secs(86_400);
    let rules = [
        (TtlRule::new().with_default(Duration::ZERO), "`default`"),
        (TtlRule::new().with_max(Duration::ZERO), "`max`"),
        (TtlRule::new().with_default(Duration::MAX), "`default`"),
        (TtlRule::new().with_max(Duration::MAX), "`max`"),
        (TtlRule::new().with_default(day + MILLI).with_max(day), "`default`"),
    ];
    let prefix = NamespacePrefix::parse("acme").unwrap();
    for (rule, field) in rules {
        let policy = TtlPolicy::new((), TtlRule::new()).unwrap();
        for error in [
            rule.check().unwrap_err(),
            TtlPolicy::new((), rule).unwrap_err(),
            policy.with_rule(prefix.clone(), rule).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.message().contains(field), "{error}");
        }
    }
    TtlRule::new().with_default(day).with_max(day).check().unwrap();
}

#[tokio::test]
async fn refused_calls_report_an_ended_context_first() {
    let world = World::new(both()[0]);
    world.ctx.cancel();
    let error = world.set(Call::Put, Expiry::Never).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}
