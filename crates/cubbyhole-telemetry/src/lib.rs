//! What a store does, for those who run it: a span and an event for every call through `tracing`,
//! and metrics through the facade `metrics`.
//!
//! [`Instrumented`] is a layer: a store that wraps a store, of any kind and of any value.
//! `cubbyhole::open` wraps what it returns by itself (the feature `telemetry`, on by default), so
//! that a program only installs a subscriber and a recorder; `docs/observability.md` shows how.
//! Without them a call costs a tenth of a microsecond more, mostly for the clock and
//! the second boxed future; a simple recorder makes that a sixth.
//!
//! **What is never told:** values, keys, and of a namespace anything but its tenant. The messages of
//! errors are told; none holds a value or a credential, and their sources, which may be a server's
//! own words, are left out.
//!
//! # Spans
//!
//! | name | target | level | fields |
//! |---|---|---|---|
//! | `cubbyhole.operation` | `cubbyhole::operation` | DEBUG | `backend`, `operation`, `tenant`, `outcome` |
//!
//! One for each call, from its first poll to its end; what a backend tells meanwhile stands in it.
//! `tenant` is the tenant's name, unescaped, and is missing for calls that name none
//! (`scan_tenants`, `evict_expired`, `open`, `close`, `compact`). `outcome` is recorded at the end.
//!
//! # Events
//!
//! One for each call, at its end, with the target `cubbyhole::operation` and the message `operation
//! ended`. It stands in the span and repeats the span's fields, so that a warning is whole where
//! spans of its level are not collected.
//!
//! | field | meaning |
//! |---|---|
//! | `backend` | the name given to [`Instrumented::new`]; `open` gives `memory`, `embedded`, `postgres`, `redis` |
//! | `operation` | the method: `put` (also with options), `get`, `delete`, `list`, `list_namespaces`, `evict_expired`, `get_entry`, `get_many`, `put_entry`, `delete_entry`, `write`, `scan`, `scan_namespaces`, `scan_tenants`, `touch`, `take`, `erase`, `usage`, `current_time`, `open`, `close`, `compact` |
//! | `tenant` | as in the span |
//! | `outcome` | see below |
//! | `elapsed_ms` | milliseconds since the first poll, with a fraction |
//! | `error` | the message, if the call failed or values could not be read |
//! | `may_have_been_applied` | if the call failed: whether the write may have taken effect |
//! | `removed` | entries removed, of `evict_expired` and `erase` |
//! | `unreadable` | of `get_many` and `scan`: how many values could not be read, if any |
//!
//! | outcome | meaning | level |
//! |---|---|---|
//! | `ok` | it succeeded | DEBUG; INFO for a sweep that removed something; as the error if values were unreadable |
//! | `not_found` | it succeeded, and there was no live entry: `None`, or `false` of `touch` and `delete_entry` | DEBUG |
//! | `dropped` | its future was dropped before its end: the caller went away, or panicked | DEBUG |
//! | `invalid_argument`, `conflict`, `cancelled`, `unsupported` | it failed, which is the caller's own matter | DEBUG |
//! | `unavailable`, `deadline_exceeded`, `resource_exhausted`, `permission_denied`, `codec` | it failed, and somebody should look | WARN |
//! | `corrupt`, `internal` | it failed, and somebody must look | ERROR |
//!
//! A failure has the name of its [`ErrorKind`](cubbyhole_core::ErrorKind).
//!
//! Backends tell besides, under targets of their own, what no single call shows:
//!
//! | target | level | what |
//! |---|---|---|
//! | `cubbyhole_embedded::file` | WARN | the file was, or could not be, opened anew after a failure: `path`, `error` |
//! | `cubbyhole_postgres::connection` | INFO | a connection was lost: `host`, `sql_state` if the server ended it |
//! | `cubbyhole_postgres::call` | DEBUG | a statement is made again after a deadlock or a serialization failure: `function`, `attempt`, `sql_state` |
//! | `cubbyhole_redis::connection` | INFO; DEBUG the first time | connected, again or for the first time: `address` |
//! | `cubbyhole_redis::topology` | INFO | the map of slots is another than before: `slots`, how many |
//! | `cubbyhole_redis::topology` | DEBUG | a redirection told of another master: `slot`, `address` |
//!
//! # Metrics
//!
//! | name | kind, unit | labels | counts |
//! |---|---|---|---|
//! | `cubbyhole_operations_total` | counter | `backend`, `operation`, `outcome` | calls that ended, dropped ones included |
//! | `cubbyhole_operation_duration_seconds` | histogram, seconds | `backend`, `operation` | how long they took, whatever their outcome |
//! | `cubbyhole_errors_total` | counter | `backend`, `operation`, `kind` | calls that failed, and each unreadable value of a `get_many` or `scan` that succeeded otherwise |
//! | `cubbyhole_sweeps_total` | counter | `backend` | sweeps that succeeded, whoever asked for them |
//! | `cubbyhole_swept_entries_total` | counter | `backend` | expired entries that they removed |
//!
//! The tenant is no label: a time series for each tenant is more than most recorders can bear. Ask the
//! events, or `usage`. The names are constants in [`metric_names`].
//!
//! The recorder may be installed before or after a store is opened, for it is asked at each call;
//! what was counted before is lost. Units and help texts are given to the recorder that is there when
//! a store is wrapped; call [`describe_metrics`] if yours came later.
//!
//! ```
//! use cubbyhole_core::{ExecutionContext, Namespace, Store};
//! use cubbyhole_memory::InMemoryStore;
//! use cubbyhole_telemetry::Instrumented;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let store = Instrumented::new(InMemoryStore::<String>::new(), "memory");
//! let ctx = ExecutionContext::new();
//! let ns = Namespace::parse("acme:agent-7")?;
//! store.put(&ctx, &ns, "greeting", "hello".to_owned()).await?;
//! # Ok(())
//! # })
//! # }
//! ```

mod call;
mod instrumented;
pub mod metric_names;
mod operation;
mod outcome;
mod signals;

pub use instrumented::Instrumented;
pub use signals::describe_metrics;
