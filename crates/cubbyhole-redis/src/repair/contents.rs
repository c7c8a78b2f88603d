//! The contents of a namespace.

/// The contents of a namespace, which decide whether it must be listed. A namespace with a marker
/// must be listed even without entries, because the next put does not register it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum NamespaceContents {
    #[default]
    Nothing,
    /// No entries, but a registration marker or leftover expiries.
    MarkerOnly,
    Entries,
}
