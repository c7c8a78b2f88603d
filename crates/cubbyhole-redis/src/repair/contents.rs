//! The contents of a namespace.

/// What a namespace holds, and so whether it must be listed: one that has its marker and no entries
/// must be too, or the next put into it would not list it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum NamespaceContents {
    #[default]
    Nothing,
    MarkerOnly,
    Entries,
}
