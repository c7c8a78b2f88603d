//! An agent that remembers: a namespace for each conversation, turns that are appended and never
//! lost, a memory that fades when nobody comes back, and what it knows of a person across
//! conversations. The model is a stand-in that needs no network.
//!
//! ```text
//! cargo run -p cubbyhole-examples --bin agent -- redb:agent.redb
//! ```
#![expect(
    clippy::print_stdout,
    clippy::disallowed_macros,
    reason = "it tells what it does on the terminal"
)]

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{
    Backend, Batch, Condition, EntryStore, EntryStoreExt, Error, ErrorKind, ExecutionContext,
    Expiry, GetOptions, JsonCodec, Namespace, NamespacePrefix, PutOptions, Result, ScanOptions,
    Store, Typed, TypedExt, Update, Version,
};
use serde::{Deserialize, Serialize};

/// A conversation is over when nobody has looked at it for that long.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// A turn is kept for that long, whatever becomes of its conversation.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How much of a conversation the model is shown, and how much of it is read at once.
const REMEMBERED: u64 = 6;
const PAGE: usize = 4;
const HEAD: &str = "head";

/// What stands in a conversation's namespace. One type, because a batch writes both kinds.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Memory {
    Head(Head),
    Turn(Turn),
}

/// How far a conversation has come. It alone has a sliding expiry: without it, the conversation is
/// over and its turns are not looked at any more.
#[derive(Serialize, Deserialize)]
struct Head {
    /// Drawn when the conversation began, and part of its turns' keys: a conversation that begins
    /// anew under the same name never meets turns of the old one.
    began: Version,
    turns: u64,
}

#[derive(Serialize, Deserialize)]
struct Turn {
    speaker: String,
    text: String,
}

/// What the agent knows of a person across conversations.
#[derive(Serialize, Deserialize, Default)]
struct Profile {
    name: Option<String>,
    questions: u64,
}

type Memories = Typed<Memory, JsonCodec, Arc<dyn Backend>>;

struct Conversation {
    store: Memories,
    ns: Namespace,
}

impl Conversation {
    /// The head, if the conversation is not over. Whoever looks at it prolongs it, in the same step.
    async fn head(&self, ctx: &ExecutionContext) -> Result<Option<(Head, Version)>> {
        let sliding = GetOptions::new().with_extended_ttl(IDLE);
        let Some(entry) = self.store.get_entry(ctx, &self.ns, HEAD, sliding).await? else {
            return Ok(None);
        };
        match entry.value {
            Memory::Head(head) => Ok(Some((head, entry.meta.version))),
            Memory::Turn(_) => Err(Error::new(ErrorKind::Corrupt, "a turn stands for the head")),
        }
    }

    /// Appends a turn, after those of everybody else: turn and head are written together, and only
    /// if nobody moved the head meanwhile. Returns the turn's number, counted from 0.
    async fn append(&self, ctx: &ExecutionContext, speaker: &str, text: &str) -> Result<u64> {
        loop {
            ctx.check()?;
            let (head, condition) = match self.head(ctx).await? {
                Some((head, version)) => (head, Condition::IfVersion(version)),
                None => (Head { began: Version::draw(), turns: 0 }, Condition::IfAbsent),
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
                // Somebody else's turn came first, and ours is after it.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The last `count` turns in order, read page by page; none if the conversation is over.
    async fn last(&self, ctx: &ExecutionContext, count: u64) -> Result<Vec<Turn>> {
        let mut turns = Vec::new();
        let Some((head, _)) = self.head(ctx).await? else { return Ok(turns) };
        let mut options =
            ScanOptions::new().with_prefix(format!("turn:{}:", head.began)).with_limit(PAGE);
        if let Some(before) = head.turns.checked_sub(count + 1) {
            options = options.with_after(turn_key(&head, before));
        }
        loop {
            let page = self.store.scan(ctx, &self.ns, options.clone()).await?;
            for item in page.items {
                match item.value {
                    Some(Ok(Memory::Turn(turn))) => turns.push(turn),
                    // A turn that cannot be read is a gap, and does not end the conversation.
                    _ => println!("  (the turn at {} cannot be read)", item.key),
                }
            }
            match page.next {
                Some(next) => options = options.with_after(next),
                None => return Ok(turns),
            }
        }
    }
}

/// In byte order, as keys are listed, these are in the order of their numbers.
fn turn_key(head: &Head, number: u64) -> String {
    format!("turn:{}:{number:010}", head.began)
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

    /// One question and its answer.
    async fn ask(
        &self,
        ctx: &ExecutionContext,
        conversation: &Conversation,
        person: &str,
        text: &str,
    ) -> Result<String> {
        conversation.append(ctx, person, text).await?;
        let seen = conversation.last(ctx, REMEMBERED).await?;

        let profiles = self.store.clone().typed::<Profile>();
        let key = format!("profile:{person}");
        // Read, change, write, and again if another conversation with this person came between.
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

        let answer = model(&seen, &profile);
        conversation.append(ctx, "agent", &answer).await?;
        println!("  {person}: {text}\n  agent: {answer}");
        Ok(answer)
    }

    /// Removes what was said in a conversation, and nothing else. Can be repeated.
    async fn forget(&self, ctx: &ExecutionContext, conversation: &Conversation) -> Result<u64> {
        self.store.erase_all(ctx, &NamespacePrefix::from(&conversation.ns)).await
    }
}

/// Where a program of yours asks its model: what it answers depends on what it is shown.
fn model(seen: &[Turn], profile: &Profile) -> String {
    let name = profile.name.as_deref().unwrap_or("stranger");
    let said = seen.iter().filter(|turn| turn.speaker != "agent").count();
    let asked = profile.questions;
    format!("Hello {name}. You told me {said} here, {asked} in all.")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let url = std::env::args().nth(1).or_else(|| std::env::var("CUBBYHOLE_STORE").ok());
    let url = url.unwrap_or_else(|| "redb:agent.redb".to_owned());
    let ctx = ExecutionContext::new().with_timeout(Duration::from_secs(60));
    let store = cubbyhole::open(&ctx, &url).await?;
    let ns = Namespace::from_parts("acme", ["helper"])?;
    let agent = Agent { store: store.clone(), ns };
    // What an earlier run left.
    store.erase_all(&ctx, &NamespacePrefix::from(&agent.ns)).await?;

    remember(&ctx, &agent).await?;
    two_writers(&ctx, &agent).await?;
    fade(&ctx, &agent).await?;
    forget(&ctx, &agent).await?;
    store.close(&ctx).await?;
    Ok(())
}

async fn remember(ctx: &ExecutionContext, agent: &Agent) -> Result<()> {
    println!("A conversation, and another that knows the person and not what was said:");
    let first = agent.conversation("chat-1")?;
    agent.ask(ctx, &first, "maria", "Hello!").await?;
    agent.ask(ctx, &first, "maria", "I am Maria.").await?;
    let answer = agent.ask(ctx, &first, "maria", "Where is my parcel?").await?;
    assert_eq!(answer, "Hello Maria. You told me 3 here, 3 in all.");
    let second = agent.conversation("chat-2")?;
    let answer = agent.ask(ctx, &second, "maria", "And today?").await?;
    assert_eq!(answer, "Hello Maria. You told me 1 here, 4 in all.");
    Ok(())
}

/// A person with two windows, or an agent with two tools.
async fn two_writers(ctx: &ExecutionContext, agent: &Agent) -> Result<()> {
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
        assert!(said.map(|turn| turn.text.clone()).eq(expected), "{speaker}: in order, none lost");
    }
    // What the model is shown of a long conversation: its end.
    let last = conversation.last(ctx, REMEMBERED).await?;
    let end = turns.iter().skip(turns.len() - last.len());
    assert_eq!(last.len() as u64, REMEMBERED);
    assert!(last.iter().map(|turn| &turn.text).eq(end.map(|turn| &turn.text)));
    println!("Two wrote to one conversation at once: {} turns, none lost", turns.len());
    Ok(())
}

async fn fade(ctx: &ExecutionContext, agent: &Agent) -> Result<()> {
    let conversation = agent.conversation("chat-2")?;
    let head = async |options| conversation.store.get_entry(ctx, &conversation.ns, HEAD, options);
    let expires_at = async || {
        let entry = head(GetOptions::new()).await.await?;
        Ok::<_, Error>(entry.and_then(|entry| entry.meta.expires_at))
    };
    // As if nobody had come for all but a minute of the time.
    let minute = Expiry::After(Duration::from_secs(60));
    conversation.store.touch(ctx, &conversation.ns, HEAD, minute).await?;
    let before = expires_at().await?;
    conversation.last(ctx, REMEMBERED).await?;
    let after = expires_at().await?;
    assert!(before < after, "reading prolongs");
    println!("Who reads a conversation prolongs it");

    // As if nobody had come for all of it. A plain read does not prolong.
    let moment = Expiry::After(Duration::from_millis(1));
    conversation.store.touch(ctx, &conversation.ns, HEAD, moment).await?;
    while expires_at().await?.is_some() {
        ctx.sleep(Duration::from_millis(1)).await?;
    }
    assert!(conversation.last(ctx, REMEMBERED).await?.is_empty());
    let answer = agent.ask(ctx, &conversation, "maria", "Are you still there?").await?;
    assert_eq!(answer, "Hello Maria. You told me 1 here, 5 in all.");
    println!("One that nobody read is over: the next question began it anew");
    Ok(())
}

async fn forget(ctx: &ExecutionContext, agent: &Agent) -> Result<()> {
    let conversation = agent.conversation("chat-1")?;
    let removed = agent.forget(ctx, &conversation).await?;
    let left = agent.store.usage(ctx, &NamespacePrefix::from(&conversation.ns)).await?;
    assert_eq!(left.entries, 0);
    println!("chat-1 was erased on request: {removed} entries");
    for other in agent.store.list_namespaces(ctx, &NamespacePrefix::from(&agent.ns)).await? {
        println!("  still there: {other}");
    }
    Ok(())
}
