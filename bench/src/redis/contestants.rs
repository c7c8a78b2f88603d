//! The server, and what is measured on it: the store, the bare client, and the peer.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use ::redis::aio::MultiplexedConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::{AsyncConnectionConfig, Client, IntoConnectionInfo};
use cubbyhole::{Bytes, EntryStore, ExecutionContext, TypedExt};
use cubbyhole_redis::{DEFAULT_PREFIX, RedisConfig, RedisStore};
use cubbyhole_test_servers::RedisServer;
use entelix_memory::Store as _;
use entelix_persistence::redis::{RedisPersistence, RedisStore as PeerStore};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::Scale;
use crate::contestant::{Contestant as _, Ours};
use crate::data::{KEYS, NAMESPACES_OF_A_TENANT, Names, Place, VALUE_BYTES};
use crate::report::{self, Report};
use crate::{REDIS, Result, workloads};

/// Nothing is written to the disk, whose moods are not what is compared.
pub const SERVER: [&str; 2] = ["appendonly no", "save \"\""];
/// Of the store that takes new entries: as long as the default prefix.
const NEW_PREFIX: &str = "new-ours::";
/// Before the names that the bare client gives to new entries: as long as that.
const NEW_BARE_PREFIX: &str = "new-bare::";
/// How many calls load at a time.
const IN_FLIGHT: usize = 64;

/// The peer's store of JSON strings.
pub type Peer = Arc<PeerStore<String>>;

pub fn server() -> Result<RedisServer> {
    Ok(RedisServer::start_with(&SERVER)?)
}

/// A field of what the server tells of itself.
pub fn info(server: &RedisServer, section: &str, field: &str) -> Result<String> {
    let info = server.cli(&["INFO", section])?;
    let mut fields = info.lines().filter_map(|line| line.split_once(':'));
    let found = fields.find_map(|(name, value)| (name == field).then(|| value.trim().to_owned()));
    found.ok_or_else(|| format!("the server does not tell {field}").into())
}

/// A JSON string.
pub fn value() -> String {
    "v".repeat(VALUE_BYTES - "\"\"".len())
}

/// The same, encoded; nothing is copied.
pub fn encoded() -> Bytes {
    static ENCODED: LazyLock<Bytes> = LazyLock::new(|| format!("\"{}\"", value()).into());
    ENCODED.clone()
}

pub async fn open(url: &str, prefix: &str) -> Result<RedisStore> {
    let config = RedisConfig::from_url(url)?.with_prefix(prefix)?;
    Ok(RedisStore::open(&ExecutionContext::new(), config).await?)
}

/// As the store connects: at once written, and no timer for each answer.
pub async fn bare(url: &str) -> Result<MultiplexedConnection> {
    let settings = TcpSettings::default().set_nodelay(true);
    let client = Client::open(url.into_connection_info()?.set_tcp_settings(settings))?;
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

/// What stands before a key in the names of the values of each namespace.
pub fn stems(prefix: &str, names: &Names) -> Vec<String> {
    names.namespaces.iter().map(|ns| format!("{prefix}{{{}}}v", ns.as_str())).collect()
}

/// Those that are compared, over the same names.
pub struct Contestants {
    pub names: Arc<Names>,
    /// How many tenants single entries are read and written in.
    pub tenants: usize,
    pub store: Arc<Ours<RedisStore>>,
    pub ours: Arc<dyn EntryStore<Bytes>>,
    pub ours_typed: Arc<dyn EntryStore<String>>,
    /// A store that holds one entry in each of the first namespaces, and takes new ones.
    pub new: RedisStore,
    pub new_namespaces: usize,
    pub bare: MultiplexedConnection,
    /// What the store's own values are named.
    pub stems: Arc<Vec<String>>,
    pub new_stems: Arc<Vec<String>>,
    pub peer: Peer,
    pub peer_namespaces: Arc<Vec<entelix_memory::Namespace>>,
}

impl Contestants {
    pub fn load(
        runtime: &Runtime,
        server: &RedisServer,
        scale: &Scale,
        report: &mut Report,
    ) -> Result<Self> {
        let names = Arc::new(Names::of(scale.entries)?);
        let opened = runtime.block_on(open(server.url(), DEFAULT_PREFIX))?;
        let store = Arc::new(Ours::redis(Arc::clone(&names), opened.clone()));
        load(runtime, &store, report)?;
        let peer = RedisPersistence::builder().with_connection_string(server.url());
        let all = Self {
            tenants: scale.tenants,
            ours: Arc::new(opened.clone()),
            ours_typed: Arc::new(opened.typed()),
            store,
            new: runtime.block_on(open(server.url(), NEW_PREFIX))?,
            new_namespaces: scale.tenants * NAMESPACES_OF_A_TENANT,
            bare: runtime.block_on(bare(server.url()))?,
            stems: Arc::new(stems(DEFAULT_PREFIX, &names)),
            new_stems: Arc::new(stems(NEW_BARE_PREFIX, &names)),
            peer: Arc::new(runtime.block_on(peer.connect())?.store()),
            peer_namespaces: Arc::new((0..names.namespaces.len()).map(peer_namespace).collect()),
            names,
        };
        runtime.block_on(all.load_the_rest())?;
        Ok(all)
    }

    /// One of the places that both the store and the peer hold.
    pub fn place(&self) -> impl Fn(&mut fastrand::Rng) -> Place + Clone + Send + 'static {
        let (names, tenants) = (Arc::clone(&self.names), self.tenants);
        move |random| Place::random(random, &names, tenants)
    }

    /// The peer's entries, and the first entries of the store that takes new ones.
    async fn load_the_rest(&self) -> Result<()> {
        let start = Instant::now();
        let mut loading = JoinSet::new();
        for namespace in 0..self.tenants * NAMESPACES_OF_A_TENANT {
            let tenant = namespace / NAMESPACES_OF_A_TENANT;
            let apart = self.names.tenants.len() / self.tenants;
            let place =
                tenant * apart * NAMESPACES_OF_A_TENANT + namespace % NAMESPACES_OF_A_TENANT;
            let ns = self.peer_namespaces[place].clone();
            let (peer, names) = (Arc::clone(&self.peer), Arc::clone(&self.names));
            let new = self.new.clone();
            loading.spawn(async move {
                let ctx = ExecutionContext::new();
                let first: &dyn EntryStore<Bytes> = &new;
                first.put(&ctx, &names.namespaces[namespace], "first", encoded()).await?;
                let ctx = entelix_core::ExecutionContext::new();
                for key in &names.keys {
                    peer.put(&ctx, &ns, key, value()).await?;
                }
                Result::<()>::Ok(())
            });
            if loading.len() >= IN_FLIGHT
                && let Some(done) = loading.join_next().await
            {
                done??;
            }
        }
        while let Some(done) = loading.join_next().await {
            done??;
        }
        let (entries, seconds) =
            (self.tenants * NAMESPACES_OF_A_TENANT * KEYS, start.elapsed().as_secs_f64());
        println!("{}: {entries} entries loaded in {seconds:.1} s", super::listing::PEER);
        Ok(())
    }
}

pub fn load(runtime: &Runtime, store: &Arc<Ours<RedisStore>>, report: &mut Report) -> Result<()> {
    let seconds = workloads::load(runtime, store, |_| encoded())?.as_secs_f64();
    report.load(report::Load { store: REDIS, entries: store.names().entries(), seconds });
    Ok(())
}

/// As [`Names`] names it.
fn peer_namespace(namespace: usize) -> entelix_memory::Namespace {
    let tenant = format!("tenant-{:05}", namespace / NAMESPACES_OF_A_TENANT);
    entelix_memory::Namespace::new(entelix_core::TenantId::new(tenant))
        .with_scope(format!("agent-{}", namespace % NAMESPACES_OF_A_TENANT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_name_a_namespace_alike() {
        let names = Names::of(3000).unwrap();
        for (index, ns) in names.namespaces.iter().enumerate() {
            assert_eq!(peer_namespace(index).render(), ns.as_str());
        }
        assert_eq!(stems("p:", &names)[21], "p:{tenant-00002:agent-1}v");
        assert_eq!([NEW_PREFIX, NEW_BARE_PREFIX].map(str::len), [DEFAULT_PREFIX.len(); 2]);
        assert_eq!(serde_json::from_slice::<String>(&encoded()).unwrap(), value());
        assert_eq!(encoded().len(), VALUE_BYTES);
    }
}
