//! The session store through its traits, on every backend.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{
    Backend, Bytes, EntryStore, Expiry, GetOptions, InMemoryStore, ManualClock, Namespace, Store,
    Timestamp,
};
use cubbyhole_tower_sessions::CubbyholeStore;
use test_backends::{TestStore, ctx, on_every_backend, until};
use time::OffsetDateTime;
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::{Error, ExpiredDeletion};

on_every_backend! {
    session_is_loaded_as_it_was_saved,
    create_draws_a_new_id,
    sign_out_everywhere_ends_the_sessions_of_one_user,
    ended_session_is_not_saved_again,
    user_of_a_session_changes_only_with_a_new_id,
    session_without_its_user_leaves_the_namespace_of_the_user,
    expiry_date_is_the_expiry_of_both_entries,
    idle_ttl_is_stored_with_both_entries,
    sign_out_ends_sessions_that_are_saved_at_the_same_time,
    interrupted_calls_leave_no_session_that_can_be_loaded,
    session_under_another_rule_is_not_loaded,
    replica_without_a_rule_keeps_the_user_of_a_session,
    expired_sessions_are_deleted,
    invalid_users_are_refused_and_nothing_is_written,
    closed_store_is_an_error,
}

type Sessions = CubbyholeStore<Arc<dyn Backend>>;

fn ns() -> Namespace {
    Namespace::parse("acme:sessions").unwrap()
}

async fn sessions(backend: &TestStore) -> (Arc<dyn Backend>, Sessions) {
    let store = backend.open().await;
    let sessions = CubbyholeStore::new(store.clone(), ns()).with_user_key("user");
    // The default limit is for users. A busy machine must not fail a test.
    (store, sessions.with_timeout(Duration::from_secs(60)))
}

/// A new record that is valid for an hour.
fn record(data: &serde_json::Value) -> Record {
    let data = serde_json::from_value(data.clone()).unwrap();
    let expiry_date = OffsetDateTime::now_utc() + Duration::from_secs(3600);
    Record { id: Id::default(), data, expiry_date }
}

fn anonymous() -> Record {
    record(&serde_json::json!({ "cart": ["book", 1.5, null, -7, "ä\u{1F980}"] }))
}

fn of_user(user: &str) -> Record {
    record(&serde_json::json!({ "user": user, "cart": [] }))
}

async fn created(sessions: &Sessions, mut record: Record) -> Record {
    sessions.create(&mut record).await.unwrap();
    record
}

/// The number of entries of the tenant.
async fn entries(store: &Arc<dyn Backend>) -> u64 {
    store.usage(&ctx(), &"acme".parse().unwrap()).await.unwrap().entries
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, words: &str) {
    let text = match result.unwrap_err() {
        Error::Backend(text) => text,
        other => unreachable!("{other:?}"),
    };
    assert!(text.contains(words), "{text}");
}

async fn session_is_loaded_as_it_was_saved(backend: &TestStore) {
    let (store, sessions) = sessions(backend).await;
    for record in [anonymous(), of_user("7")] {
        let mut record = created(&sessions, record).await;
        assert_eq!(sessions.load(&record.id).await.unwrap(), Some(record.clone()));
        record.data.insert("more".to_owned(), serde_json::json!({ "a": [1, 2] }));
        record.expiry_date += Duration::from_nanos(1);
        sessions.save(&record).await.unwrap();
        assert_eq!(sessions.load(&record.id).await.unwrap(), Some(record.clone()));

        sessions.delete(&record.id).await.unwrap();
        assert_eq!(sessions.load(&record.id).await.unwrap(), None);
        // Deleting is idempotent.
        sessions.delete(&record.id).await.unwrap();
    }
    assert_eq!(sessions.load(&Id::default()).await.unwrap(), None);
    assert_eq!(entries(&store).await, 0);
}

/// `Session::flush` and `Session::clear` keep the id of the cookie, which the client may have chosen.
async fn create_draws_a_new_id(backend: &TestStore) {
    let (_, sessions) = sessions(backend).await;
    for first in [anonymous(), of_user("7")] {
        let free = first.id;
        let first = created(&sessions, first).await;
        assert_ne!(first.id, free);
        for mut second in [anonymous(), of_user("7"), of_user("8")] {
            second.id = first.id;
            sessions.create(&mut second).await.unwrap();
            assert_ne!(second.id, first.id);
            assert_eq!(sessions.load(&first.id).await.unwrap(), Some(first.clone()));
            assert_eq!(sessions.load(&second.id).await.unwrap(), Some(second));
        }
    }
}

async fn sign_out_everywhere_ends_the_sessions_of_one_user(backend: &TestStore) {
    let (store, sessions) = sessions(backend).await;
    let mut of_seven = Vec::new();
    for _ in 0..3 {
        of_seven.push(created(&sessions, of_user("7")).await);
    }
    let mut others = vec![created(&sessions, anonymous()).await];
    for user in ["70", "7:x", "", "7\\", "ä"] {
        others.push(created(&sessions, of_user(user)).await);
    }
    let mut listed = sessions.sessions_of("7").await.unwrap();
    listed.sort_by_key(|record| record.id.0);
    of_seven.sort_by_key(|record| record.id.0);
    assert_eq!(listed, of_seven);

    assert_eq!(sessions.sign_out_everywhere("7").await.unwrap(), 3);
    assert_eq!(entries(&store).await, 11, "no reference is left: one and five times two entries");
    for record in of_seven {
        assert_eq!(sessions.load(&record.id).await.unwrap(), None);
    }
    for record in others {
        assert_eq!(sessions.load(&record.id).await.unwrap(), Some(record));
    }
    assert_eq!(sessions.sessions_of("7").await.unwrap(), []);
    assert_eq!(sessions.sign_out_everywhere("7").await.unwrap(), 0);
    // The user can sign in again.
    let record = created(&sessions, of_user("7")).await;
    assert_eq!(sessions.load(&record.id).await.unwrap(), Some(record));
}

async fn ended_session_is_not_saved_again(backend: &TestStore) {
    let (store, sessions) = sessions(backend).await;
    for record in [anonymous(), of_user("7")] {
        let record = created(&sessions, record).await;
        sessions.delete(&record.id).await.unwrap();
        refused(sessions.save(&record).await, "the session has ended");
        assert_eq!(sessions.load(&record.id).await.unwrap(), None);
        // Nothing is lost: a session without data may be saved.
        let empty = Record { data: Default::default(), ..record };
        sessions.save(&empty).await.unwrap();
        assert_eq!(sessions.load(&empty.id).await.unwrap(), None);
    }
    let record = created(&sessions, of_user("7")).await;
    sessions.sign_out_everywhere("7").await.unwrap();
    refused(sessions.save(&record).await, "the session has ended");
    assert_eq!(sessions.load(&record.id).await.unwrap(), None);
    assert_eq!(sessions.sessions_of("7").await.unwrap(), []);
    assert_eq!(entries(&store).await, 0);
}

async fn user_of_a_session_changes_only_with_a_new_id(backend: &TestStore) {
    let (_, sessions) = sessions(backend).await;
    for before in [anonymous(), of_user("7")] {
        let before = created(&sessions, before).await;
        let after = Record { data: of_user("8").data, ..before.clone() };
        refused(sessions.save(&after).await, "Session::cycle_id");
        assert_eq!(sessions.load(&before.id).await.unwrap(), Some(before));
        assert_eq!(sessions.sessions_of("8").await.unwrap(), []);
    }
}

async fn session_without_its_user_leaves_the_namespace_of_the_user(backend: &TestStore) {
    let (store, sessions) = sessions(backend).await;
    let before = created(&sessions, of_user("7")).await;
    let after = Record { data: anonymous().data, ..before.clone() };
    sessions.save(&after).await.unwrap();
    assert_eq!(sessions.load(&before.id).await.unwrap(), Some(after.clone()));
    assert_eq!(sessions.sessions_of("7").await.unwrap(), []);
    assert_eq!(entries(&store).await, 1);
    // A request from before the change cannot bring the user back.
    refused(sessions.save(&before).await, "the session has ended");
    assert_eq!(sessions.load(&before.id).await.unwrap(), Some(after));
}

/// The expiry of both entries of a session of user 7.
async fn expiries(store: &Arc<dyn Backend>, id: Id) -> Vec<Expiry> {
    let mut expiries = Vec::new();
    for ns in [ns(), ns().with_scope("7").unwrap()] {
        let entry = store.get_entry(&ctx(), &ns, &id.to_string(), GetOptions::new()).await;
        expiries.push(Expiry::of(&entry.unwrap().unwrap().meta));
    }
    expiries
}

async fn expiry_date_is_the_expiry_of_both_entries(backend: &TestStore) {
    let (store, sessions) = sessions(backend).await;
    let mut record = created(&sessions, of_user("7")).await;
    for seconds in [3600, 7200, 60] {
        record.expiry_date = OffsetDateTime::now_utc() + Duration::from_secs(seconds);
        sessions.save(&record).await.unwrap();
        let millis = record.expiry_date.unix_timestamp_nanos() / 1_000_000;
        let at = Expiry::At(Timestamp::from_millis(millis.try_into().unwrap()).unwrap());
        assert_eq!(expiries(&store, record.id).await, [at, at]);
    }
    // Saving with a date in the past ends the session.
    record.expiry_date = OffsetDateTime::now_utc() - Duration::from_secs(1);
    sessions.save(&record).await.unwrap();
    assert_eq!(sessions.load(&record.id).await.unwrap(), None);
    assert_eq!(entries(&store).await, 0);
    // The last date of the store is that of the year 9999.
    let mut record = of_user("7");
    record.expiry_date = time::PrimitiveDateTime::MAX.assume_utc();
    let record = created(&sessions, record).await;
    let last = Expiry::At(Timestamp::MAX);
    assert_eq!(expiries(&store, record.id).await, [last, last]);
    assert_eq!(sessions.load(&record.id).await.unwrap(), Some(record));
}

async fn idle_ttl_is_stored_with_both_entries(backend: &TestStore) {
    let (store, sessions) = sessions(backend).await;
    let ttl = Duration::from_secs(1800);
    let sessions = sessions.with_idle_ttl(ttl);
    let record = created(&sessions, of_user("7")).await;
    for _ in 0..2 {
        for expiry in expiries(&store, record.id).await {
            assert!(matches!(expiry, Expiry::IdleUntil { ttl: stored, .. } if stored == ttl));
        }
        sessions.save(&record).await.unwrap();
    }
    assert_eq!(sessions.load(&record.id).await.unwrap(), Some(record.clone()));
    // The expiry date ends the session although the idle TTL has not passed.
    let past = OffsetDateTime::now_utc() - Duration::from_secs(1);
    sessions.save(&Record { expiry_date: past, ..record.clone() }).await.unwrap();
    assert_eq!(sessions.load(&record.id).await.unwrap(), None);
    assert_eq!(sessions.sessions_of("7").await.unwrap(), []);
}

async fn sign_out_ends_sessions_that_are_saved_at_the_same_time(backend: &TestStore) {
    let (_, sessions) = sessions(backend).await;
    for round in 0..10 {
        let record = created(&sessions, of_user("7")).await;
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..4 {
            let (sessions, mut record) = (sessions.clone(), record.clone());
            tasks.spawn(async move {
                if task == 0 {
                    // This request removes the user from the session.
                    record.data = anonymous().data;
                }
                while sessions.save(&record).await.is_ok() && task != 0 {}
            });
        }
        sessions.sign_out_everywhere("7").await.unwrap();
        tasks.join_all().await;
        let loaded = sessions.load(&record.id).await.unwrap();
        let has_user = loaded.is_some_and(|record| record.data.contains_key("user"));
        assert!(!has_user, "round {round}: a session of the user is left");
        assert_eq!(sessions.sessions_of("7").await.unwrap(), [], "round {round}");
    }
}

/// The states between the two writes of a call, made by hand.
async fn interrupted_calls_leave_no_session_that_can_be_loaded(backend: &TestStore) {
    let (store, sessions) = sessions(backend).await;
    let of_seven = ns().with_scope("7").unwrap();
    // `create` wrote the session and not the reference.
    let record = created(&sessions, of_user("7")).await;
    let key = record.id.to_string();
    store.delete(&ctx(), &ns(), &key).await.unwrap();
    assert_eq!(sessions.load(&record.id).await.unwrap(), None);
    refused(sessions.save(&record).await, "the session has ended");
    assert_eq!(sessions.sessions_of("7").await.unwrap(), []);
    // `delete` removed the session and not the reference. Repeating it completes the deletion.
    let record = created(&sessions, of_user("7")).await;
    let key = record.id.to_string();
    store.delete(&ctx(), &of_seven, &key).await.unwrap();
    refused(sessions.save(&record).await, "the session has ended");
    sessions.delete(&record.id).await.unwrap();
    assert_eq!(store.get(&ctx(), &ns(), &key).await.unwrap(), None);
    // The same, and a request loads it.
    let record = created(&sessions, of_user("7")).await;
    let key = record.id.to_string();
    store.delete(&ctx(), &of_seven, &key).await.unwrap();
    assert_eq!(sessions.load(&record.id).await.unwrap(), None);
    assert_eq!(store.get(&ctx(), &ns(), &key).await.unwrap(), None, "the reference is deleted");
}

async fn session_under_another_rule_is_not_loaded(backend: &TestStore) {
    let (_, by_user) = sessions(backend).await;
    let by_name = by_user.clone().with_user_key("name");
    let mut record = of_user("7");
    record.data.insert("name".to_owned(), "ada".into());
    let record = created(&by_name, record).await;
    assert_eq!(by_name.load(&record.id).await.unwrap(), Some(record.clone()));
    assert_eq!(by_user.load(&record.id).await.unwrap(), None);
    refused(by_user.save(&record).await, "the session has ended");
}

async fn replica_without_a_rule_keeps_the_user_of_a_session(backend: &TestStore) {
    let (store, sessions) = sessions(backend).await;
    let without_a_rule = CubbyholeStore::new(store, ns()).with_timeout(Duration::from_secs(60));
    let mut record = created(&sessions, of_user("7")).await;
    record.data.insert("cart".to_owned(), serde_json::json!(["book"]));
    without_a_rule.save(&record).await.unwrap();
    assert_eq!(without_a_rule.load(&record.id).await.unwrap(), Some(record.clone()));
    assert_eq!(sessions.load(&record.id).await.unwrap(), Some(record.clone()));
    assert_eq!(sessions.sign_out_everywhere("7").await.unwrap(), 1);
    refused(without_a_rule.save(&record).await, "the session has ended");
    // This session names a user and is stored without one.
    let record = created(&without_a_rule, of_user("7")).await;
    assert_eq!(sessions.load(&record.id).await.unwrap(), None);
}

async fn expired_sessions_are_deleted(backend: &TestStore) {
    let (store, sessions) = sessions(backend).await;
    let mut short = of_user("7");
    short.expiry_date = OffsetDateTime::now_utc() + Duration::from_millis(1);
    let short = created(&sessions, short).await;
    let long = created(&sessions, of_user("7")).await;
    let only_the_long_one_is_stored = async || {
        sessions.delete_expired().await.unwrap();
        let usage = store.usage(&ctx(), &"acme".parse().unwrap()).await.unwrap();
        (usage.entries, usage.expired) == (2, 0)
    };
    until("the expired session is deleted", only_the_long_one_is_stored).await;
    assert_eq!(sessions.load(&short.id).await.unwrap(), None);
    assert_eq!(sessions.sessions_of("7").await.unwrap(), [long]);
}

async fn invalid_users_are_refused_and_nothing_is_written(backend: &TestStore) {
    let (store, sessions) = sessions(backend).await;
    for user in ["a\0b".to_owned(), "x".repeat(1024)] {
        let mut record = of_user(&user);
        assert!(matches!(sessions.create(&mut record).await, Err(Error::Backend(_))));
        assert!(matches!(sessions.save(&record).await, Err(Error::Backend(_))));
        assert!(matches!(sessions.sign_out_everywhere(&user).await, Err(Error::Backend(_))));
        assert!(matches!(sessions.sessions_of(&user).await, Err(Error::Backend(_))));
    }
    let zero = sessions.clone().with_idle_ttl(Duration::ZERO);
    refused(zero.create(&mut anonymous()).await, "the idle TTL must be more than zero");
    assert_eq!(entries(&store).await, 0);
}

async fn closed_store_is_an_error(backend: &TestStore) {
    let (store, sessions) = sessions(backend).await;
    let record = created(&sessions, anonymous()).await;
    store.close(&ctx()).await.unwrap();
    refused(sessions.load(&record.id).await, "closed");
    refused(sessions.save(&record).await, "closed");
    refused(sessions.create(&mut anonymous()).await, "closed");
    refused(sessions.delete(&record.id).await, "closed");
    refused(sessions.delete_expired().await, "closed");
}

/// Moves the clock, which only the in-memory store allows. The conformance suite shows that idle TTLs
/// behave in the same way on every backend.
#[tokio::test]
async fn loading_a_session_restarts_its_idle_ttl() {
    let clock = ManualClock::default();
    let store = InMemoryStore::<Bytes>::builder().with_clock(clock.clone()).build();
    let minutes = |number: u64| Duration::from_secs(60 * number);
    let sessions =
        CubbyholeStore::new(store, ns()).with_user_key("user").with_idle_ttl(minutes(30));
    for mut record in [anonymous(), of_user("7")] {
        sessions.create(&mut record).await.unwrap();
        for _ in 0..5 {
            clock.advance(minutes(20));
            assert!(sessions.load(&record.id).await.unwrap().is_some());
        }
        clock.advance(minutes(31));
        assert_eq!(sessions.load(&record.id).await.unwrap(), None);
    }
}

#[tokio::test]
async fn debug_output_holds_no_session() {
    let sessions = CubbyholeStore::new(InMemoryStore::<Bytes>::new(), ns());
    let mut record = record(&serde_json::json!({ "secret": "hunter2" }));
    sessions.create(&mut record).await.unwrap();
    let text = format!("{sessions:?}");
    assert!(text.contains("acme:sessions") && !text.contains("hunter2"), "{text}");
}
