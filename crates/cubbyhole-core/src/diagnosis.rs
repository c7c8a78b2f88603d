//! What `diagnose` finds out about a store.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a [`Check`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and something should be looked after.
    Warning,
    /// It does not work, or is not safe.
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

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at, in a word or two.
    pub name: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub finding: String,
    /// What to do about it, unless it is as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// What was found out about a store: one [`Check`] for each thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The checks in the order in which they were made.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Adds a check that found nothing wrong.
    pub fn ok(&mut self, name: impl Into<String>, finding: impl Into<String>) {
        let (name, finding) = (name.into(), finding.into());
        self.checks.push(Check { name, verdict: Verdict::Ok, finding, advice: None });
    }

    /// Adds a check that found something, with advice.
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

    /// The worst verdict.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok)
    }
}
