//! Test stores, and helpers that run programs and read stores.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::layers::Layers;
use cubbyhole::{
    Backend, EntryStore, ExecutionContext, Namespace, NamespacePrefix, OpenOptions,
    RecursiveScanOptions, ScanItem, ScanOptions, TypedExt,
};
use cubbyhole_examples::KEY_FILE_VARIABLE;
use serde_json::Value;
use tempfile::TempDir;

use crate::postgres::Schema;
use crate::redis::Prefix;

pub(crate) type TestResult<T = ()> = Result<T, Box<dyn Error>>;

/// The first bytes of an encrypted value.
pub(crate) const ENVELOPE: &[u8] = &[0xC8, b'c', b'b', b'e'];

/// A private store for one test, and a folder for files.
pub(crate) struct TestStore {
    pub(crate) place: Place,
    folder: TempDir,
    has_layers: bool,
}

pub(crate) enum Place {
    File,
    Postgres(Schema),
    Redis(Prefix),
}

impl TestStore {
    pub(crate) fn file() -> TestResult<Self> {
        Self::new(Place::File)
    }

    pub(crate) fn postgres() -> TestResult<Self> {
        Self::new(Place::Postgres(Schema::new()?))
    }

    pub(crate) fn redis() -> TestResult<Self> {
        Self::new(Place::Redis(Prefix::new()?))
    }

    fn new(place: Place) -> TestResult<Self> {
        Ok(Self { place, folder: tempfile::tempdir()?, has_layers: false })
    }

    /// Uses the store through all layers.
    pub(crate) fn with_layers(self) -> Self {
        Self { has_layers: true, ..self }
    }

    pub(crate) fn has_layers(&self) -> bool {
        self.has_layers
    }

    pub(crate) fn url(&self) -> String {
        match &self.place {
            Place::File => format!("redb:{}", self.folder().join("store.redb").display()),
            Place::Postgres(schema) => schema.store.clone(),
            Place::Redis(prefix) => prefix.store.clone(),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.folder().join("keys")
    }

    /// Returns a command that runs a program with or without layers.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).env_remove("CUBBYHOLE_STORE");
        match self.has_layers {
            true => command.env(KEY_FILE_VARIABLE, self.key_file()),
            false => command.env_remove(KEY_FILE_VARIABLE),
        };
        command
    }

    /// Runs a program to its end and returns the lines that it printed.
    pub(crate) fn run(&self, program: &str) -> TestResult<Vec<String>> {
        let mut command = self.command(program);
        // Tests both ways to name the store.
        match self.place {
            Place::File => command.env("CUBBYHOLE_STORE", self.url()),
            _ => command.arg(self.url()),
        };
        let output = command.output()?;
        if !output.status.success() {
            return Err(format!("{output:?}").into());
        }
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }

    /// Opens the store as the programs do, calls `f` with it and closes it. With layers,
    /// then checks the stored bytes.
    pub(crate) fn with_store<T>(
        &self,
        f: impl AsyncFnOnce(&ExecutionContext, &Arc<dyn Backend>) -> TestResult<T>,
    ) -> TestResult<T> {
        let layers = match self.has_layers {
            true => cubbyhole_examples::all_layers(&self.key_file())?,
            false => Layers::new(),
        };
        let result = self.open(layers, f)?;
        if self.has_layers {
            self.check_stored()?;
        }
        Ok(result)
    }

    /// Opens the store without layers, calls `f` with it and closes it.
    pub(crate) fn with_raw_store<T>(
        &self,
        f: impl AsyncFnOnce(&ExecutionContext, &Arc<dyn Backend>) -> TestResult<T>,
    ) -> TestResult<T> {
        self.open(Layers::new(), f)
    }

    fn open<T>(
        &self,
        layers: Layers,
        f: impl AsyncFnOnce(&ExecutionContext, &Arc<dyn Backend>) -> TestResult<T>,
    ) -> TestResult<T> {
        block_on(async {
            let ctx = ExecutionContext::new().with_timeout(Duration::from_secs(60));
            let store = OpenOptions::new().with_layers(layers).open(&ctx, &self.url()).await?;
            let result = f(&ctx, &store).await?;
            store.close(&ctx).await?;
            Ok(result)
        })
    }

    /// Every entry of `acme` must be encrypted and must expire. Otherwise a program ran without layers.
    fn check_stored(&self) -> TestResult {
        self.with_raw_store(async |ctx, store| {
            let options = RecursiveScanOptions::new().with_limit(1000);
            let page = store.scan_recursive(ctx, &NamespacePrefix::parse("acme")?, options).await?;
            assert!(!page.items.is_empty());
            for (ns, item) in page.items {
                let value = item.value.ok_or("the item has no value")??;
                assert!(value.starts_with(ENVELOPE), "{ns}, {}: not encrypted", item.key);
                assert!(item.meta.expires_at.is_some(), "{ns}, {}: no TTL", item.key);
            }
            Ok(())
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
        on_each_store!($check, std::convert::identity; on_file on_postgres on_redis);
    };
    ($check:ident, $with:path; $file:ident $postgres:ident $redis:ident) => {
        #[test]
        fn $file() -> crate::support::TestResult {
            $check(&$with(crate::support::TestStore::file()?))
        }

        #[test]
        fn $postgres() -> crate::support::TestResult {
            $check(&$with(crate::support::TestStore::postgres()?))
        }

        #[test]
        fn $redis() -> crate::support::TestResult {
            $check(&$with(crate::support::TestStore::redis()?))
        }
    };
}
pub(crate) use on_each_store;

/// Declares the same tests through all layers.
macro_rules! on_each_store_with_layers {
    ($check:ident) => {
        crate::support::on_each_store!(
            $check, crate::support::TestStore::with_layers;
            on_file_with_layers on_postgres_with_layers on_redis_with_layers
        );
    };
}
pub(crate) use on_each_store_with_layers;
