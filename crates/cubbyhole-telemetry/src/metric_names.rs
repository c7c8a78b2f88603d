//! The names of the metrics, as constants for histogram buckets, routes and filters.

/// Counter of finished calls, by `backend`, `operation` and `outcome`.
pub const OPERATIONS: &str = "cubbyhole_operations_total";

/// Histogram of the duration of calls, in seconds, by `backend` and `operation`.
pub const OPERATION_DURATION: &str = "cubbyhole_operation_duration_seconds";

/// Counter of failed calls and unreadable values, by `backend`, `operation` and `kind`.
pub const ERRORS: &str = "cubbyhole_errors_total";

/// Counter of successful sweeps, by `backend`.
pub const SWEEPS: &str = "cubbyhole_sweeps_total";

/// Counter of expired entries that sweeps removed, by `backend`.
pub const SWEPT_ENTRIES: &str = "cubbyhole_swept_entries_total";
