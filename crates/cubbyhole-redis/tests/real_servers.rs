//! The conformance suite on servers with the system's clock and with replicas.
//!
//! `CUBBYHOLE_TEST_REDIS_URL` and `CUBBYHOLE_TEST_REDIS_CLUSTER_URL` name the servers. By default
//! the tests start private ones.
//!
//! The suite waits for expiry here, and skips cases that need exact milliseconds. `conformance.rs`
//! runs all cases, on servers with a stopped clock.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cubbyhole_conformance::libtest_mimic::{Arguments, run};
use cubbyhole_conformance::{Capabilities, Harness, Suite};
use cubbyhole_core::{
    Bytes, EntryStore, EntryStoreExt, ExecutionContext, NamespacePrefix, Result, Store, async_trait,
};
use cubbyhole_redis::{Config, RedisStore};
use cubbyhole_testkit::shared;

static STORES: AtomicU32 = AtomicU32::new(0);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Single,
    Cluster,
}

impl Kind {
    #[expect(clippy::expect_used, reason = "no case can run without a server")]
    fn url(self) -> &'static str {
        match self {
            Self::Single => shared::redis_url(),
            Self::Cluster => shared::redis_cluster_url(),
        }
        .expect("a server")
    }

    /// Opens the store with that number. Each store has its own prefix.
    async fn open(self, number: u32) -> Result<RedisStore> {
        let config = Config::from_url(self.url())?;
        let config = config.with_prefix(format!("suite{}-{number}:", std::process::id()))?;
        RedisStore::open(&ExecutionContext::new(), config).await
    }
}

/// The servers of one kind.
struct RealServers(Kind);

#[async_trait]
impl Harness for RealServers {
    type Value = Bytes;

    #[expect(clippy::expect_used, reason = "no case can run without a store")]
    async fn store(&self) -> Arc<dyn EntryStore<Bytes>> {
        let number = STORES.fetch_add(1, Ordering::Relaxed);
        Arc::new(self.0.open(number).await.expect("a store"))
    }

    async fn advance(&self, duration: Duration) {
        let slept = ExecutionContext::new().sleep(duration).await;
        assert!(slept.is_ok(), "a context without a deadline has ended");
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().with_real_time(Duration::from_millis(250))
    }
}

/// Removes all entries, because the servers may belong to the developer. Only fences remain, and
/// they expire.
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
    let mut trials = Suite::new(|| RealServers(Kind::Single))?.with_prefix("single").trials();
    trials.extend(Suite::new(|| RealServers(Kind::Cluster))?.with_prefix("cluster").trials());
    let conclusion = run(&arguments, trials);
    for kind in [Kind::Single, Kind::Cluster] {
        if !arguments.list {
            clean(kind).map_err(std::io::Error::other)?;
        }
    }
    Ok(conclusion.exit_code())
}
