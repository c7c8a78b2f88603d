//! The conformance suite on servers as they are, with the system's clock and replicas: those that
//! `CUBBYHOLE_TEST_REDIS_URL` and `CUBBYHOLE_TEST_REDIS_CLUSTER_URL` name, or private ones.
//!
//! Expiry is waited for here, and what is exact to the millisecond is ignored: `conformance.rs` has
//! all of it, on a clock that stands still.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cubbyhole_conformance::libtest_mimic::{Arguments, run};
use cubbyhole_conformance::{Capabilities, Harness, Suite};
use cubbyhole_core::{
    Bytes, EntryStore, EntryStoreExt, ExecutionContext, NamespacePrefix, Result, Store, async_trait,
};
use cubbyhole_redis::{Config, RedisStore};
use cubbyhole_testkit::{RedisCluster, RedisServer};

static SINGLE: OnceLock<RedisServer> = OnceLock::new();
static CLUSTER: OnceLock<RedisCluster> = OnceLock::new();
static STORES: AtomicU32 = AtomicU32::new(0);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Single,
    Cluster,
}

impl Kind {
    #[expect(clippy::expect_used, reason = "without servers the cases cannot begin")]
    fn url(self) -> String {
        let variable = match self {
            Self::Single => "CUBBYHOLE_TEST_REDIS_URL",
            Self::Cluster => "CUBBYHOLE_TEST_REDIS_CLUSTER_URL",
        };
        std::env::var(variable).unwrap_or_else(|_| match self {
            Self::Single => {
                SINGLE.get_or_init(|| RedisServer::start().expect("a server")).url().to_owned()
            }
            Self::Cluster => CLUSTER
                .get_or_init(|| RedisCluster::start_patient().expect("a cluster"))
                .url()
                .to_owned(),
        })
    }

    /// Each store has a prefix of its own.
    async fn open(self, number: u32) -> Result<RedisStore> {
        let config = Config::from_url(&self.url())?;
        let config = config.with_prefix(format!("suite{}-{number}:", std::process::id()))?;
        RedisStore::open(&ExecutionContext::new(), config).await
    }
}

struct Real(Kind);

#[async_trait]
impl Harness for Real {
    type Value = Bytes;

    #[expect(clippy::expect_used, reason = "without a store the case cannot begin")]
    async fn store(&self) -> Arc<dyn EntryStore<Bytes>> {
        let number = STORES.fetch_add(1, Ordering::Relaxed);
        Arc::new(self.0.open(number).await.expect("a store"))
    }

    async fn advance(&self, duration: Duration) {
        let slept = ExecutionContext::new().sleep(duration).await;
        assert!(slept.is_ok(), "a context that never ends has ended");
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().with_real_time(Duration::from_millis(250))
    }
}

/// Leaves nothing on servers that may be the developer's own, but fences that expire.
fn clean(kind: Kind) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else {
        return Ok(());
    };
    runtime.block_on(async {
        let ctx = ExecutionContext::new();
        for number in 0..STORES.load(Ordering::Relaxed) {
            let store = kind.open(number).await?;
            let mut after = None;
            loop {
                let page = store.scan_tenants(&ctx, after.as_ref(), 1000).await?;
                for tenant in page.items {
                    store.erase_all(&ctx, &NamespacePrefix::from(tenant)).await?;
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            store.evict_expired(&ctx).await?;
        }
        Ok(())
    })
}

fn main() -> std::io::Result<ExitCode> {
    let arguments = Arguments::from_args();
    let mut trials = Suite::new(|| Real(Kind::Single))?.with_prefix("single").trials();
    trials.extend(Suite::new(|| Real(Kind::Cluster))?.with_prefix("cluster").trials());
    let conclusion = run(&arguments, trials);
    for kind in [Kind::Single, Kind::Cluster] {
        if !arguments.list {
            clean(kind).map_err(std::io::Error::other)?;
        }
    }
    Ok(conclusion.exit_code())
}
