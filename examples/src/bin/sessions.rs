//! A session store for a web service: a session id in a cookie, session data in the store, an idle
//! TTL, a new id at sign-in, and sign-out of one session or of all sessions of a user.
//!
//! ```text
//! cargo run -p cubbyhole-examples --bin sessions -- redb:sessions.redb
//! ```
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "the example prints its steps")]

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{
    Backend, Batch, Condition, EntryStore, EntryStoreExt, ErrorKind, ExecutionContext, Expiry,
    GetOptions, JsonCodec, Namespace, NamespacePrefix, PutOptions, Result, Typed, TypedExt,
    Version,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A session expires when no request has loaded it for this long.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// The text of the cookie, `USER.SECRET`. It contains the user because each user's sessions have
/// their own namespace. Use a user number that is meaningless to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SessionId {
    user: u64,
    /// 122 random bits from the operating system, so the secret cannot be guessed.
    secret: Uuid,
}

impl SessionId {
    fn generate(user: u64) -> Self {
        Self { user, secret: Uuid::new_v4() }
    }

    /// Parses a cookie. Clients can send any text; text in another format is treated as no cookie.
    fn from_cookie(text: &str) -> Option<Self> {
        let (user, secret) = text.split_once('.')?;
        Some(Self { user: user.parse().ok()?, secret: secret.parse().ok()? })
    }

    fn key(&self) -> String {
        self.secret.to_string()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.user, self.secret)
    }
}

/// The data of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Data {
    signed_in: bool,
    cart: Vec<String>,
}

/// A loaded session.
struct Session {
    data: Data,
    /// The version that `load` returned. `save` writes only if it is still the stored version.
    version: Version,
}

struct Sessions {
    store: Typed<Data, JsonCodec, Arc<dyn Backend>>,
    ns: Namespace,
}

impl Sessions {
    fn of_user(&self, user: u64) -> Result<Namespace> {
        self.ns.clone().with_scope(user.to_string())
    }

    async fn create(&self, ctx: &ExecutionContext, user: u64, data: Data) -> Result<SessionId> {
        let id = SessionId::generate(user);
        let options = PutOptions::new().with_idle_ttl(IDLE);
        // A repeated random number must not overwrite another session.
        let condition = Condition::IfAbsent;
        self.store
            .put_entry(ctx, &self.of_user(user)?, &id.key(), data, options, condition)
            .await?;
        Ok(id)
    }

    /// Loads a session and restarts its idle TTL, in one step. Returns `None` if the session has
    /// expired, was destroyed or never existed.
    async fn load(&self, ctx: &ExecutionContext, id: SessionId) -> Result<Option<Session>> {
        let refreshing = GetOptions::new().refreshing();
        let ns = self.of_user(id.user)?;
        let entry = self.store.get_entry(ctx, &ns, &id.key(), refreshing).await?;
        Ok(entry.map(|entry| Session { data: entry.value, version: entry.meta.version }))
    }

    /// Saves a changed session. Fails with `Conflict` if another request has saved or destroyed the
    /// session since it was loaded. A slow request therefore cannot recreate a destroyed session.
    async fn save(
        &self,
        ctx: &ExecutionContext,
        id: SessionId,
        session: &mut Session,
    ) -> Result<()> {
        let ns = self.of_user(id.user)?;
        let options = PutOptions::new().with_idle_ttl(IDLE);
        let condition = Condition::IfVersion(session.version);
        let data = session.data.clone();
        session.version =
            self.store.put_entry(ctx, &ns, &id.key(), data, options, condition).await?;
        Ok(())
    }

    /// Moves a session to a new id. This is required when its rights change: a stolen old id must
    /// not become a signed-in session. The batch creates the new entry and deletes the old one
    /// atomically.
    async fn rotate(
        &self,
        ctx: &ExecutionContext,
        id: SessionId,
        session: &Session,
    ) -> Result<SessionId> {
        let new = SessionId::generate(id.user);
        let options = PutOptions::new().with_idle_ttl(IDLE);
        let batch = Batch::new()
            .put_with(new.key(), session.data.clone(), options, Condition::IfAbsent)
            .delete_if(id.key(), Condition::IfVersion(session.version));
        self.store.write(ctx, &self.of_user(id.user)?, batch).await?;
        Ok(new)
    }

    /// Signs out. Returns whether the session existed.
    async fn destroy(&self, ctx: &ExecutionContext, id: SessionId) -> Result<bool> {
        let ns = self.of_user(id.user)?;
        self.store.delete_entry(ctx, &ns, &id.key(), Condition::Always).await
    }

    /// Signs out everywhere, for example after a password change. Returns the number of sessions.
    async fn destroy_all(&self, ctx: &ExecutionContext, user: u64) -> Result<u64> {
        self.store.erase_all(ctx, &NamespacePrefix::from(self.of_user(user)?)).await
    }
}

const MARIA: u64 = 7;
const JOHN: u64 = 8;

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn StdError>> {
    let url = std::env::args().nth(1).or_else(|| std::env::var("CUBBYHOLE_STORE").ok());
    let url = url.unwrap_or_else(|| "redb:sessions.redb".to_owned());
    let ctx = ExecutionContext::new().with_timeout(Duration::from_secs(60));
    // `cubbyhole::open`, with all layers if `CUBBYHOLE_KEY_FILE` is set.
    let store = cubbyhole_examples::open(&ctx, &url).await?;
    let ns = Namespace::from_parts("acme", ["sessions"])?;
    let sessions = Sessions { store: store.clone().typed(), ns };
    for user in [MARIA, JOHN] {
        // Remove the sessions of an earlier run.
        sessions.destroy_all(&ctx, user).await?;
    }

    let id = save_concurrently(&ctx, &sessions).await?;
    let id = sign_in(&ctx, &sessions, id).await?;
    expire(&ctx, &sessions, id).await?;
    sign_out(&ctx, &sessions).await?;
    store.close(&ctx).await?;
    Ok(())
}

async fn save_concurrently(ctx: &ExecutionContext, sessions: &Sessions) -> Result<SessionId> {
    let id = sessions.create(ctx, MARIA, Data::default()).await?;
    assert_eq!(SessionId::from_cookie(&id.to_string()), Some(id));
    let malformed = ["", "7", "7.", ".x", "../../etc", "7.not-a-uuid"];
    assert!(malformed.iter().all(|cookie| SessionId::from_cookie(cookie).is_none()));
    println!("user {MARIA} has a session");

    let mut first = load(ctx, sessions, id).await?;
    let mut second = load(ctx, sessions, id).await?;
    first.data.cart.push("book".to_owned());
    sessions.save(ctx, id, &mut first).await?;
    second.data.cart.push("lamp".to_owned());
    let stale = sessions.save(ctx, id, &mut second).await.map_err(|error| error.kind());
    assert_eq!(stale, Err(ErrorKind::Conflict), "a stale save must not overwrite a newer one");
    // After a conflict, a request loads the session again and repeats its change.
    let mut second = load(ctx, sessions, id).await?;
    second.data.cart.push("lamp".to_owned());
    sessions.save(ctx, id, &mut second).await?;
    println!("two concurrent requests: the cart contains {}", second.data.cart.join(" and "));
    Ok(id)
}

async fn sign_in(ctx: &ExecutionContext, sessions: &Sessions, old: SessionId) -> Result<SessionId> {
    let mut session = load(ctx, sessions, old).await?;
    session.data.signed_in = true;
    let new = sessions.rotate(ctx, old, &session).await?;
    assert!(sessions.load(ctx, old).await?.is_none(), "the old id must be invalid");
    let moved = load(ctx, sessions, new).await?;
    assert_eq!(moved.data, session.data);
    let again = sessions.rotate(ctx, old, &session).await.map_err(|error| error.kind());
    assert_eq!(again, Err(ErrorKind::Conflict), "a session must get only one new id");
    println!("signed in: the session has a new id and still {} items", moved.data.cart.len());
    Ok(new)
}

async fn expire(ctx: &ExecutionContext, sessions: &Sessions, id: SessionId) -> Result<()> {
    let ns = sessions.of_user(id.user)?;
    let meta = async || {
        let entry = sessions.store.get_entry(ctx, &ns, &id.key(), GetOptions::new()).await?;
        Ok::<_, cubbyhole::Error>(entry.map(|entry| entry.meta))
    };
    // Simulate a session that was idle for 29 minutes: it expires in one minute.
    let touch = async |left: Duration| {
        let expires_at = sessions.store.current_time(ctx, &ns).await?.checked_add(left)?;
        let expiry = Expiry::IdleUntil { ttl: IDLE, expires_at };
        sessions.store.touch(ctx, &ns, &id.key(), expiry, Condition::IfPresent).await
    };
    touch(Duration::from_secs(60)).await?;
    let before = meta().await?.and_then(|meta| meta.expires_at);
    let mut session = load(ctx, sessions, id).await?;
    let after = meta().await?.and_then(|meta| meta.expires_at);
    assert!(before < after, "loading must extend the TTL");

    // Simulate an idle session: let it expire. `get_entry` without options does not refresh.
    touch(Duration::from_millis(1)).await?;
    while meta().await?.is_some() {
        ctx.sleep(Duration::from_millis(1)).await?;
    }
    assert!(sessions.load(ctx, id).await?.is_none());
    let late = sessions.save(ctx, id, &mut session).await.map_err(|error| error.kind());
    assert_eq!(late, Err(ErrorKind::Conflict), "a save must not recreate an expired session");
    println!("the session expired after {} idle minutes", IDLE.as_secs() / 60);
    Ok(())
}

async fn sign_out(ctx: &ExecutionContext, sessions: &Sessions) -> Result<()> {
    let johns = sessions.create(ctx, JOHN, Data::default()).await?;
    let id = sessions.create(ctx, MARIA, Data::default()).await?;
    assert!(sessions.destroy(ctx, id).await?);
    assert!(!sessions.destroy(ctx, id).await?);

    for _ in 0..3 {
        sessions.create(ctx, MARIA, Data::default()).await?;
    }
    let ended = sessions.destroy_all(ctx, MARIA).await?;
    assert_eq!(ended, 3);
    assert!(sessions.load(ctx, johns).await?.is_some(), "sessions of other users must remain");
    println!(
        "signed out everywhere: {ended} sessions of user {MARIA} ended, user {JOHN} still has one"
    );
    Ok(())
}

/// Loads a session and fails if it does not exist.
async fn load(ctx: &ExecutionContext, sessions: &Sessions, id: SessionId) -> Result<Session> {
    let missing =
        || cubbyhole::Error::new(ErrorKind::Conflict, "the session has expired: sign in again");
    sessions.load(ctx, id).await?.ok_or_else(missing)
}
