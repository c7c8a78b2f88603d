//! The effect of a request.

/// The effect of a request, which decides whether it can be repeated after its reply was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Changes nothing; can be repeated.
    Read,
    /// Changes only the bookkeeping keys of registrations. It is idempotent and can be repeated.
    Registration,
    /// Changes entries; must not be repeated.
    Write,
}
