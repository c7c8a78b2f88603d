//! [`CubbyholeMemory`]: rig's trait over a store.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole_core::limits::MAX_BATCH_OPERATIONS;
use cubbyhole_core::{
    Bytes, Condition, EntryStore, EntryStoreExt, ExecutionContext, Expiry, JsonCodec, Namespace,
    NamespacePrefix, PutOptions, Result, ScanItem, ScanOptions, Typed, TypedExt,
};
use rig_core::completion::Message;
use rig_core::id::ConversationId;
use rig_core::memory::{ConversationMemory, MemoryError};
use rig_core::message::UserContent;

/// The default time limit of a call: 10 s.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The start of the key of a message. A number of 20 digits follows.
const MESSAGE: &str = "message-";
/// The key of the first message of a conversation.
const FIRST: &str = "message-00000000000000000000";

/// A [`ConversationMemory`] over any [`EntryStore`] of bytes.
///
/// The crate's documentation says where conversations are stored.
///
/// ```
/// use std::time::Duration;
///
/// use cubbyhole::{ExecutionContext, Namespace};
/// use cubbyhole_rig::CubbyholeMemory;
/// use rig_core::completion::Message;
/// use rig_core::memory::ConversationMemory;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = cubbyhole::open(&ExecutionContext::new(), "memory:").await?;
/// let month = Duration::from_secs(30 * 24 * 3600);
/// let memory = CubbyholeMemory::new(store, Namespace::parse("acme:agent-7")?)
///     .with_last_messages(50)
///     .with_idle_ttl(month);
/// memory.append(&"thread-1".into(), vec![Message::user("Hello")]).await?;
/// assert_eq!(memory.load(&"thread-1".into()).await?, [Message::user("Hello")]);
/// memory.clear(&"thread-1".into()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct CubbyholeMemory<S> {
    store: Arc<Typed<Message, JsonCodec, S>>,
    ns: Namespace,
    last: Option<usize>,
    idle_ttl: Option<Duration>,
    timeout: Duration,
}

impl<S: EntryStore<Bytes>> CubbyholeMemory<S> {
    /// Creates a memory whose conversations are below `ns`. Nothing else should be stored there.
    #[must_use]
    pub fn new(store: S, ns: Namespace) -> Self {
        Self {
            store: Arc::new(store.typed()),
            ns,
            last: None,
            idle_ttl: None,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// Loads only the last `n` messages of a conversation. The call reads `n` entries, however long the
    /// conversation is. Older messages stay stored.
    ///
    /// A history that starts in the middle must not start with an answer or with the result of a
    /// tool: model providers refuse it. Such messages at its start are left out.
    #[must_use]
    pub fn with_last_messages(mut self, n: usize) -> Self {
        self.last = Some(n);
        self
    }

    /// Messages expire this long after they were last appended or loaded. A message that
    /// [`with_last_messages`](Self::with_last_messages) leaves out expires, even if the conversation
    /// continues.
    ///
    /// A load extends a message only if a tenth of the TTL has passed since its last extension. The
    /// messages of a conversation may therefore expire at different times within the last tenth, the
    /// oldest first.
    #[must_use]
    pub fn with_idle_ttl(mut self, ttl: Duration) -> Self {
        self.idle_ttl = Some(ttl);
        self
    }

    /// Sets the time limit of a call, instead of [`DEFAULT_TIMEOUT`].
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn ctx(&self) -> ExecutionContext {
        ExecutionContext::new().with_timeout(self.timeout)
    }

    fn ns_of(&self, conversation: &ConversationId) -> Result<Namespace> {
        self.ns.clone().with_scope(conversation.as_str())
    }

    async fn load_messages(&self, conversation: &ConversationId) -> Result<Vec<Message>> {
        let (ctx, ns) = (self.ctx(), self.ns_of(conversation)?);
        let mut options = ScanOptions::new().with_prefix(MESSAGE);
        if self.idle_ttl.is_some() {
            options = options.refreshing();
        }
        // The newest message comes first: a limit leaves out the oldest.
        options = options.reversed();
        let mut items: Vec<ScanItem<Message>> = Vec::new();
        let last = self.last.unwrap_or(usize::MAX);
        while items.len() < last {
            let limit = (last - items.len()).min(cubbyhole_core::limits::MAX_PAGE_ITEMS);
            let page = self.store.scan(&ctx, &ns, options.clone().with_limit(limit)).await?;
            items.extend(page.items);
            match page.next {
                Some(next) => options = options.with_after(next),
                None => break,
            }
        }
        items.reverse();
        self.keep_the_newest_longest(&ctx, &ns, &items).await?;
        let is_complete = items.first().is_some_and(|item| item.key == FIRST);
        let entries = items.into_iter().filter_map(ScanItem::into_entry);
        let messages: Vec<Message> =
            entries.map(|entry| entry.map(|entry| entry.value)).collect::<Result<_>>()?;
        let start = match is_complete {
            true => 0,
            false => messages.iter().position(can_start_a_history).unwrap_or(messages.len()),
        };
        Ok(messages.into_iter().skip(start).collect())
    }

    /// Extends the messages that expire before an older one. A load extends old messages, and not those
    /// that were appended a moment ago.
    async fn keep_the_newest_longest(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        items: &[ScanItem<Message>],
    ) -> Result<()> {
        let Some(ttl) = self.idle_ttl else { return Ok(()) };
        let mut latest = None;
        for item in items {
            if item.meta.expires_at < latest {
                self.store.touch(ctx, ns, &item.key, Expiry::Idle(ttl), Condition::Always).await?;
            }
            latest = latest.max(item.meta.expires_at);
        }
        Ok(())
    }

    async fn append_messages(
        &self,
        conversation: &ConversationId,
        messages: Vec<Message>,
    ) -> Result<()> {
        let (ctx, ns) = (self.ctx(), self.ns_of(conversation)?);
        let expiry = self.idle_ttl.map_or(Expiry::Never, Expiry::Idle);
        let options = PutOptions::new().with_expiry(expiry);
        for batch in messages.chunks(MAX_BATCH_OPERATIONS) {
            self.store.append(&ctx, &ns, MESSAGE, batch.to_vec(), options).await?;
        }
        Ok(())
    }
}

/// Returns whether model providers accept a history that starts with this message.
fn can_start_a_history(message: &Message) -> bool {
    match message {
        Message::System { .. } => true,
        Message::User { content } => {
            !content.iter().any(|part| matches!(part, UserContent::ToolResult(_)))
        }
        Message::Assistant(_) => false,
    }
}

type MemoryFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, MemoryError>> + Send + 'a>>;

/// Calls outside a tokio runtime with timers return an error.
impl<S: EntryStore<Bytes>> ConversationMemory for CubbyholeMemory<S> {
    fn load<'a>(&'a self, conversation: &'a ConversationId) -> MemoryFuture<'a, Vec<Message>> {
        Box::pin(async { self.load_messages(conversation).await.map_err(MemoryError::backend) })
    }

    /// Appends the messages in batches of 1,000. Each batch is atomic.
    fn append<'a>(
        &'a self,
        conversation: &'a ConversationId,
        messages: Vec<Message>,
    ) -> MemoryFuture<'a, ()> {
        Box::pin(async {
            self.append_messages(conversation, messages).await.map_err(MemoryError::backend)
        })
    }

    fn clear<'a>(&'a self, conversation: &'a ConversationId) -> MemoryFuture<'a, ()> {
        Box::pin(async {
            let ns = self.ns_of(conversation).map_err(MemoryError::backend)?;
            let erased = self.store.erase_all(&self.ctx(), &NamespacePrefix::from(ns)).await;
            erased.map(drop).map_err(MemoryError::backend)
        })
    }
}

impl<S> Clone for CubbyholeMemory<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            ns: self.ns.clone(),
            last: self.last,
            idle_ttl: self.idle_ttl,
            timeout: self.timeout,
        }
    }
}
