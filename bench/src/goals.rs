//! Goals and their results.

use serde::Serialize;

use crate::harness::Samples;

/// A row of the table of goals.
#[derive(Debug, Clone, Serialize)]
pub struct Goal {
    pub work: String,
    pub against: String,
    #[serde(rename = "wanted")]
    pub target: Target,
    /// `None` if it was not measured.
    pub reached: Option<f64>,
    /// Half the interquartile range, relative to the median.
    pub spread: Option<f64>,
    pub limit: Option<Limit>,
}

/// The result of the bare engine, which a store on this engine cannot exceed.
#[derive(Debug, Clone, Serialize)]
pub struct Limit {
    pub name: String,
    /// The speed relative to the engine. For goals about growth, the growth of the engine.
    pub times: f64,
}

/// The target of a goal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// At least this many times as fast.
    Times(f64),
    /// At most this many times the time or the bytes.
    AtMostTimes(f64),
    /// In less than this many milliseconds.
    Milliseconds(f64),
    /// At most this many nanoseconds.
    Nanoseconds(f64),
}

impl Goal {
    pub fn times(
        work: impl Into<String>,
        against: impl Into<String>,
        at_least: f64,
        reached: Option<Samples>,
    ) -> Self {
        Self::new(work, against, Target::Times(at_least), reached)
    }

    pub fn new(
        work: impl Into<String>,
        against: impl Into<String>,
        target: Target,
        reached: Option<Samples>,
    ) -> Self {
        Self {
            work: work.into(),
            against: against.into(),
            target,
            spread: reached.as_ref().map(Samples::spread),
            reached: reached.map(|samples| samples.median),
            limit: None,
        }
    }

    /// Adds the result of the bare engine.
    pub fn with_limit(mut self, name: impl Into<String>, times: Option<Samples>) -> Self {
        let name = name.into();
        // If the goal is against the engine, the result already says it.
        if name != self.against {
            self.limit = times.map(|times| Limit { name, times: times.median });
        }
        self
    }

    pub fn is_met(&self) -> bool {
        self.reached.is_some_and(|reached| match self.target {
            Target::Times(target) => reached >= target,
            Target::AtMostTimes(target) | Target::Nanoseconds(target) => reached <= target,
            Target::Milliseconds(target) => reached < target,
        })
    }

    /// The target and the result as text.
    pub fn texts(&self) -> [String; 2] {
        let reached = |text: fn(f64) -> String| self.reached.map_or("-".to_owned(), text);
        match self.target {
            Target::Times(target) => [count(target), reached(count)],
            Target::AtMostTimes(target) => [format!("≤ {}", count(target)), reached(count)],
            Target::Milliseconds(target) => {
                [format!("< {target} ms"), reached(|time| format!("{time:.1} ms"))]
            }
            Target::Nanoseconds(target) => {
                [format!("≤ {target} ns"), reached(|time| format!("{time:.0} ns"))]
            }
        }
    }
}

/// Formats with two decimals for numbers below 10, and fewer for larger ones.
pub fn count(number: f64) -> String {
    match number {
        ..10.0 => format!("{number:.2}"),
        10.0..100.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmeasured_goal_is_not_met() {
        let goal = |target, reached: Option<f64>| {
            Goal::new("work", "other", target, reached.map(|reached| Samples::new(vec![reached])))
        };
        assert!(goal(Target::Times(1.5), Some(1.5)).is_met());
        assert!(!goal(Target::Times(1.5), Some(1.4)).is_met());
        assert!(!goal(Target::Times(1.5), None).is_met());
        assert!(goal(Target::AtMostTimes(1.5), Some(1.0)).is_met());
        assert_eq!(goal(Target::Milliseconds(20.0), Some(21.0)).texts(), ["< 20 ms", "21.0 ms"]);
    }
}
