//! The conformance suite on a Redis server and on a Redis Cluster, with bytes and with documents
//! through `Typed`. The servers' clocks are stopped, and advance only when a case says so.

use std::marker::PhantomData;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cubbyhole_conformance::libtest_mimic::{Arguments, run};
use cubbyhole_conformance::{Document, Suite};
use cubbyhole_core::{Bytes, ExecutionContext};
use cubbyhole_redis::{Config, RedisStore};
use cubbyhole_testkit::full_stack::FullStack;
use cubbyhole_testkit::{RedisCluster, RedisServer};
use tokio::sync::OnceCell;

/// Private servers. Each store has its own prefix.
struct ClockedServers<V> {
    kind: Kind,
    servers: OnceCell<Servers>,
    stores: AtomicU32,
    value: PhantomData<fn() -> V>,
}

#[derive(Clone, Copy)]
enum Kind {
    Single,
    Cluster,
}

enum Servers {
    Single(Box<RedisServer>),
    Cluster(RedisCluster),
}

impl Servers {
    fn start(kind: Kind) -> Result<Self, String> {
        Ok(match kind {
            Kind::Single => Self::Single(Box::new(RedisServer::start_with_clock()?)),
            Kind::Cluster => Self::Cluster(RedisCluster::start_with_clock()?),
        })
    }

    fn url(&self) -> &str {
        match self {
            Self::Single(server) => server.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    #[expect(clippy::expect_used, reason = "no case can run without the clock")]
    fn advance(&self, duration: Duration) {
        let advanced = match self {
            Self::Single(server) => server.advance(duration),
            Self::Cluster(cluster) => cluster.advance(duration),
        };
        advanced.expect("the clock");
    }
}

impl<V> ClockedServers<V> {
    fn new(kind: Kind) -> Self {
        let servers = OnceCell::new();
        Self { kind, servers, stores: AtomicU32::new(0), value: PhantomData }
    }

    #[expect(clippy::expect_used, reason = "no case can run without servers")]
    async fn servers(&self) -> &Servers {
        let start = || async { Servers::start(self.kind).expect("servers") };
        self.servers.get_or_init(start).await
    }

    #[expect(clippy::expect_used, reason = "no case can run without a store")]
    async fn open(&self) -> RedisStore {
        let number = self.stores.fetch_add(1, Ordering::Relaxed);
        let config = Config::from_url(self.servers().await.url()).expect("a URL");
        let config = config.with_prefix(format!("{number}:")).expect("a prefix");
        RedisStore::open(&ExecutionContext::new(), config).await.expect("a store")
    }

    async fn advance_clock(&self, duration: Duration) {
        self.servers().await.advance(duration);
    }
}

cubbyhole_testkit::backend_harness!(ClockedServers, RedisStore);

fn main() -> std::io::Result<ExitCode> {
    let mut trials = Vec::new();
    for (name, kind) in [("single", Kind::Single), ("cluster", Kind::Cluster)] {
        let bytes = Suite::new(move || ClockedServers::<Bytes>::new(kind))?;
        trials.extend(bytes.with_prefix(&format!("{name}::bytes")).trials());
        let typed = Suite::new(move || ClockedServers::<Document>::new(kind))?;
        trials.extend(typed.with_prefix(&format!("{name}::typed")).trials());
        let layered = Suite::new(move || FullStack::new(ClockedServers::<Bytes>::new(kind)))?;
        trials.extend(layered.with_prefix(&format!("{name}::layers")).trials());
    }
    Ok(run(&Arguments::from_args(), trials).exit_code())
}
