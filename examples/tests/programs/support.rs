//! Test stores, and helpers that run programs and read stores.

use std::error::Error;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::{
    Backend, EntryStore, ExecutionContext, Namespace, ScanItem, ScanOptions, TypedExt,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::postgres::Schema;
use crate::redis::Prefix;

pub(crate) type TestResult<T = ()> = Result<T, Box<dyn Error>>;

/// A private store for one test.
pub(crate) enum TestStore {
    File(TempDir),
    Postgres(Schema),
    Redis(Prefix),
}

impl TestStore {
    pub(crate) fn file() -> TestResult<Self> {
        Ok(Self::File(tempfile::tempdir()?))
    }

    pub(crate) fn postgres() -> TestResult<Self> {
        Ok(Self::Postgres(Schema::new()?))
    }

    pub(crate) fn redis() -> TestResult<Self> {
        Ok(Self::Redis(Prefix::new()?))
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::File(folder) => format!("redb:{}", folder.path().join("store.redb").display()),
            Self::Postgres(schema) => schema.store.clone(),
            Self::Redis(prefix) => prefix.store.clone(),
        }
    }

    /// Runs a program to its end and returns the lines that it printed.
    pub(crate) fn run(&self, program: &str) -> TestResult<Vec<String>> {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).env_remove("CUBBYHOLE_STORE");
        // Tests both ways to name the store.
        match self {
            Self::File(_) => command.env("CUBBYHOLE_STORE", self.url()),
            _ => command.arg(self.url()),
        };
        let output = command.output()?;
        if !output.status.success() {
            return Err(format!("{output:?}").into());
        }
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }

    /// Opens the store, calls `f` with it and closes it.
    pub(crate) fn with_store<T>(
        &self,
        f: impl AsyncFnOnce(&ExecutionContext, &Arc<dyn Backend>) -> TestResult<T>,
    ) -> TestResult<T> {
        block_on(async {
            let ctx = ExecutionContext::new().with_timeout(Duration::from_secs(60));
            let store = cubbyhole::open(&ctx, &self.url()).await?;
            let result = f(&ctx, &store).await?;
            store.close(&ctx).await?;
            Ok(result)
        })
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = TestResult<T>>) -> TestResult<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?
        .block_on(future)
}

/// Returns all entries of a namespace, as JSON.
pub(crate) async fn scan_all(
    ctx: &ExecutionContext,
    store: &Arc<dyn Backend>,
    ns: &str,
) -> TestResult<Vec<ScanItem<Value>>> {
    let page = store.clone().typed::<Value>();
    let page = page.scan(ctx, &Namespace::parse(ns)?, ScanOptions::new().with_limit(1000)).await?;
    assert!(page.next.is_none(), "{ns} has more than one page");
    Ok(page.items)
}

/// Returns the value of an item. Fails if it cannot be read.
pub(crate) fn value(item: &ScanItem<Value>) -> TestResult<&Value> {
    Ok(item.value.as_ref().ok_or("the item has no value")?.as_ref().map_err(Clone::clone)?)
}

/// Declares a test on each kind of store for a function that takes a `TestStore`.
macro_rules! on_each_store {
    ($check:ident) => {
        #[test]
        fn on_file() -> crate::support::TestResult {
            $check(&crate::support::TestStore::file()?)
        }

        #[test]
        fn on_postgres() -> crate::support::TestResult {
            $check(&crate::support::TestStore::postgres()?)
        }

        #[test]
        fn on_redis() -> crate::support::TestResult {
            $check(&crate::support::TestStore::redis()?)
        }
    };
}
pub(crate) use on_each_store;
