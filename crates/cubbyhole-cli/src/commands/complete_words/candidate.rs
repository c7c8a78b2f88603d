//! A candidate of a completion.

/// More than anybody reads.
pub(super) const MOST: usize = 200;

/// Something that may stand there, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) text: String,
    /// Empty for names of the store's.
    pub(super) about: String,
}

impl Candidate {
    pub(super) fn name(text: String) -> Self {
        Self { text, about: String::new() }
    }

    /// Whether more of the same word follows: no space after it.
    pub(super) fn goes_on(&self) -> bool {
        self.text.ends_with([':', '/', '='])
    }
}
