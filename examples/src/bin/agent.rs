//! The memory of an agent: one namespace for each conversation, turns that are appended in order and
//! expire when the conversation is idle, and a profile of each person that all conversations share.
//! The language model is a stub that needs no network.
//!
//! ```text
//! cargo run -p cubbyhole-examples --bin agent -- redb:agent.redb
//! ```
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "the example prints its steps")]

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{
    Backend, Condition, EntryStore, EntryStoreExt, Error, ExecutionContext, Expiry, JsonCodec,
    Namespace, NamespacePrefix, PutOptions, Result, ScanItem, ScanOptions, Store, Typed, TypedExt,
    Update,
};
use serde::{Deserialize, Serialize};

/// A conversation ends when the agent has not read or written it for this long.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// The number of turns that the model receives.
const CONTEXT_TURNS: usize = 6;
/// The prefix of the keys of turns.
const TURNS: &str = "turn-";

#[derive(Clone, Serialize, Deserialize)]
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
    store: Typed<Turn, JsonCodec, Arc<dyn Backend>>,
    ns: Namespace,
}

impl Conversation {
    /// Appends a turn and returns its key. Concurrent writers lose no turn and leave no gap.
    async fn append(&self, ctx: &ExecutionContext, speaker: &str, text: &str) -> Result<String> {
        let turn = Turn { speaker: speaker.to_owned(), text: text.to_owned() };
        let idle = PutOptions::new().with_idle_ttl(IDLE);
        let keys = self.store.append(ctx, &self.ns, TURNS, vec![turn], idle).await?;
        keys.into_iter().next().ok_or_else(|| Error::internal("a turn has no key"))
    }

    /// Returns the last turns for the model, in order, and restarts their idle TTL. Older turns expire
    /// when they have left the context for that long.
    async fn context(&self, ctx: &ExecutionContext) -> Result<Vec<Turn>> {
        let newest =
            ScanOptions::new().with_prefix(TURNS).reversed().with_limit(CONTEXT_TURNS).refreshing();
        let mut items = self.store.scan(ctx, &self.ns, newest).await?.items;
        items.reverse();
        Ok(turns(items))
    }

    /// Returns the last `n` turns in order. Does not extend the conversation.
    async fn last(&self, ctx: &ExecutionContext, n: usize) -> Result<Vec<Turn>> {
        Ok(turns(self.store.last(ctx, &self.ns, TURNS, n).await?))
    }
}

/// The readable turns. An unreadable turn is a gap, and the conversation continues.
fn turns(items: Vec<ScanItem<Turn>>) -> Vec<Turn> {
    let mut turns = Vec::with_capacity(items.len());
    for item in items {
        match item.value {
            Some(Ok(turn)) => turns.push(turn),
            _ => println!("  (cannot read {})", item.key),
        }
    }
    turns
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
        let context = conversation.context(ctx).await?;

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
    // `cubbyhole::open`, with all layers if `CUBBYHOLE_KEY_FILE` is set.
    let store = cubbyhole_examples::open(&ctx, &url).await?;
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
    const EACH: usize = 10;
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
    let last = conversation.context(ctx).await?;
    let end = turns.iter().skip(turns.len() - last.len());
    assert_eq!(last.len(), CONTEXT_TURNS);
    assert!(last.iter().map(|turn| &turn.text).eq(end.map(|turn| &turn.text)));
    println!("Two writers appended to one conversation: {} turns, none lost", turns.len());
    Ok(())
}

async fn expire(ctx: &ExecutionContext, agent: &Agent) -> Result<()> {
    let conversation = agent.conversation("chat-2")?;
    let (store, ns) = (&conversation.store, &conversation.ns);
    let last = conversation.append(ctx, "maria", "I will be back.").await?;
    let expires_at = async || {
        let stats = store.stat(ctx, ns, &[last.as_str()]).await?;
        Ok::<_, Error>(stats.into_iter().flatten().find_map(|stat| stat.meta.expires_at))
    };
    // Simulate a conversation that was idle for 29 minutes: it expires in one minute.
    let touch = async |left: Duration| {
        let now = store.current_time(ctx, ns).await?;
        let expires_at = now.checked_add(left)?;
        let expiry = Expiry::IdleUntil { ttl: IDLE, expires_at };
        for key in store.list(ctx, ns, Some(TURNS)).await? {
            store.touch(ctx, ns, &key, expiry, Condition::Always).await?;
        }
        Ok::<_, Error>(())
    };
    touch(Duration::from_secs(60)).await?;
    let before = expires_at().await?;
    conversation.last(ctx, CONTEXT_TURNS).await?;
    assert_eq!(before, expires_at().await?, "looking at a conversation must not extend it");
    conversation.context(ctx).await?;
    assert!(before < expires_at().await?, "the agent's reading must extend it");
    println!("The agent's reading extends a conversation");

    // Simulate an idle conversation: let it expire.
    touch(Duration::from_millis(1)).await?;
    while expires_at().await?.is_some() {
        ctx.sleep(Duration::from_millis(1)).await?;
    }
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
