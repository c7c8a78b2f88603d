//! The memory through rig's trait, on every backend.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{
    Backend, Bytes, EntryStore, InMemoryStore, ManualClock, Namespace, ScanOptions, Store,
};
use cubbyhole_rig::CubbyholeMemory;
use rig_core::completion::Message;
use rig_core::memory::{ConversationMemory, InMemoryConversationMemory, MemoryError};
use rig_core::message::{AssistantContent, ToolCall, ToolFunction, ToolResultContent};
use test_backends::{TestStore, ctx, on_every_backend};

on_every_backend! {
    conversation_is_loaded_as_in_the_memory_of_rig,
    concurrent_appends_lose_nothing_and_keep_turns_together,
    last_messages_are_the_newest,
    cut_history_starts_with_a_message_of_the_user,
    cleared_conversation_starts_again,
    messages_have_the_idle_ttl,
    invalid_conversations_are_refused,
    value_of_another_type_is_a_backend_error,
}

fn ns() -> Namespace {
    Namespace::parse("acme:agent-7").unwrap()
}

async fn open(backend: &TestStore) -> (Arc<dyn Backend>, CubbyholeMemory<Arc<dyn Backend>>) {
    let store = backend.open().await;
    // The default limit is for users. A busy machine must not fail a test.
    let memory = CubbyholeMemory::new(store.clone(), ns()).with_timeout(Duration::from_secs(60));
    (store, memory)
}

fn user(number: usize) -> Message {
    Message::user(format!("question {number} ä\u{1F980}"))
}

fn assistant(number: usize) -> Message {
    Message::assistant(format!("answer {number}"))
}

/// The call of a tool and its result.
fn tool_messages() -> Vec<Message> {
    let name = "clock".try_into().unwrap();
    let function = ToolFunction { name, arguments: Default::default(), invalid_arguments: None };
    let call = ToolCall::from_wire("call-1", function);
    let result = call.result(vec![ToolResultContent::text("12:00")]);
    let mut turn = Message::assistant("");
    if let Message::Assistant(turn) = &mut turn {
        turn.content = vec![AssistantContent::ToolCall(call)];
    }
    vec![turn, Message::tool_results(vec![result])]
}

async fn conversation_is_loaded_as_in_the_memory_of_rig(backend: &TestStore) {
    let (_, ours) = open(backend).await;
    let theirs = InMemoryConversationMemory::new();
    let memories: [&dyn ConversationMemory; 2] = [&theirs, &ours];
    let mut answers = Vec::new();
    for memory in memories {
        let mut seen = vec![memory.load(&"a".into()).await.unwrap()];
        memory.append(&"a".into(), vec![user(1), assistant(1)]).await.unwrap();
        memory.append(&"a:b".into(), vec![user(2)]).await.unwrap();
        memory.append(&"a".into(), Vec::new()).await.unwrap();
        let mut turn = vec![Message::System { content: "terse".to_owned() }, user(3)];
        turn.extend(tool_messages());
        memory.append(&"a".into(), turn).await.unwrap();
        for conversation in ["a", "a:b", "", "b"] {
            seen.push(memory.load(&conversation.into()).await.unwrap());
        }
        memory.clear(&"a".into()).await.unwrap();
        memory.clear(&"absent".into()).await.unwrap();
        for conversation in ["a", "a:b"] {
            seen.push(memory.load(&conversation.into()).await.unwrap());
        }
        answers.push(seen);
    }
    assert_eq!(answers[0], answers[1], "rig's own memory answers the first");
    assert_eq!(answers[1].iter().map(Vec::len).collect::<Vec<_>>(), [0, 6, 1, 0, 0, 0, 1]);
}

async fn concurrent_appends_lose_nothing_and_keep_turns_together(backend: &TestStore) {
    let (_, memory) = open(backend).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let memory = memory.clone();
        tasks.spawn(async move {
            memory.append(&"a".into(), vec![user(number), assistant(number)]).await.unwrap();
        });
    }
    tasks.join_all().await;
    let loaded = memory.load(&"a".into()).await.unwrap();
    let mut turns: Vec<_> = loaded.chunks(2).map(<[Message]>::to_vec).collect();
    turns.sort_by_key(|turn| format!("{turn:?}"));
    let expected: Vec<_> = (0..8).map(|number| vec![user(number), assistant(number)]).collect();
    assert_eq!(turns, expected);
}

async fn last_messages_are_the_newest(backend: &TestStore) {
    let (store, memory) = open(backend).await;
    // More than a batch and more than a page.
    let messages: Vec<_> = (0..1_050).map(user).collect();
    memory.append(&"a".into(), messages.clone()).await.unwrap();
    assert_eq!(memory.load(&"a".into()).await.unwrap(), messages);
    for n in [0, 1, 20, 1_049, 1_050, 2_000] {
        let memory = memory.clone().with_last_messages(n);
        let start = messages.len().saturating_sub(n);
        assert_eq!(memory.load(&"a".into()).await.unwrap(), messages[start..]);
    }
    // Older messages stay stored.
    let (ns, first) = (ns().with_scope("a").unwrap(), ScanOptions::new().with_limit(1));
    let page = store.scan(&ctx(), &ns, first).await.unwrap();
    assert_eq!(page.items[0].key, "message-00000000000000000000");
}

async fn cut_history_starts_with_a_message_of_the_user(backend: &TestStore) {
    let (_, memory) = open(backend).await;
    // A whole conversation may start with a greeting of the assistant.
    let mut messages = vec![assistant(0), user(1)];
    messages.extend(tool_messages());
    messages.extend([assistant(1), user(2), assistant(2)]);
    memory.append(&"a".into(), messages.clone()).await.unwrap();
    for (n, start) in [(7, 0), (6, 1), (5, 5), (4, 5), (3, 5), (2, 5), (1, 7)] {
        let memory = memory.clone().with_last_messages(n);
        assert_eq!(memory.load(&"a".into()).await.unwrap(), messages[start..], "the last {n}");
    }
}

async fn cleared_conversation_starts_again(backend: &TestStore) {
    let (_, memory) = open(backend).await;
    memory.append(&"a".into(), vec![user(1), assistant(1)]).await.unwrap();
    memory.clear(&"a".into()).await.unwrap();
    memory.append(&"a".into(), vec![assistant(2)]).await.unwrap();
    assert_eq!(memory.load(&"a".into()).await.unwrap(), [assistant(2)]);
}

async fn messages_have_the_idle_ttl(backend: &TestStore) {
    let (store, memory) = open(backend).await;
    let ttl = Duration::from_secs(3600);
    let memory = memory.with_idle_ttl(ttl);
    memory.append(&"a".into(), vec![user(1), assistant(1)]).await.unwrap();
    assert_eq!(memory.load(&"a".into()).await.unwrap().len(), 2);
    let page = store.scan(&ctx(), &ns().with_scope("a").unwrap(), ScanOptions::new()).await;
    let ttls: Vec<_> = page.unwrap().items.iter().map(|item| item.meta.idle_ttl).collect();
    assert_eq!(ttls, [Some(ttl), Some(ttl)]);
}

async fn invalid_conversations_are_refused(backend: &TestStore) {
    let (_, memory) = open(backend).await;
    let long = "x".repeat(1_024);
    for conversation in ["a\0b", &long] {
        let id = conversation.into();
        let append = memory.append(&id, vec![user(1)]).await;
        assert!(matches!(append, Err(MemoryError::Backend(_))), "{append:?}");
        let load = memory.load(&id).await;
        assert!(matches!(load, Err(MemoryError::Backend(_))), "{load:?}");
        let clear = memory.clear(&id).await;
        assert!(matches!(clear, Err(MemoryError::Backend(_))), "{clear:?}");
    }
}

async fn value_of_another_type_is_a_backend_error(backend: &TestStore) {
    let (store, memory) = open(backend).await;
    let ns = ns().with_scope("a").unwrap();
    let value = Bytes::from_static(b"\"secret\"");
    store.put(&ctx(), &ns, "message-00000000000000000000", value).await.unwrap();
    let text = memory.load(&"a".into()).await.unwrap_err().to_string();
    assert!(!text.contains("secret"), "{text}");
}

/// Moves the clock, which only the in-memory store allows.
#[tokio::test]
async fn loading_a_conversation_restarts_its_idle_ttl() {
    let clock = ManualClock::default();
    let store = InMemoryStore::<Bytes>::builder().with_clock(clock.clone()).build();
    let minutes = |number: u64| Duration::from_secs(60 * number);
    let memory = CubbyholeMemory::new(store, ns()).with_idle_ttl(minutes(30));
    memory.append(&"a".into(), vec![user(1), assistant(1)]).await.unwrap();
    for _ in 0..5 {
        clock.advance(minutes(20));
        assert_eq!(memory.load(&"a".into()).await.unwrap().len(), 2);
    }
    clock.advance(minutes(31));
    assert_eq!(memory.load(&"a".into()).await.unwrap(), []);
}

/// A load extends the first message only, because the second one is newer than a tenth of the TTL.
#[tokio::test]
async fn newer_message_does_not_expire_before_an_older_one() {
    let clock = ManualClock::default();
    let store = InMemoryStore::<Bytes>::builder().with_clock(clock.clone()).build();
    let minutes = |number: u64| Duration::from_secs(60 * number);
    let memory = CubbyholeMemory::new(store, ns()).with_idle_ttl(minutes(100));
    memory.append(&"a".into(), vec![user(1)]).await.unwrap();
    clock.advance(minutes(5));
    memory.append(&"a".into(), vec![user(2)]).await.unwrap();
    clock.advance(minutes(6));
    assert_eq!(memory.load(&"a".into()).await.unwrap().len(), 2);
    // The second message would have expired at 105 minutes.
    clock.advance(minutes(97));
    assert_eq!(memory.load(&"a".into()).await.unwrap(), [user(1), user(2)]);
}
