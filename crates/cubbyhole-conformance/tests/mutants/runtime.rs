//! Mutants that break the rules for runtimes and closed stores.

use cubbyhole_core::{
    Bytes, Entry, EntryStore, Error, GetOptions, Namespace, NamespacePrefix, Page, Result,
    ScanItem, ScanOptions, Store, Usage, async_trait, limits,
};
use tokio::runtime::Handle;
use tokio::task::coop::unconstrained;

use crate::mutant::{Context, Inner, Mutant, catches, mutants};

mutants! {
    /// `get` ignores cooperative scheduling.
    #[caught_by(
        "scheduling::core_calls_yield",
        "scheduling::core_calls_with_ended_context_yield",
        "scheduling::core_calls_on_closed_store_yield"
    )]
    GetNeverYields {
        async fn get(&self, c: Context<'_>, ns: &Namespace, key: &str) -> Result<Option<Bytes>> {
            unconstrained(self.inner.get(c, ns, key)).await
        }
    }

    /// `scan` rejects invalid arguments without yielding.
    #[caught_by("scheduling::entry_calls_yield")]
    RejectsWithoutYielding {
        async fn scan(&self, c: Context<'_>, ns: &Namespace, o: ScanOptions)
            -> Result<Page<ScanItem<Bytes>, String>> {
            o.check()?;
            self.inner.scan(c, ns, o).await
        }
    }

    /// `usage` ignores cooperative scheduling.
    #[caught_by(
        "scheduling::entry_calls_with_ended_context_yield",
        "scheduling::entry_calls_on_closed_store_yield"
    )]
    UsageNeverYields {
        async fn usage(&self, c: Context<'_>, p: &NamespacePrefix) -> Result<Usage> {
            unconstrained(self.inner.usage(c, p)).await
        }
    }

    /// `get` panics without a tokio runtime.
    #[caught_by("no_runtime::core_calls_work_or_return_invalid_argument")]
    GetPanicsWithoutRuntime {
        async fn get(&self, c: Context<'_>, ns: &Namespace, key: &str) -> Result<Option<Bytes>> {
            drop(Handle::current());
            self.inner.get(c, ns, key).await
        }
    }

    /// `take` reports an outage without a tokio runtime.
    #[caught_by("no_runtime::entry_calls_work_or_return_invalid_argument")]
    TakeFailsWithoutRuntime {
        async fn take(&self, c: Context<'_>, ns: &Namespace, key: &str)
            -> Result<Option<Entry<Bytes>>> {
            if Handle::try_current().is_err() {
                return Err(Error::unavailable("the connection was lost"));
            }
            self.inner.take(c, ns, key).await
        }
    }

    /// `get_many` without keys succeeds on a closed store.
    #[caught_by("closed::entry_calls_are_rejected")]
    EmptyGetManySucceedsWhenClosed {
        async fn get_many(&self, c: Context<'_>, ns: &Namespace, keys: &[&str], o: GetOptions)
            -> Result<Vec<Result<Option<Entry<Bytes>>>>> {
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            self.inner.get_many(c, ns, keys, o).await
        }
    }

    /// `list` of a closed store returns no keys instead of an error.
    #[caught_by("closed::core_calls_are_rejected")]
    ListSucceedsWhenClosed {
        async fn list(&self, c: Context<'_>, ns: &Namespace, p: Option<&str>)
            -> Result<Vec<String>> {
            limits::check_prefix(p)?;
            Ok(self.inner.list(c, ns, p).await.unwrap_or_default())
        }
    }
}
