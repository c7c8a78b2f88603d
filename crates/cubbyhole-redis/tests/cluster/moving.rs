//! Slots that move to and fro while everything in them is in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cubbyhole_core::{
    Batch, CancellationToken, Condition, EntryStore, ErrorKind, ExecutionContext, Namespace,
    NamespacePrefix, PutOptions, Result, ScanOptions, Store,
};
use cubbyhole_redis::RedisStore;
use cubbyhole_testkit::RedisCluster;
use cubbyhole_testkit::helpers::{bytes, check_outage, ctx, ns, pause, timed, until};
use tokio::task::{JoinSet, block_in_place};

use crate::clusters::{cli, config, end_move, open, owner, unharmed};
use crate::shared::{SLACK, names, persist, slot};

/// How long a call without a deadline waits for a move, at most.
const RETRY: Duration = Duration::from_secs(2);
const STABLE_KEYS: usize = 30;

/// What is going on in the slot, and what is known of it.
struct Traffic {
    store: RedisStore,
    stop: CancellationToken,
    /// All in one slot.
    names: Vec<Namespace>,
    rounds: [AtomicUsize; 8],
    unavailable: AtomicUsize,
    claims: Mutex<BTreeMap<usize, usize>>,
    produced: Mutex<BTreeSet<String>>,
    taken: Mutex<BTreeSet<String>>,
    unknown: Mutex<BTreeSet<String>>,
}

impl Traffic {
    /// The answer, or nothing in an outage that is one by name and of no more than its time.
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

    /// An entry that is there throughout, and one that never is. It does not wait for the move.
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
        let read = self.store.get_many(&context, &self.names[1], &["left", "right"]);
        let Some(found) = self.answer(read).await else { return };
        let mut values = found.into_iter().map(|entry| entry.unwrap().unwrap().value);
        assert_eq!(values.next(), values.next(), "half a batch");
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
    }

    /// What one has, no other gets.
    async fn claim(&self, role: usize, round: usize) {
        let (context, name) = (ctx(), &self.names[2]);
        let (key, value) = (round.to_string(), bytes(&role.to_string()));
        let options = PutOptions::new();
        let claim = self.store.put_entry(&context, name, &key, value, options, Condition::IfAbsent);
        match self.call(claim).await {
            Some(Ok(_)) => {
                let other = self.claims.lock().unwrap().insert(round, role);
                assert_eq!(other, None, "{round} was given away twice");
            }
            Some(Err(error)) => assert!(error.current_version().is_some(), "{error:?}"),
            None => {}
        }
    }

    async fn produce(&self, round: usize) {
        let job = format!("job {round}");
        // Before it can be taken.
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
                    let taken = taken.unwrap().expect("there is no other who takes");
                    assert_eq!(taken.value, bytes(&item.key));
                    assert!(self.taken.lock().unwrap().insert(item.key), "taken twice");
                }
                // It may be gone.
                None => drop(self.unknown.lock().unwrap().insert(item.key)),
            }
        }
    }

    fn all_rounds(&self) -> Vec<usize> {
        self.rounds.iter().map(|count| count.load(SeqCst)).collect()
    }

    /// Waits until everybody has done more.
    async fn until_more(&self, callers: &mut JoinSet<()>, more: usize) {
        let before = self.all_rounds();
        let ctx = ctx();
        while self.all_rounds().iter().zip(&before).any(|(now, before)| *now < before + more) {
            if let Some(ended) = callers.try_join_next() {
                ended.unwrap();
            }
            let waited = ctx.sleep(Duration::from_millis(2)).await;
            assert!(waited.is_ok(), "somebody does not go on: {:?}", self.all_rounds());
        }
    }

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
            assert!(left.contains(job) != taken.contains(job), "{job} is not in one place");
        }
        for job in left.iter().chain(taken.iter()) {
            assert!(produced.contains(job) || unknown.contains(job), "{job} is from nowhere");
        }
    }
}

/// Moves a slot to another master, with work in between.
async fn move_slowly(cluster: &RedisCluster, slot: u16, step: usize, between: impl AsyncFn()) {
    let target = (block_in_place(|| cluster.owner_of(slot)).unwrap() + 1) % 3;
    block_in_place(|| cluster.begin_move(slot, target)).unwrap();
    loop {
        between().await;
        if block_in_place(|| cluster.move_keys(slot, step)).unwrap() == 0 {
            break;
        }
    }
    end_move(cluster, slot);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slot_in_use_moves_to_and_fro_and_nobody_sees_half_of_anything() {
    let cluster = unharmed().await;
    let store = open(config(cluster.url())).await;
    let moving = slot("busy:0");
    let names = names("busy:", 4, |name| slot(name) == moving);
    let index = cli(&cluster.nodes()[0], &["CLUSTER", "KEYSLOT", &format!("{{{}}}", names[3])]);
    assert_eq!(index, moving.to_string());
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
    // Nobody had to give up so far: no move took that long.
    let before = traffic.unavailable.load(SeqCst);
    let target = (owner(cluster, traffic.names[0].as_str()) + 1) % 3;
    block_in_place(|| cluster.begin_move(moving, target)).unwrap();
    assert_eq!(block_in_place(|| cluster.move_keys(moving, 20)).unwrap(), 20);
    let given_up = || traffic.unavailable.load(SeqCst);
    until("calls that give up", async || given_up() >= before + 6 || callers.len() < 8).await;
    while block_in_place(|| cluster.move_keys(moving, 100)).unwrap() > 0 {}
    end_move(cluster, moving);
    traffic.until_more(&mut callers, 10).await;
    traffic.stop.cancel();
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    traffic.check().await;
}

/// Whether a name that is live is listed, by each of two ways.
async fn check_listed(store: &RedisStore, name: &Namespace) {
    let (ctx, prefix) = (ctx(), NamespacePrefix::from(name.tenant()));
    let all = persist(|| store.list_namespaces(&ctx, &prefix)).await;
    assert!(all.contains(name), "{name} is live and not listed");
    let page = persist(|| store.scan_namespaces(&ctx, &prefix, None, 1000)).await;
    assert!(page.items.contains(name), "{name} is live and not on the page");
    let tenants = persist(|| store.scan_tenants(&ctx, None, 1000)).await;
    assert!(tenants.items.contains(&name.tenant()), "the tenant of {name} is not listed");
}

/// How many rounds each caller has made.
type Rounds = Arc<[AtomicUsize; 6]>;

/// Creates, empties and sweeps names of a tenant, and looks whether what is live is listed.
async fn churn(store: RedisStore, caller: usize, rounds: Rounds, stop: CancellationToken) {
    let tenant = format!("index{}", caller / 2);
    let mut round = 0;
    while !stop.is_cancelled() {
        let ctx = ctx();
        // New at times, and at times what was there before.
        let name = ns(&format!("{tenant}:{caller}:{}", round % 5));
        persist(|| store.put(&ctx, &name, "k", bytes("v"))).await;
        check_listed(&store, &name).await;
        if round % 3 == caller % 3 {
            persist(|| store.evict_expired(&ctx)).await;
            check_listed(&store, &name).await;
        }
        persist(|| store.delete(&ctx, &name, "k")).await;
        round += 1;
        rounds[caller].store(round, SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_slots_of_the_indexes_move_while_names_come_and_go() {
    let cluster = unharmed().await;
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
        assert!(round < 100, "{rounds:?} rounds tell little");
        for tag in [r"\*", "index0", "index1"] {
            // One key at a time: the index, its fence, those of other tests.
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
    let index = |tag: &str| {
        let key = format!("{prefix}{{{tag}}}n");
        let members = cli(&cluster.nodes()[owner(cluster, tag)], &["ZRANGE", &key, "0", "-1"]);
        let names = members.lines().filter(|member| *member != "\0");
        names.map(|member| member.split('\0').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(index(r"\*"), ["index1"]);
    assert_eq!(index("index1"), ["index1:last"]);
    assert!(index("index0").is_empty() && index("index2").is_empty());
}
