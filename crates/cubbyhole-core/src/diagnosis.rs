//! [`Diagnosis`]: the result of `diagnose`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The verdict of a [`Check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing is wrong.
    Ok,
    /// The store works, but needs attention.
    Warning,
    /// The store does not work or is not safe.
    Problem,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// One check of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The subject of the check, in one or two words.
    pub name: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The finding.
    pub finding: String,
    /// What to do, if the verdict is not [`Verdict::Ok`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// The health of a store: a list of checks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The checks in the order in which they ran.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Adds a check with the verdict [`Verdict::Ok`].
    pub fn ok(&mut self, name: impl Into<String>, finding: impl Into<String>) {
        let (name, finding) = (name.into(), finding.into());
        self.checks.push(Check { name, verdict: Verdict::Ok, finding, advice: None });
    }

    /// Adds a check with another verdict and advice.
    pub fn found(
        &mut self,
        verdict: Verdict,
        name: impl Into<String>,
        finding: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let (name, finding) = (name.into(), finding.into());
        self.checks.push(Check { name, verdict, finding, advice: Some(advice.into()) });
    }

    /// Returns the worst verdict of all checks.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok)
    }
}
