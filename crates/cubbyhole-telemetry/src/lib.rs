//! Telemetry for stores: a span, an event and metrics for every call, emitted through `tracing` and
//! the facade `metrics`.
//!
//! [`Instrumented`] is a layer: a store that wraps another store, of any kind and any value type.
//! `cubbyhole::open` wraps every store that it returns (feature `telemetry`, on by default). A
//! program only installs a subscriber and a recorder; `docs/observability.md` shows how. Without
//! them, the layer adds a tenth of a microsecond to a call, mostly for the clock and the second
//! boxed future. With a simple recorder it adds a sixth of a microsecond.
//!
//! **Never recorded:** values, keys and scope segments. Of a namespace, only the tenant is
//! recorded. Error messages are recorded; they contain no value and no credential. Error sources
//! are not recorded, because a server's text may quote the request.
//!
//! # Spans
//!
//! | name | target | level | fields |
//! |---|---|---|---|
//! | `cubbyhole.operation` | `cubbyhole::operation` | DEBUG | `backend`, `operation`, `tenant`, `outcome` |
//!
//! Each call has one span, from its first poll to its end. Events that the backend emits during the
//! call are inside this span. `tenant` is the name of the tenant, unescaped. It is missing for
//! calls that name no tenant: `scan_tenants`, `evict_expired`, `open`, `close` and `compact`.
//! `outcome` is recorded at the end.
//!
//! # Events
//!
//! Each call emits one event at its end, with the target `cubbyhole::operation` and the message
//! `operation ended`. The event is inside the span and repeats its fields. A warning is therefore
//! complete even if the subscriber does not collect DEBUG spans.
//!
//! | field | meaning |
//! |---|---|
//! | `backend` | the name given to [`Instrumented::new`]; `open` gives `memory`, `embedded`, `postgres`, `redis` |
//! | `operation` | the method: `put` (also with options), `get`, `delete`, `list`, `list_namespaces`, `evict_expired`, `get_entry`, `get_many`, `put_entry`, `delete_entry`, `write`, `scan`, `scan_namespaces`, `scan_tenants`, `touch`, `take`, `erase`, `usage`, `current_time`, `open`, `close`, `compact` |
//! | `tenant` | as in the span |
//! | `outcome` | see below |
//! | `elapsed_ms` | milliseconds since the first poll, with a fraction |
//! | `error` | the message, if the call failed or values could not be read |
//! | `may_have_been_applied` | for a failed call: whether the write may have taken effect |
//! | `removed` | entries that `evict_expired` or `erase` removed |
//! | `unreadable` | values that `get_many` or `scan` could not read, if any |
//!
//! | outcome | meaning | level |
//! |---|---|---|
//! | `ok` | the call succeeded | DEBUG; INFO for a sweep that removed entries; the level of the first error if values were unreadable |
//! | `not_found` | the call succeeded, and there was no live entry: `None`, or `false` from `touch` and `delete_entry` | DEBUG |
//! | `dropped` | the future was dropped before its end: the caller stopped waiting, or panicked | DEBUG |
//! | `invalid_argument`, `conflict`, `cancelled`, `unsupported` | the call failed because of the caller | DEBUG |
//! | `unavailable`, `deadline_exceeded`, `resource_exhausted`, `permission_denied`, `codec` | the call failed and needs attention | WARN |
//! | `corrupt`, `internal` | damaged data or a defect | ERROR |
//!
//! The outcome of a failed call is the name of its [`ErrorKind`](cubbyhole_core::ErrorKind).
//!
//! Backends emit further events, under their own targets, for conditions that no single call shows:
//!
//! | target | level | event |
//! |---|---|---|
//! | `cubbyhole_embedded::file` | WARN | the file was reopened after a failure, or could not be reopened: `path`, `error` |
//! | `cubbyhole_postgres::connection` | INFO | a connection was lost: `host`, and `sql_state` if the server ended it |
//! | `cubbyhole_postgres::call` | DEBUG | a statement is repeated after a deadlock or a serialization failure: `function`, `attempt`, `sql_state` |
//! | `cubbyhole_postgres::conninfo::hosts` | WARN | a password file was ignored; the message says why |
//! | `cubbyhole_redis::connection` | INFO; DEBUG the first time | a connection was opened: `address` |
//! | `cubbyhole_redis::topology` | INFO | the slot map has changed: `slots` is the number of changed slots |
//! | `cubbyhole_redis::topology` | DEBUG | a redirection named another master: `slot`, `address` |
//!
//! # Metrics
//!
//! | name | kind, unit | labels | counts |
//! |---|---|---|---|
//! | `cubbyhole_operations_total` | counter | `backend`, `operation`, `outcome` | finished calls, including dropped ones |
//! | `cubbyhole_operation_duration_seconds` | histogram, seconds | `backend`, `operation` | duration of a call, for any outcome |
//! | `cubbyhole_errors_total` | counter | `backend`, `operation`, `kind` | failed calls, and each unreadable value of a `get_many` or `scan` that otherwise succeeded |
//! | `cubbyhole_sweeps_total` | counter | `backend` | successful sweeps, regardless of the caller |
//! | `cubbyhole_swept_entries_total` | counter | `backend` | expired entries that sweeps removed |
//!
//! The tenant is not a label, because one time series per tenant is too many for most recorders.
//! The events name the tenant, and `usage` returns its size. [`metric_names`] has the names as
//! constants.
//!
//! The recorder is looked up at each call, so it may be installed before or after a store is
//! opened. Calls that end before it is installed are not counted. Wrapping a store gives units and
//! help texts to the recorder that is installed then; if yours is installed later, call
//! [`describe_metrics`].
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
