//! Many tenants in one process. Each has a handle that reaches nothing else, its own encryption key, a
//! quota of calls and a default TTL. One tenant is erased by destroying its key.
//!
//! ```text
//! cargo run -p cubbyhole-examples --bin tenants -- redb:tenants.redb tenants.keys
//! ```
//!
//! The second argument is the key file, else `CUBBYHOLE_KEY_FILE`. A missing file is created. Keep it
//! apart from the store and its backups: anyone with both can read the data.
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "the example prints its steps")]

use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::layers::{
    Encrypted, KeyFile, Layers, Limits, RetryOptions, Scoped, Timeouts, TtlRule,
};
use cubbyhole::{
    Backend, Bytes, EntryStore, EntryStoreExt, Error, ErrorKind, ExecutionContext, GetOptions,
    JsonCodec, Namespace, NamespacePrefix, Result, Store, TenantId, Typed, TypedExt,
};
use uuid::Uuid;

/// The TTL of entries for which the program sets none.
const DEFAULT_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The quota of each tenant in this process: calls per second, and calls in a burst after a pause.
const RATE: u32 = 5;
const BURST: u32 = 40;

/// One opened backend, shared by all tenants.
struct Database {
    /// The backend without layers, as a database administrator sees it.
    backend: Arc<dyn Backend>,
    /// The encryption layer, for operations on keys. `store` uses a clone, which shares its keys.
    encrypted: Encrypted<Arc<dyn Backend>>,
    /// The backend with all layers. Tenants use only this one.
    store: Arc<dyn Backend>,
}

impl Database {
    async fn open(ctx: &ExecutionContext, url: &str, key_file: &Path) -> Result<Self> {
        let keys =
            if key_file.exists() { KeyFile::open(key_file) } else { KeyFile::create(key_file) };
        let keys = Arc::new(keys?);
        let backend = cubbyhole::open(ctx, url).await?;
        // The data keys of the tenants are in the same store, wrapped with a key of the file. A backup
        // from before an erasure contains the erased key too. `KeyStore::apart` prevents that.
        let encrypted = Encrypted::new(backend.clone(), keys);
        // No cache: it would serve an erased tenant's values for up to its `max_stale`.
        let layers = Layers::new()
            .with_limits(Limits::new().with_rate(RATE, Some(BURST)).with_concurrency(8))
            .with_ttl_rule(TtlRule::new().with_default(DEFAULT_TTL).with_max(12 * DEFAULT_TTL))
            .with_timeouts(
                Timeouts::new()
                    .with_read(Duration::from_secs(5))
                    .with_write(Duration::from_secs(5))
                    .with_walk(Duration::from_secs(30)),
            )
            .with_retry(RetryOptions::new());
        let store = layers.around(Arc::new(encrypted.clone()))?;
        Ok(Self { backend, encrypted, store })
    }

    fn tenant(&self, name: &str) -> Result<Tenant> {
        let id = TenantId::new(name)?;
        let scope = NamespacePrefix::from(id.clone());
        // Quotas and data keys belong to the tenant, so any number of handles share them.
        let store = Scoped::relative(self.store.clone(), scope).typed();
        Ok(Tenant { id, store, notes: Namespace::parse("notes")? })
    }

    /// Destroys the tenant's key and returns the number of keys. This process cannot read the tenant's
    /// values from now on. Other processes can use a cached key for 60 s.
    async fn erase(&self, ctx: &ExecutionContext, tenant: &Tenant) -> Result<usize> {
        Ok(self.encrypted.shred(ctx, &tenant.id).await?.data_keys)
    }

    /// Returns a stored value as the backend has it.
    async fn stored(&self, ctx: &ExecutionContext, tenant: &Tenant, key: &str) -> Result<Bytes> {
        let ns = Namespace::new(tenant.id.clone()).with_scope("notes")?;
        let value = self.backend.get(ctx, &ns, key).await?;
        value.ok_or_else(|| Error::internal("the backend has no such entry"))
    }
}

/// A tenant's handle. Its names are relative to the tenant, so none can name another tenant's entry.
struct Tenant {
    id: TenantId,
    store: Typed<String, JsonCodec, Scoped<Arc<dyn Backend>>>,
    notes: Namespace,
}

impl Tenant {
    async fn write(&self, ctx: &ExecutionContext, key: &str, text: &str) -> Result<()> {
        self.store.put(ctx, &self.notes, key, text.to_owned()).await
    }

    async fn read(&self, ctx: &ExecutionContext, key: &str) -> Result<Option<String>> {
        self.store.get(ctx, &self.notes, key).await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().or_else(|| std::env::var("CUBBYHOLE_STORE").ok());
    let key_file = arguments.next().or_else(|| std::env::var("CUBBYHOLE_KEY_FILE").ok());
    let url = url.unwrap_or_else(|| "redb:tenants.redb".to_owned());
    let key_file = key_file.unwrap_or_else(|| "tenants.keys".to_owned());
    // Without a deadline: the timeouts of the layers apply to each call.
    let ctx = ExecutionContext::new();
    let opening = ctx.child().with_timeout(Duration::from_secs(30));
    let database = Database::open(&opening, &url, Path::new(&key_file)).await?;

    let (acme, globex) = (database.tenant("acme")?, database.tenant("globex")?);
    // An erased tenant stays erased, so each run has a new one.
    let trial = database.tenant(&format!("trial-{}", Uuid::new_v4()))?;
    for tenant in [&acme, &globex, &trial] {
        // Remove the notes of an earlier run.
        tenant.store.erase_all(&ctx, &NamespacePrefix::from(&tenant.notes)).await?;
        tenant.write(&ctx, "plan", &format!("the secret plan of {}", tenant.id)).await?;
    }
    println!("three tenants wrote a note under the same name");

    stay_inside(&ctx, &acme).await?;
    expire(&ctx, &acme).await?;
    encrypt(&ctx, &database, &acme).await?;
    exceed_quota(&ctx, &globex, &acme).await?;
    erase(&ctx, &database, &trial, [&acme, &globex]).await?;
    database.store.close(&ctx).await?;
    Ok(())
}

async fn stay_inside(ctx: &ExecutionContext, acme: &Tenant) -> Result<()> {
    let read = acme.read(ctx, "plan").await?;
    assert_eq!(read.as_deref(), Some("the secret plan of acme"));
    // Relative to the tenant, this is the namespace `acme:globex:notes`.
    let other = Namespace::parse("globex:notes")?;
    assert_eq!(acme.store.get(ctx, &other, "plan").await?, None);
    let tenants = acme.store.scan_tenants(ctx, None, 10).await.map_err(|error| error.kind());
    assert_eq!(tenants.err(), Some(ErrorKind::PermissionDenied));
    println!("acme reads its own note and reaches no other tenant");
    Ok(())
}

async fn expire(ctx: &ExecutionContext, acme: &Tenant) -> Result<()> {
    let entry = acme.store.get_entry(ctx, &acme.notes, "plan", GetOptions::new()).await?;
    let expires_at = entry.as_ref().and_then(|entry| entry.meta.expires_at);
    let (Some(entry), Some(expires_at)) = (entry, expires_at) else {
        return Err(Error::internal("the default TTL is missing"));
    };
    let ttl = expires_at.saturating_since(entry.meta.updated_at);
    assert_eq!(ttl, DEFAULT_TTL);
    println!("the note expires in {} days, although no TTL was set", ttl.as_secs() / 86_400);
    Ok(())
}

async fn encrypt(ctx: &ExecutionContext, database: &Database, acme: &Tenant) -> Result<()> {
    let stored = database.stored(ctx, acme, "plan").await?;
    assert!(!stored.windows(6).any(|part| part == b"secret"), "a value must be encrypted");
    println!("the backend has {} encrypted bytes", stored.len());
    Ok(())
}

/// `busy` calls until its quota is used up. `other` has its own quota.
async fn exceed_quota(ctx: &ExecutionContext, busy: &Tenant, other: &Tenant) -> Result<()> {
    let minute = ctx.child().with_timeout(Duration::from_secs(60));
    let refused = loop {
        if let Err(error) = busy.read(&minute, "plan").await {
            break error;
        }
    };
    println!("{} used up its quota: {refused}", busy.id);
    assert_eq!(refused.kind(), ErrorKind::RateLimited);
    assert!(refused.retry_after().is_some());

    other.write(ctx, "idea", "not delayed by a busy neighbour").await?;
    println!("{} goes on meanwhile", other.id);
    patiently(ctx, async || busy.write(ctx, "idea", "written after a pause").await).await?;
    println!("{} goes on after a pause", busy.id);
    Ok(())
}

/// Repeats a call that exceeds the quota, after the pause in the error. A service instead responds with
/// status 429 and the pause as the header `Retry-After`.
async fn patiently<T>(ctx: &ExecutionContext, call: impl AsyncFn() -> Result<T>) -> Result<T> {
    loop {
        match call().await {
            Err(error) if error.kind() == ErrorKind::RateLimited => {
                ctx.sleep(error.retry_after().unwrap_or(Duration::from_millis(10))).await?;
            }
            result => return result,
        }
    }
}

async fn erase(
    ctx: &ExecutionContext,
    database: &Database,
    trial: &Tenant,
    others: [&Tenant; 2],
) -> Result<()> {
    let destroyed = database.erase(ctx, trial).await?;
    assert_eq!(destroyed, 1, "a tenant must have its own key");
    let read = trial.read(ctx, "plan").await.map_err(|error| error.kind());
    assert_eq!(read, Err(ErrorKind::Corrupt), "a value without its key must be unreadable");
    let write = trial.write(ctx, "plan", "again").await.map_err(|error| error.kind());
    assert_eq!(write, Err(ErrorKind::PermissionDenied), "an erased tenant must stay erased");
    // The encrypted bytes are stored until they expire or are erased.
    let left = database.stored(ctx, trial, "plan").await?.len();
    println!("{} was erased: no key decrypts the {left} bytes of its note", trial.id);

    for other in others {
        let plan = patiently(ctx, async || other.read(ctx, "plan").await).await?;
        assert_eq!(plan, Some(format!("the secret plan of {}", other.id)));
        println!("{} still reads its note", other.id);
    }
    Ok(())
}
