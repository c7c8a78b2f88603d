//! What may stand where the cursor is: for the scripts that `completions` prints.
//!
//! A shell gives the words of the line; [`words`] says what is asked for, [`names`] asks the store,
//! and [`shells`] writes what that shell takes.

pub(crate) mod names;
pub(crate) mod shells;
pub(crate) mod words;

/// More than anybody reads.
pub(crate) const MOST: usize = 200;

/// Something that may stand there, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) text: String,
    /// Empty for names of the store's.
    pub(crate) about: String,
}

impl Candidate {
    pub(crate) fn name(text: String) -> Self {
        Self { text, about: String::new() }
    }

    /// Whether more of the same word follows: no space after it.
    pub(crate) fn goes_on(&self) -> bool {
        self.text.ends_with([':', '/', '='])
    }
}
