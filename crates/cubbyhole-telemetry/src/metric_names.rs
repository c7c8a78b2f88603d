//! The names of the metrics, for whoever sets buckets, routes or filters by name.

/// Counter of calls that ended, by `backend`, `operation` and `outcome`.
pub const OPERATIONS: &str = "cubbyhole_operations_total";

/// Histogram of how long calls took, in seconds, by `backend` and `operation`.
pub const OPERATION_DURATION: &str = "cubbyhole_operation_duration_seconds";

/// Counter of calls that failed and of values that could not be read, by `backend`, `operation` and
/// `kind`.
pub const ERRORS: &str = "cubbyhole_errors_total";

/// Counter of sweeps that succeeded, by `backend`.
pub const SWEEPS: &str = "cubbyhole_sweeps_total";

/// Counter of expired entries that sweeps removed, by `backend`.
pub const SWEPT_ENTRIES: &str = "cubbyhole_swept_entries_total";
