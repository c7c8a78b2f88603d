//! Places for stores, running programs, and looking into stores.

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

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A store of one test's own.
pub(crate) enum Place {
    File(TempDir),
    Postgres(Schema),
    Redis(Prefix),
}

impl Place {
    pub(crate) fn file() -> Outcome<Self> {
        Ok(Self::File(tempfile::tempdir()?))
    }

    pub(crate) fn postgres() -> Outcome<Self> {
        Ok(Self::Postgres(Schema::new()?))
    }

    pub(crate) fn redis() -> Outcome<Self> {
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
    pub(crate) fn run(&self, program: &str) -> Outcome<Vec<String>> {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).env_remove("CUBBYHOLE_STORE");
        // Both ways to name the store.
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

    /// Opens the store and hands it to `look`.
    pub(crate) fn look<T>(
        &self,
        look: impl AsyncFnOnce(&ExecutionContext, &Arc<dyn Backend>) -> Outcome<T>,
    ) -> Outcome<T> {
        block_on(async {
            let ctx = ExecutionContext::new().with_timeout(Duration::from_secs(60));
            let store = cubbyhole::open(&ctx, &self.url()).await?;
            let found = look(&ctx, &store).await?;
            store.close(&ctx).await?;
            Ok(found)
        })
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?
        .block_on(future)
}

/// Everything in a namespace, as JSON.
pub(crate) async fn all(
    ctx: &ExecutionContext,
    store: &Arc<dyn Backend>,
    ns: &str,
) -> Outcome<Vec<ScanItem<Value>>> {
    let page = store.clone().typed::<Value>();
    let page = page.scan(ctx, &Namespace::parse(ns)?, ScanOptions::new().with_limit(1000)).await?;
    assert!(page.next.is_none(), "{ns} has more than a page");
    Ok(page.items)
}

/// The value of an item, which must be readable.
pub(crate) fn value(item: &ScanItem<Value>) -> Outcome<&Value> {
    Ok(item.value.as_ref().ok_or("without a value")?.as_ref().map_err(Clone::clone)?)
}

/// Makes a test of each place for a function that takes one.
macro_rules! on_each_place {
    ($check:ident) => {
        #[test]
        fn on_a_file() -> crate::support::Outcome {
            $check(&crate::support::Place::file()?)
        }

        #[test]
        fn on_postgres() -> crate::support::Outcome {
            $check(&crate::support::Place::postgres()?)
        }

        #[test]
        fn on_redis() -> crate::support::Outcome {
            $check(&crate::support::Place::redis()?)
        }
    };
}
pub(crate) use on_each_place;
