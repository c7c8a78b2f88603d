//! Sessions as a web framework wants them: an id in a cookie, data behind it, a sliding expiry, a new
//! id at sign-in, and an end for one session or for all that a user has.
//!
//! ```text
//! cargo run -p cubbyhole-examples --bin sessions -- redb:sessions.redb
//! ```
#![expect(
    clippy::print_stdout,
    clippy::disallowed_macros,
    reason = "it tells what it does on the terminal"
)]

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

/// A session that nobody loads for that long is gone.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// What stands in the cookie, `USER.SECRET`. The user is in it because a user's sessions stand
/// together, in a namespace of the user's own; use a number that tells strangers nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SessionId {
    user: u64,
    /// 122 bits from the system's random numbers: nobody guesses one.
    secret: Uuid,
}

impl SessionId {
    fn draw(user: u64) -> Self {
        Self { user, secret: Uuid::new_v4() }
    }

    /// Cookies come from anybody: one that this program never gave is as good as none.
    fn from_cookie(text: &str) -> Option<Self> {
        let (user, secret) = text.split_once('.')?;
        Some(Self { user: user.parse().ok()?, secret: secret.parse().ok()? })
    }

    /// The secret as a key.
    fn key(&self) -> String {
        self.secret.to_string()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.user, self.secret)
    }
}

/// What a program keeps in a session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Data {
    signed_in: bool,
    cart: Vec<String>,
}

/// A session as it was loaded.
struct Session {
    data: Data,
    /// Goes back to `save`, which writes only if nobody else did meanwhile.
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
        let id = SessionId::draw(user);
        let options = PutOptions::new().with_ttl(IDLE);
        // Never over another's session, should the random numbers ever repeat.
        let condition = Condition::IfAbsent;
        self.store
            .put_entry(ctx, &self.of_user(user)?, &id.key(), data, options, condition)
            .await?;
        Ok(id)
    }

    /// `None` if it expired, was destroyed or never was. Loading prolongs it, in the same step.
    async fn load(&self, ctx: &ExecutionContext, id: SessionId) -> Result<Option<Session>> {
        let sliding = GetOptions::new().with_extended_ttl(IDLE);
        let entry = self.store.get_entry(ctx, &self.of_user(id.user)?, &id.key(), sliding).await?;
        Ok(entry.map(|entry| Session { data: entry.value, version: entry.meta.version }))
    }

    /// Saves what was loaded and changed. `Conflict` if another request saved it meanwhile, and if it
    /// is gone: a session that was destroyed does not come back by a slow request.
    async fn save(
        &self,
        ctx: &ExecutionContext,
        id: SessionId,
        session: &mut Session,
    ) -> Result<()> {
        let ns = self.of_user(id.user)?;
        let options = PutOptions::new().with_ttl(IDLE);
        let condition = Condition::IfVersion(session.version);
        let data = session.data.clone();
        session.version =
            self.store.put_entry(ctx, &ns, &id.key(), data, options, condition).await?;
        Ok(())
    }

    /// Gives a session a new id, as must be done when its rights change: who knew the old one knows
    /// nothing. Both happen or neither does.
    async fn rotate(
        &self,
        ctx: &ExecutionContext,
        id: SessionId,
        session: &Session,
    ) -> Result<SessionId> {
        let new = SessionId::draw(id.user);
        let options = PutOptions::new().with_ttl(IDLE);
        let batch = Batch::new()
            .put_with(new.key(), session.data.clone(), options, Condition::IfAbsent)
            .delete_if(id.key(), Condition::IfVersion(session.version));
        self.store.write(ctx, &self.of_user(id.user)?, batch).await?;
        Ok(new)
    }

    /// Signing out; whether there was such a session.
    async fn destroy(&self, ctx: &ExecutionContext, id: SessionId) -> Result<bool> {
        let ns = self.of_user(id.user)?;
        self.store.delete_entry(ctx, &ns, &id.key(), Condition::Always).await
    }

    /// Signing out everywhere, as after a new password; how many sessions there were.
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
    let store = cubbyhole::open(&ctx, &url).await?;
    let ns = Namespace::from_parts("acme", ["sessions"])?;
    let sessions = Sessions { store: store.clone().typed(), ns };
    for user in [MARIA, JOHN] {
        // What an earlier run left.
        sessions.destroy_all(&ctx, user).await?;
    }

    let id = two_requests(&ctx, &sessions).await?;
    let id = sign_in(&ctx, &sessions, id).await?;
    expire(&ctx, &sessions, id).await?;
    sign_out(&ctx, &sessions).await?;
    store.close(&ctx).await?;
    Ok(())
}

async fn two_requests(ctx: &ExecutionContext, sessions: &Sessions) -> Result<SessionId> {
    let id = sessions.create(ctx, MARIA, Data::default()).await?;
    assert_eq!(SessionId::from_cookie(&id.to_string()), Some(id));
    let strange = ["", "7", "7.", ".x", "../../etc", "7.not-a-uuid"];
    assert!(strange.iter().all(|cookie| SessionId::from_cookie(cookie).is_none()));
    println!("user {MARIA} has a session");

    let mut first = load(ctx, sessions, id).await?;
    let mut second = load(ctx, sessions, id).await?;
    first.data.cart.push("book".to_owned());
    sessions.save(ctx, id, &mut first).await?;
    second.data.cart.push("lamp".to_owned());
    let lost = sessions.save(ctx, id, &mut second).await.map_err(|error| error.kind());
    assert_eq!(lost, Err(ErrorKind::Conflict), "nobody's change is overwritten unseen");
    // What a request does then: it loads again, and makes its change to what is there now.
    let mut second = load(ctx, sessions, id).await?;
    second.data.cart.push("lamp".to_owned());
    sessions.save(ctx, id, &mut second).await?;
    println!("two requests at once: the cart holds {}", second.data.cart.join(" and "));
    Ok(id)
}

async fn sign_in(ctx: &ExecutionContext, sessions: &Sessions, old: SessionId) -> Result<SessionId> {
    let mut session = load(ctx, sessions, old).await?;
    session.data.signed_in = true;
    let new = sessions.rotate(ctx, old, &session).await?;
    assert!(sessions.load(ctx, old).await?.is_none(), "the old id opens nothing");
    let moved = load(ctx, sessions, new).await?;
    assert_eq!(moved.data, session.data);
    let again = sessions.rotate(ctx, old, &session).await.map_err(|error| error.kind());
    assert_eq!(again, Err(ErrorKind::Conflict), "a session has one new id");
    println!("signed in: the session has a new id and still {} things", moved.data.cart.len());
    Ok(new)
}

async fn expire(ctx: &ExecutionContext, sessions: &Sessions, id: SessionId) -> Result<()> {
    let ns = sessions.of_user(id.user)?;
    let plain = async || {
        let entry = sessions.store.get_entry(ctx, &ns, &id.key(), GetOptions::new()).await?;
        Ok::<_, cubbyhole::Error>(entry.map(|entry| entry.meta))
    };
    // As if nobody had loaded it for all but a minute of the time.
    let minute = Expiry::After(Duration::from_secs(60));
    sessions.store.touch(ctx, &ns, &id.key(), minute).await?;
    let before = plain().await?.and_then(|meta| meta.expires_at);
    let mut session = load(ctx, sessions, id).await?;
    let after = plain().await?.and_then(|meta| meta.expires_at);
    assert!(before < after, "loading prolongs");

    // As if nobody had loaded it for all of it. A plain read does not prolong.
    sessions.store.touch(ctx, &ns, &id.key(), Expiry::After(Duration::from_millis(1))).await?;
    while plain().await?.is_some() {
        ctx.sleep(Duration::from_millis(1)).await?;
    }
    assert!(sessions.load(ctx, id).await?.is_none());
    let late = sessions.save(ctx, id, &mut session).await.map_err(|error| error.kind());
    assert_eq!(late, Err(ErrorKind::Conflict), "what expired does not come back");
    println!("nobody loaded it for {} minutes: it is gone", IDLE.as_secs() / 60);
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
    assert!(sessions.load(ctx, johns).await?.is_some(), "and nobody else's");
    println!("signed out everywhere: {ended} sessions of user {MARIA} ended, user {JOHN} has one");
    Ok(())
}

/// A session that must be there.
async fn load(ctx: &ExecutionContext, sessions: &Sessions, id: SessionId) -> Result<Session> {
    let missing = || cubbyhole::Error::new(ErrorKind::Conflict, "the session is gone: sign in");
    sessions.load(ctx, id).await?.ok_or_else(missing)
}
