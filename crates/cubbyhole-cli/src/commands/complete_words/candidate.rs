//! Completion candidates.

/// The maximum number of candidates.
pub(super) const MAX_CANDIDATES: usize = 200;

/// A candidate and its description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) text: String,
    /// The description; empty for names from the store.
    pub(super) about: String,
}

impl Candidate {
    pub(super) fn name(text: String) -> Self {
        Self { text, about: String::new() }
    }

    /// Whether the word continues after the candidate, so no space may follow.
    pub(super) fn continues(&self) -> bool {
        self.text.ends_with([':', '/', '='])
    }
}
