//! The environment variables that make cases run longer, or with a given seed.

/// The number in an environment variable; `None` if it is unset or not a number.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}
