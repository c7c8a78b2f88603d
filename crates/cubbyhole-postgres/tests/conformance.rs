//! The conformance suite on PostgreSQL with a manual clock: with bytes, with documents through
//! `Typed`, and with the statements for a transaction pooler.

mod support;

use std::marker::PhantomData;
use std::process::ExitCode;
use std::time::Duration;

use cubbyhole_conformance::libtest_mimic::{Arguments, run};
use cubbyhole_conformance::{Document, Suite};
use cubbyhole_core::{Bytes, ExecutionContext};
use cubbyhole_postgres::{Config, PostgresStore};
use cubbyhole_testkit::full_stack::FullStack;
use tokio::sync::OnceCell;

/// A schema with a manual clock.
struct Postgres<V> {
    options: &'static str,
    schema: OnceCell<support::Schema>,
    value: PhantomData<fn() -> V>,
}

impl<V> Postgres<V> {
    /// `options` are appended to the URL.
    fn new(options: &'static str) -> Self {
        Self { options, schema: OnceCell::new(), value: PhantomData }
    }

    async fn schema(&self) -> &support::Schema {
        let make = || async {
            let schema = support::Schema::new().await;
            schema.stop_clock().await;
            schema.grant_operator().await;
            schema
        };
        self.schema.get_or_init(make).await
    }

    #[expect(clippy::expect_used, reason = "a case cannot start without a store")]
    async fn open(&self) -> PostgresStore {
        let url = self.schema().await.url(self.options);
        let config = Config::from_url(&url).expect("a URL");
        PostgresStore::open(&ExecutionContext::new(), config).await.expect("a store")
    }

    async fn advance_clock(&self, duration: Duration) {
        self.schema().await.advance(duration).await;
    }
}

cubbyhole_testkit::backend_harness!(Postgres, PostgresStore);

fn main() -> std::io::Result<ExitCode> {
    let pooled = "&pooler=transaction&statement_cache=off";
    let mut trials = Suite::new(|| Postgres::<Bytes>::new(""))?.with_prefix("bytes").trials();
    trials.extend(Suite::new(|| Postgres::<Document>::new(""))?.with_prefix("typed").trials());
    let layered = || FullStack::new(Postgres::<Bytes>::new(""));
    trials.extend(Suite::new(layered)?.with_prefix("layers").trials());
    let pooled = Suite::new(move || Postgres::<Bytes>::new(pooled))?.with_prefix("pooled");
    trials.extend(pooled.trials());
    Ok(run(&Arguments::from_args(), trials).exit_code())
}
