//! Slots that move between masters while all their namespaces are in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cubbyhole_core::{
    Batch, CancellationToken, Condition, EntryStore, ErrorKind, ExecutionContext, GetOptions,
    Namespace, NamespacePrefix, PutOptions, RecursiveScanOptions, Result, ScanOptions, Store,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisCluster;
use cubbyhole_testkit::helpers::{bytes, check_outage, ctx, ns, pause, timed, until};
use tokio::task::JoinSet;

use crate::clusters::{
    begin_move, cli, config, end_move, finish_move, index_names, move_keys, open, shared_cluster,
};
use crate::helpers::{SLACK, names, retry, slot};

/// The longest wait of a call without a deadline for the end of a move.
const RETRY: Duration = Duration::from_secs(2);
const STABLE_KEYS: usize = 30;

/// Callers in one slot, and the outcomes of their calls.
struct Traffic {
    store: RedisStore,
    stop: CancellationToken,
    /// All in one slot: stable keys, a batch, claims, and jobs.
    names: Vec<Namespace>,
    /// The rounds of each caller.
    rounds: [AtomicUsize; 8],
    unavailable: AtomicUsize,
    /// The caller that made each claim.
    claims: Mutex<BTreeMap<usize, usize>>,
    produced: Mutex<BTreeSet<String>>,
    taken: Mutex<BTreeSet<String>>,
    /// Jobs whose put or take has an unknown outcome.
    unknown: Mutex<BTreeSet<String>>,
}

impl Traffic {
    /// Returns the answer of a call, or `None` if it is unavailable. Asserts that an unavailable
    /// call ended in time.
    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Option<Result<T>> {
        let (answer, took) = timed(call).await;
        match &answer {
            Err(error) if error.kind() != ErrorKind::Conflict => {
                check_outage(error);
                assert!(took < RETRY + SLACK, "{took:?}: {error:?}");
                self.unavailable.fetch_add(1, SeqCst);
                None
            }
            _ => Some(answer),
        }
    }

    async fn answer<T>(&self, call: impl Future<Output = Result<T>>) -> Option<T> {
        self.call(call).await.map(|answer| answer.unwrap())
    }

    async fn run(&self, role: usize) {
        for round in 0.. {
            if self.stop.is_cancelled() {
                return;
            }
            match role {
                0 => self.get(round).await,
                1 => self.write_a_batch(round).await,
                2 => self.read_a_batch().await,
                3 => self.read_a_page(round).await,
                4 | 5 => self.claim(role, round).await,
                6 => self.produce(round).await,
                _ => self.consume().await,
            }
            self.rounds[role].fetch_add(1, SeqCst);
            pause(1).await;
        }
    }

    /// Gets a key that always exists and one that never exists. A get never waits for the move.
    async fn get(&self, round: usize) {
        let key = format!("stable {}", round % STABLE_KEYS);
        let context = ExecutionContext::new();
        let found = self.store.get(&context, &self.names[0], &key).await.unwrap();
        assert_eq!(found, Some(bytes(&key)));
        assert_eq!(self.store.get(&context, &self.names[0], "never").await.unwrap(), None);
    }

    async fn write_a_batch(&self, round: usize) {
        let value = bytes(&round.to_string());
        let batch = Batch::new().put("left", value.clone()).put("right", value);
        let _ = self.call(self.store.write(&ctx(), &self.names[1], batch)).await;
    }

    async fn read_a_batch(&self) {
        let context = ctx();
        let read =
            self.store.get_many(&context, &self.names[1], &["left", "right"], GetOptions::new());
        let Some(found) = self.answer(read).await else { return };
        let mut values = found.into_iter().map(|entry| entry.unwrap().unwrap().value);
        assert_eq!(values.next(), values.next(), "a partial batch was read");
    }

    async fn read_a_page(&self, round: usize) {
        let (context, name) = (ctx(), &self.names[0]);
        let keys: BTreeSet<String> = if round.is_multiple_of(2) {
            let options = ScanOptions::new().with_prefix("stable");
            let Some(page) = self.answer(self.store.scan(&context, name, options)).await else {
                return;
            };
            assert!(page.items.iter().all(|item| item.value.as_ref().is_some_and(Result::is_ok)));
            page.items.into_iter().map(|item| item.key).collect()
        } else {
            let Some(keys) = self.answer(self.store.list(&context, name, Some("stable"))).await
            else {
                return;
            };
            keys.into_iter().collect()
        };
        assert_eq!(keys.len(), STABLE_KEYS, "{keys:?}");
        let prefix = NamespacePrefix::from(ns("busy"));
        let listing = self.store.list_namespaces(&context, &prefix);
        let Some(listed) = self.answer(listing).await else { return };
        for name in &self.names[..2] {
            assert!(listed.contains(name), "{name} is live and not listed");
        }
        // The batch is always there, and the recursive scan finds it in its place.
        let options = RecursiveScanOptions::new().with_limit(1000);
        let Some(page) = self.answer(self.store.scan_recursive(&context, &prefix, options)).await
        else {
            return;
        };
        let found: Vec<(&Namespace, &str)> =
            page.items.iter().map(|(name, item)| (name, item.key.as_str())).collect();
        assert!(found.is_sorted_by(|one, next| one < next), "{found:?}");
        for key in ["left", "right"] {
            assert!(found.contains(&(&self.names[1], key)) || page.next.is_some(), "{key}");
        }
    }

    /// Puts a key if it is absent. Asserts that no other caller has put it.
    async fn claim(&self, role: usize, round: usize) {
        let (context, name) = (ctx(), &self.names[2]);
        let (key, value) = (round.to_string(), bytes(&role.to_string()));
        let options = PutOptions::new();
        let claim = self.store.put_entry(&context, name, &key, value, options, Condition::IfAbsent);
        match self.call(claim).await {
            Some(Ok(_)) => {
                let other = self.claims.lock().unwrap().insert(round, role);
                assert_eq!(other, None, "{round} was claimed twice");
            }
            Some(Err(error)) => assert!(error.current_version().is_some(), "{error:?}"),
            None => {}
        }
    }

    async fn produce(&self, round: usize) {
        let job = format!("job {round}");
        // The consumer may take the job before the put returns.
        self.unknown.lock().unwrap().insert(job.clone());
        let (context, name) = (ctx(), &self.names[3]);
        match self.call(self.store.put(&context, name, &job, bytes(&job))).await {
            Some(answer) => {
                answer.unwrap();
                self.unknown.lock().unwrap().remove(&job);
                self.produced.lock().unwrap().insert(job);
            }
            None => pause(5).await,
        }
    }

    async fn consume(&self) {
        let (context, name) = (ctx(), &self.names[3]);
        let options = ScanOptions::new().with_limit(3).keys_only();
        let Some(page) = self.answer(self.store.scan(&context, name, options)).await else {
            return;
        };
        for item in page.items {
            match self.call(self.store.take(&context, name, &item.key)).await {
                Some(taken) => {
                    let taken = taken.unwrap().expect("no other caller takes jobs");
                    assert_eq!(taken.value, bytes(&item.key));
                    assert!(self.taken.lock().unwrap().insert(item.key), "taken twice");
                }
                // The take may have been applied.
                None => drop(self.unknown.lock().unwrap().insert(item.key)),
            }
        }
    }

    fn all_rounds(&self) -> Vec<usize> {
        self.rounds.iter().map(|count| count.load(SeqCst)).collect()
    }

    /// Waits until every caller has made `more` rounds.
    async fn until_more(&self, callers: &mut JoinSet<()>, more: usize) {
        let before = self.all_rounds();
        let ctx = ctx();
        while self.all_rounds().iter().zip(&before).any(|(now, before)| *now < before + more) {
            if let Some(ended) = callers.try_join_next() {
                ended.unwrap();
            }
            let waited = ctx.sleep(Duration::from_millis(2)).await;
            assert!(waited.is_ok(), "a caller makes no progress: {:?}", self.all_rounds());
        }
    }

    /// Asserts that the claims and jobs in the store agree with the outcomes of the calls.
    async fn check(&self) {
        let claimed = self.store.list(&ctx(), &self.names[2], None).await.unwrap();
        let claims = self.claims.lock().unwrap().clone();
        for (key, role) in claims {
            assert!(claimed.contains(&key.to_string()));
            let value = self.store.get(&ctx(), &self.names[2], &key.to_string()).await.unwrap();
            assert_eq!(value, Some(bytes(&role.to_string())), "{key}");
        }
        let left: BTreeSet<String> =
            self.store.list(&ctx(), &self.names[3], None).await.unwrap().into_iter().collect();
        let produced = self.produced.lock().unwrap();
        let (taken, unknown) = (self.taken.lock().unwrap(), self.unknown.lock().unwrap());
        for job in produced.iter().filter(|job| !unknown.contains(*job)) {
            assert!(left.contains(job) != taken.contains(job), "{job} is lost or duplicated");
        }
        for job in left.iter().chain(taken.iter()) {
            assert!(produced.contains(job) || unknown.contains(job), "{job} was never produced");
        }
    }
}

/// Moves a slot to the next master, `step` keys at a time, and awaits `between` before each step.
async fn move_slowly(cluster: &RedisCluster, slot: u16, step: usize, between: impl AsyncFn()) {
    begin_move(cluster, slot);
    loop {
        between().await;
        if move_keys(cluster, slot, step) == 0 {
            break;
        }
    }
    end_move(cluster, slot);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_stay_atomic_while_a_slot_in_use_moves() {
    let cluster = shared_cluster().await;
    let store = open(config(cluster.url())).await;
    let moving = slot("busy:0");
    let names = names("busy:", 4, |name| slot(name) == moving);
    let keyslot = cli(&cluster.nodes()[0], &["CLUSTER", "KEYSLOT", &format!("{{{}}}", names[3])]);
    assert_eq!(keyslot, moving.to_string());
    for number in 0..STABLE_KEYS {
        let key = format!("stable {number}");
        store.put(&ctx(), &names[0], &key, bytes(&key)).await.unwrap();
    }
    let batch = Batch::new().put("left", bytes("0")).put("right", bytes("0"));
    store.write(&ctx(), &names[1], batch).await.unwrap();
    let traffic = Arc::new(Traffic {
        store,
        stop: CancellationToken::new(),
        names,
        rounds: Default::default(),
        unavailable: AtomicUsize::new(0),
        claims: Mutex::default(),
        produced: Mutex::default(),
        taken: Mutex::default(),
        unknown: Mutex::default(),
    });
    let mut callers = JoinSet::new();
    for role in 0..traffic.rounds.len() {
        let traffic = Arc::clone(&traffic);
        callers.spawn(async move { traffic.run(role).await });
    }
    for _ in 0..6 {
        traffic.until_more(&mut callers, 5).await;
        let gets = || traffic.rounds[0].load(SeqCst);
        move_slowly(cluster, moving, 20, async || {
            let before = gets();
            until("gets during the move", async || {
                gets() > before + 2 || traffic.stop.is_cancelled() || callers.len() < 8
            })
            .await;
        })
        .await;
    }
    traffic.until_more(&mut callers, 5).await;
    // This move stops half-way until calls are unavailable.
    let before = traffic.unavailable.load(SeqCst);
    begin_move(cluster, moving);
    assert_eq!(move_keys(cluster, moving, 20), 20);
    let unavailable = || traffic.unavailable.load(SeqCst);
    until("unavailable calls", async || unavailable() >= before + 6 || callers.len() < 8).await;
    finish_move(cluster, moving);
    traffic.until_more(&mut callers, 10).await;
    traffic.stop.cancel();
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    traffic.check().await;
}

/// Asserts that a live namespace and its tenant are listed by every listing call.
async fn check_listed(store: &RedisStore, name: &Namespace) {
    let (ctx, prefix) = (ctx(), NamespacePrefix::from(name.tenant()));
    let all = retry(|| store.list_namespaces(&ctx, &prefix)).await;
    assert!(all.contains(name), "{name} is live and not listed");
    let page = retry(|| store.scan_namespaces(&ctx, &prefix, None, 1000)).await;
    assert!(page.items.contains(name), "{name} is live and not on the page");
    let tenants = retry(|| store.scan_tenants(&ctx, None, 1000)).await;
    assert!(tenants.items.contains(&name.tenant()), "the tenant of {name} is not listed");
}

/// The rounds of each caller.
type Rounds = Arc<[AtomicUsize; 6]>;

/// Creates, empties and sweeps namespaces of a tenant, and checks that live ones are listed.
async fn churn(store: RedisStore, caller: usize, rounds: Rounds, stop: CancellationToken) {
    let tenant = format!("index{}", caller / 2);
    let mut round = 0;
    while !stop.is_cancelled() {
        let ctx = ctx();
        // Names repeat, so a namespace may be new, empty, or swept.
        let name = ns(&format!("{tenant}:{caller}:{}", round % 5));
        retry(|| store.put(&ctx, &name, "k", bytes("v"))).await;
        check_listed(&store, &name).await;
        if round % 3 == caller % 3 {
            retry(|| store.evict_expired(&ctx)).await;
            check_listed(&store, &name).await;
        }
        retry(|| store.delete(&ctx, &name, "k")).await;
        round += 1;
        rounds[caller].store(round, SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn live_namespaces_stay_listed_while_index_slots_move() {
    let cluster = shared_cluster().await;
    let config = config(cluster.url());
    let prefix = config.prefix().to_owned();
    let store = open(config).await;
    let stop = CancellationToken::new();
    let rounds = Rounds::default();
    let mut callers = JoinSet::new();
    for caller in 0..6 {
        callers.spawn(churn(store.clone(), caller, Arc::clone(&rounds), stop.clone()));
    }
    for round in 0.. {
        if round >= 4 && rounds.iter().all(|rounds| rounds.load(SeqCst) > 4) {
            break;
        }
        assert!(round < 100, "too few rounds: {rounds:?}");
        for tag in [r"\*", "index0", "index1"] {
            // One key at a time: the index, its fence, and those of other tests.
            move_slowly(cluster, slot(tag), 1, async || pause(15 + 5 * (round % 4)).await).await;
            if let Some(ended) = callers.try_join_next() {
                panic!("{ended:?}");
            }
        }
    }
    stop.cancel();
    callers.join_all().await;
    store.put(&ctx(), &ns("index1:last"), "k", bytes("v")).await.unwrap();
    store.evict_expired(&ctx()).await.unwrap();
    let index = |tag: &str| index_names(cluster, &prefix, tag);
    assert_eq!(index(r"\*"), BTreeSet::from(["index1".to_owned()]));
    assert_eq!(index("index1"), BTreeSet::from(["index1:last".to_owned()]));
    assert!(index("index0").is_empty() && index("index2").is_empty());
}
