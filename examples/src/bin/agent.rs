//! The memory of an agent: one namespace for each conversation, turns appended by conditional
//! batches, conversations that expire when they are idle, and a profile of each person that all
//! conversations share. The language model is a stub that needs no network.
//!
//! ```text
//! cargo run -p cubbyhole-examples --bin agent -- redb:agent.redb
//! ```
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "the example prints its steps")]

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{
    Backend, Batch, Condition, EntryStore, EntryStoreExt, Error, ErrorKind, ExecutionContext,
    Expiry, GetOptions, JsonCodec, Namespace, NamespacePrefix, PutOptions, Result, ScanOptions,
    Store, Typed, TypedExt, Update, Version,
};
use serde::{Deserialize, Serialize};

/// A conversation ends when it has not been read or written for this long.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// The TTL of a turn, which does not depend on the conversation.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The number of turns that the model receives.
const CONTEXT_TURNS: u64 = 6;
/// The number of turns read in one page.
const PAGE: usize = 4;
const HEAD: &str = "head";

/// The values in the namespace of a conversation. One type, because a batch writes values of one
/// type.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Memory {
    Head(Head),
    Turn(Turn),
}

/// The state of a conversation. Only the head has a sliding expiry. When it has expired, the
/// conversation is over and its turns are no longer read.
#[derive(Serialize, Deserialize)]
struct Head {
    /// Identifies this conversation in the keys of its turns. If a new conversation begins under
    /// the same name, its turns have other keys, so the two are never mixed.
    start: Version,
    turns: u64,
}

#[derive(Serialize, Deserialize)]
struct Turn {
    speaker: String,
    text: String,
}

/// The agent's knowledge about a person, shared by all conversations.
#[derive(Serialize, Deserialize, Default)]
struct Profile {
    name: Option<String>,
    questions: u64,
}

struct Conversation {
    store: Typed<Memory, JsonCodec, Arc<dyn Backend>>,
    ns: Namespace,
}

impl Conversation {
    /// Reads the head and its version, and extends its TTL in the same step. Returns `None` if the
    /// conversation is over.
    async fn head(&self, ctx: &ExecutionContext) -> Result<Option<(Head, Version)>> {
        let sliding = GetOptions::new().with_extended_ttl(IDLE);
        let Some(entry) = self.store.get_entry(ctx, &self.ns, HEAD, sliding).await? else {
            return Ok(None);
        };
        match entry.value {
            Memory::Head(head) => Ok(Some((head, entry.meta.version))),
            Memory::Turn(_) => Err(Error::new(ErrorKind::Corrupt, "the head is a turn")),
        }
    }

    /// Appends a turn and returns its number, counted from 0. The turn and the new head are one
    /// batch, which is applied only if no other writer has changed the head since it was read.
    async fn append(&self, ctx: &ExecutionContext, speaker: &str, text: &str) -> Result<u64> {
        loop {
            ctx.check()?;
            let (head, condition) = match self.head(ctx).await? {
                Some((head, version)) => (head, Condition::IfVersion(version)),
                None => (Head { start: Version::draw(), turns: 0 }, Condition::IfAbsent),
            };
            let number = head.turns;
            let turn = Turn { speaker: speaker.to_owned(), text: text.to_owned() };
            let key = turn_key(&head, number);
            let head = Head { turns: number + 1, ..head };
            let idle = PutOptions::new().with_ttl(IDLE);
            let kept = PutOptions::new().with_ttl(KEPT);
            let batch = Batch::new().put_with(HEAD, Memory::Head(head), idle, condition).put_with(
                key,
                Memory::Turn(turn),
                kept,
                Condition::IfAbsent,
            );
            match self.store.write(ctx, &self.ns, batch).await {
                Ok(_) => return Ok(number),
                // Another writer appended first. Read the new head and try again.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the last `count` turns in order, read page by page. Returns none if the conversation
    /// is over.
    async fn last(&self, ctx: &ExecutionContext, count: u64) -> Result<Vec<Turn>> {
        let mut turns = Vec::new();
        let Some((head, _)) = self.head(ctx).await? else { return Ok(turns) };
        let mut options =
            ScanOptions::new().with_prefix(format!("turn:{}:", head.start)).with_limit(PAGE);
        if let Some(before) = head.turns.checked_sub(count + 1) {
            options = options.with_after(turn_key(&head, before));
        }
        loop {
            let page = self.store.scan(ctx, &self.ns, options.clone()).await?;
            for item in page.items {
                match item.value {
                    Some(Ok(Memory::Turn(turn))) => turns.push(turn),
                    // An unreadable turn is a gap. The conversation continues.
                    _ => println!("  (cannot read {})", item.key),
                }
            }
            match page.next {
                Some(next) => options = options.with_after(next),
                None => return Ok(turns),
            }
        }
    }
}

/// The zero padding makes the byte order, in which keys are listed, the order of the numbers.
fn turn_key(head: &Head, number: u64) -> String {
    format!("turn:{}:{number:010}", head.start)
}

struct Agent {
    store: Arc<dyn Backend>,
    ns: Namespace,
}

impl Agent {
    fn conversation(&self, name: &str) -> Result<Conversation> {
        let ns = self.ns.clone().with_scope(name)?;
        Ok(Conversation { store: self.store.clone().typed(), ns })
    }

    /// Asks one question and returns the answer.
    async fn ask(
        &self,
        ctx: &ExecutionContext,
        conversation: &Conversation,
        person: &str,
        text: &str,
    ) -> Result<String> {
        conversation.append(ctx, person, text).await?;
        let context = conversation.last(ctx, CONTEXT_TURNS).await?;

        let profiles = self.store.clone().typed::<Profile>();
        let key = format!("profile:{person}");
        // `update` repeats this if another conversation changes the profile at the same time.
        let learn = |entry: Option<cubbyhole::Entry<Profile>>| {
            let mut profile = entry.map(|entry| entry.value).unwrap_or_default();
            profile.questions += 1;
            if let Some(name) = text.strip_prefix("I am ") {
                profile.name = Some(name.trim_end_matches('.').to_owned());
            }
            Ok(Update::Put(profile))
        };
        profiles.update(ctx, &self.ns, &key, learn).await?;
        let profile = profiles.get(ctx, &self.ns, &key).await?.unwrap_or_default();

        let answer = model(&context, &profile);
        conversation.append(ctx, "agent", &answer).await?;
        println!("  {person}: {text}\n  agent: {answer}");
        Ok(answer)
    }

    /// Erases a conversation and nothing else. Can be repeated.
    async fn forget(&self, ctx: &ExecutionContext, conversation: &Conversation) -> Result<u64> {
        self.store.erase_all(ctx, &NamespacePrefix::from(&conversation.ns)).await
    }
}

/// Replaces a language model in this example. Its answer depends on its input.
fn model(context: &[Turn], profile: &Profile) -> String {
    let name = profile.name.as_deref().unwrap_or("stranger");
    let here = context.iter().filter(|turn| turn.speaker != "agent").count();
    let total = profile.questions;
    format!("Hello {name}. Your messages: {here} here, {total} in total.")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let url = std::env::args().nth(1).or_else(|| std::env::var("CUBBYHOLE_STORE").ok());
    let url = url.unwrap_or_else(|| "redb:agent.redb".to_owned());
    let ctx = ExecutionContext::new().with_timeout(Duration::from_secs(60));
    let store = cubbyhole::open(&ctx, &url).await?;
    let ns = Namespace::from_parts("acme", ["helper"])?;
    let agent = Agent { store: store.clone(), ns };
    // Remove the entries of an earlier run.
    store.erase_all(&ctx, &NamespacePrefix::from(&agent.ns)).await?;

    remember(&ctx, &agent).await?;
    append_concurrently(&ctx, &agent).await?;
    expire(&ctx, &agent).await?;
    forget(&ctx, &agent).await?;
    store.close(&ctx).await?;
    Ok(())
}

async fn remember(ctx: &ExecutionContext, agent: &Agent) -> Result<()> {
    println!("Two conversations. The second one knows the person, but not the turns of the first:");
    let first = agent.conversation("chat-1")?;
    agent.ask(ctx, &first, "maria", "Hello!").await?;
    agent.ask(ctx, &first, "maria", "I am Maria.").await?;
    let answer = agent.ask(ctx, &first, "maria", "Where is my parcel?").await?;
    assert_eq!(answer, "Hello Maria. Your messages: 3 here, 3 in total.");
    let second = agent.conversation("chat-2")?;
    let answer = agent.ask(ctx, &second, "maria", "And today?").await?;
    assert_eq!(answer, "Hello Maria. Your messages: 1 here, 4 in total.");
    Ok(())
}

/// Two writers append to one conversation, for example from two browser windows.
async fn append_concurrently(ctx: &ExecutionContext, agent: &Agent) -> Result<()> {
    const EACH: u64 = 10;
    let conversation = agent.conversation("chat-3")?;
    let write = async |speaker: &str| {
        for number in 0..EACH {
            conversation.append(ctx, speaker, &number.to_string()).await?;
        }
        Ok::<_, Error>(())
    };
    tokio::try_join!(write("left"), write("right"))?;
    let turns = conversation.last(ctx, 2 * EACH).await?;
    for speaker in ["left", "right"] {
        let said = turns.iter().filter(|turn| turn.speaker == speaker);
        let expected = (0..EACH).map(|number| number.to_string());
        assert!(
            said.map(|turn| turn.text.clone()).eq(expected),
            "{speaker}: a turn is lost or out of order"
        );
    }
    // The model receives the end of a long conversation.
    let last = conversation.last(ctx, CONTEXT_TURNS).await?;
    let end = turns.iter().skip(turns.len() - last.len());
    assert_eq!(last.len() as u64, CONTEXT_TURNS);
    assert!(last.iter().map(|turn| &turn.text).eq(end.map(|turn| &turn.text)));
    println!("Two writers appended to one conversation: {} turns, none lost", turns.len());
    Ok(())
}

async fn expire(ctx: &ExecutionContext, agent: &Agent) -> Result<()> {
    let conversation = agent.conversation("chat-2")?;
    let head = async |options| conversation.store.get_entry(ctx, &conversation.ns, HEAD, options);
    let expires_at = async || {
        let entry = head(GetOptions::new()).await.await?;
        Ok::<_, Error>(entry.and_then(|entry| entry.meta.expires_at))
    };
    // Simulate a conversation that expires in one minute.
    let minute = Expiry::After(Duration::from_secs(60));
    conversation.store.touch(ctx, &conversation.ns, HEAD, minute).await?;
    let before = expires_at().await?;
    conversation.last(ctx, CONTEXT_TURNS).await?;
    let after = expires_at().await?;
    assert!(before < after, "reading must extend the TTL");
    println!("Reading a conversation extends its TTL");

    // Simulate an idle conversation: let it expire. `get_entry` without options does not extend the
    // TTL.
    let moment = Expiry::After(Duration::from_millis(1));
    conversation.store.touch(ctx, &conversation.ns, HEAD, moment).await?;
    while expires_at().await?.is_some() {
        ctx.sleep(Duration::from_millis(1)).await?;
    }
    assert!(conversation.last(ctx, CONTEXT_TURNS).await?.is_empty());
    let answer = agent.ask(ctx, &conversation, "maria", "Are you still there?").await?;
    assert_eq!(answer, "Hello Maria. Your messages: 1 here, 5 in total.");
    println!("An idle conversation expired: the next question started a new one");
    Ok(())
}

async fn forget(ctx: &ExecutionContext, agent: &Agent) -> Result<()> {
    let conversation = agent.conversation("chat-1")?;
    let removed = agent.forget(ctx, &conversation).await?;
    let left = agent.store.usage(ctx, &NamespacePrefix::from(&conversation.ns)).await?;
    assert_eq!(left.entries, 0);
    println!("chat-1 was erased on request: {removed} entries");
    for other in agent.store.list_namespaces(ctx, &NamespacePrefix::from(&agent.ns)).await? {
        println!("  remaining: {other}");
    }
    Ok(())
}
