//! The memories of `entelix-memory` on every backend: they answer as on entelix's own store.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cubbyhole::TypedExt;
use cubbyhole_entelix::CubbyholeStore;
use entelix_core::ir::{ContentPart, Message, Role};
use entelix_core::{ExecutionContext, TenantId};
use entelix_memory::{
    BufferMemory, EntityMemory, EntityRecord, Episode, EpisodicMemory, InMemoryStore, Namespace,
    OnMessageCount, Store, SummaryMemory,
};
use test_backends::{TestStore, on_every_backend};

on_every_backend! {
    buffer_keeps_the_last_turns,
    entities_are_set_touched_pruned_and_removed,
    summary_grows_and_is_cleared,
    episodes_are_found_by_time,
    memories_in_other_namespaces_are_not_read,
}

fn ctx() -> ExecutionContext {
    ExecutionContext::new()
}

fn ns(tenant: &str) -> Namespace {
    Namespace::new(TenantId::new(tenant)).with_scope("agent-7")
}

/// Returns a store of entelix and ours. The second calls must answer as the first.
async fn stores<V>(backend: &TestStore) -> [Arc<dyn Store<V>>; 2]
where
    V: Clone + Send + Sync + serde::Serialize + serde::de::DeserializeOwned + 'static,
{
    let ours = CubbyholeStore::new(backend.open().await.typed::<V>());
    [Arc::new(InMemoryStore::new()), Arc::new(ours)]
}

fn same<T: PartialEq + std::fmt::Debug>(answers: &[T]) {
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0], answers[1], "entelix's own store answers the first");
}

async fn buffer_keeps_the_last_turns(backend: &TestStore) {
    let mut answers = Vec::new();
    for store in stores::<Vec<Message>>(backend).await {
        let buffer = BufferMemory::new(store.clone(), ns("acme"), 3)
            .with_consolidation_policy(Arc::new(OnMessageCount::new(3)));
        let mut seen = vec![(buffer.messages(&ctx()).await.unwrap(), false)];
        for number in 0..5 {
            let message = match number {
                0 => Message::system("You are terse. ä\u{1F980}"),
                1 => Message::user("What is 6 × 7?"),
                2 => Message::new(
                    Role::Assistant,
                    vec![ContentPart::text("a"), ContentPart::text("")],
                ),
                _ => Message::assistant(format!("turn {number}")),
            };
            buffer.append(&ctx(), message).await.unwrap();
            let full = buffer.should_consolidate(&ctx()).await.unwrap();
            seen.push((buffer.messages(&ctx()).await.unwrap(), full));
        }
        // Another buffer over the same store, as after a restart of the agent.
        let again = BufferMemory::new(store, ns("acme"), 3);
        assert_eq!(again.messages(&ctx()).await.unwrap(), seen[5].0);
        buffer.clear(&ctx()).await.unwrap();
        seen.push((again.messages(&ctx()).await.unwrap(), false));
        answers.push(seen);
    }
    same(&answers);
    let lengths: Vec<_> = answers[1].iter().map(|(messages, _)| messages.len()).collect();
    assert_eq!(lengths, [0, 1, 2, 3, 3, 3, 0]);
}

async fn entities_are_set_touched_pruned_and_removed(backend: &TestStore) {
    let mut answers = Vec::new();
    for store in stores::<HashMap<String, EntityRecord>>(backend).await {
        let entities = EntityMemory::new(store.clone(), ns("acme"));
        let all = async || {
            let all = entities.all(&ctx()).await.unwrap();
            all.into_iter().collect::<BTreeMap<_, _>>()
        };
        let mut seen = vec![all().await];
        entities.set_entity(&ctx(), "Ada", "likes engines").await.unwrap();
        entities.set_entity(&ctx(), "Bob", "ä\u{1F980}").await.unwrap();
        let first = entities.entity_record(&ctx(), "Ada").await.unwrap().unwrap();
        entities.set_entity(&ctx(), "Ada", "likes looms").await.unwrap();
        let second = entities.entity_record(&ctx(), "Ada").await.unwrap().unwrap();
        assert_eq!(first.created_at, second.created_at, "timestamps survive the store exactly");
        assert!(second.last_seen >= first.last_seen);
        seen.push(all().await);
        assert!(entities.touch(&ctx(), "Bob").await.unwrap());
        assert!(!entities.touch(&ctx(), "Eve").await.unwrap());
        let records = entities.all_records(&ctx()).await.unwrap();
        let again = EntityMemory::new(store, ns("acme"));
        assert_eq!(again.all_records(&ctx()).await.unwrap(), records);

        assert_eq!(entities.prune_older_than(&ctx(), Duration::from_secs(3600)).await.unwrap(), 0);
        entities.remove(&ctx(), "Ada").await.unwrap();
        seen.push(all().await);
        entities.clear(&ctx()).await.unwrap();
        seen.push(all().await);
        answers.push(seen);
    }
    same(&answers);
    assert_eq!(answers[1][1]["Ada"], "likes looms");
}

async fn summary_grows_and_is_cleared(backend: &TestStore) {
    let mut answers = Vec::new();
    for store in stores::<String>(backend).await {
        let summary = SummaryMemory::new(store, ns("acme"));
        let mut seen = vec![summary.get(&ctx()).await.unwrap()];
        summary.append(&ctx(), "They met.").await.unwrap();
        summary.append(&ctx(), "They parted.").await.unwrap();
        seen.push(summary.get(&ctx()).await.unwrap());
        summary.set(&ctx(), "Short.").await.unwrap();
        seen.push(summary.get(&ctx()).await.unwrap());
        summary.clear(&ctx()).await.unwrap();
        seen.push(summary.get(&ctx()).await.unwrap());
        answers.push(seen);
    }
    same(&answers);
}

async fn episodes_are_found_by_time(backend: &TestStore) {
    let start: DateTime<Utc> = "2026-01-01T00:00:00.123456789Z".parse().unwrap();
    let mut answers = Vec::new();
    for store in stores::<Vec<Episode<String>>>(backend).await {
        let episodes = EpisodicMemory::new(store, ns("acme"));
        for minute in [2, 0, 1] {
            let at = start + TimeDelta::minutes(minute);
            episodes.append_at(&ctx(), format!("minute {minute}"), at).await.unwrap();
        }
        let brief = |episodes: Vec<Episode<String>>| {
            let brief = episodes.into_iter().map(|episode| (episode.timestamp, episode.payload));
            brief.collect::<Vec<_>>()
        };
        let later = start + TimeDelta::minutes(1);
        answers.push(vec![
            brief(episodes.all(&ctx()).await.unwrap()),
            brief(episodes.recent(&ctx(), 2).await.unwrap()),
            brief(episodes.range(&ctx(), start, later).await.unwrap()),
            brief(episodes.since(&ctx(), later).await.unwrap()),
        ]);
        assert_eq!(episodes.count(&ctx()).await.unwrap(), 3);
        assert_eq!(episodes.prune_older_than(&ctx(), Duration::from_secs(1)).await.unwrap(), 3);
    }
    same(&answers);
    assert_eq!(answers[1][0].len(), 3);
}

async fn memories_in_other_namespaces_are_not_read(backend: &TestStore) {
    let [_, store] = stores::<Vec<Message>>(backend).await;
    let acme = BufferMemory::new(store.clone(), ns("acme"), 5);
    let other = BufferMemory::new(store, ns("acm"), 5);
    acme.append(&ctx(), Message::user("secret")).await.unwrap();
    assert_eq!(other.messages(&ctx()).await.unwrap(), []);
    other.clear(&ctx()).await.unwrap();
    assert_eq!(acme.messages(&ctx()).await.unwrap().len(), 1);
}
