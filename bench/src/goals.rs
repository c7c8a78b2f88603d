//! What is to be reached, beside what was.

use serde::Serialize;

use crate::harness::Samples;

/// A row of the table of goals.
#[derive(Debug, Clone, Serialize)]
pub struct Goal {
    pub work: String,
    pub against: String,
    pub wanted: Wanted,
    /// Nothing where it was not measured.
    pub reached: Option<f64>,
    /// Half the distance of the quartiles, as a share.
    pub spread: Option<f64>,
    pub limit: Option<Limit>,
}

/// What nobody can be faster than who does the work with this engine, where it was measured too.
#[derive(Debug, Clone, Serialize)]
pub struct Limit {
    pub name: String,
    /// How many times as fast this was; of growth, how many times the time the engine itself took.
    pub times: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// So many times as fast.
    Times(f64),
    /// At most so many times the time, or the bytes.
    AtMostTimes(f64),
    /// In less than so many milliseconds.
    Milliseconds(f64),
}

impl Goal {
    pub fn times(
        work: impl Into<String>,
        against: impl Into<String>,
        at_least: f64,
        reached: Option<Samples>,
    ) -> Self {
        Self::new(work, against, Wanted::Times(at_least), reached)
    }

    pub fn new(
        work: impl Into<String>,
        against: impl Into<String>,
        wanted: Wanted,
        reached: Option<Samples>,
    ) -> Self {
        Self {
            work: work.into(),
            against: against.into(),
            wanted,
            spread: reached.as_ref().map(Samples::spread),
            reached: reached.map(|samples| samples.median),
            limit: None,
        }
    }

    /// How far the engine's limit still is.
    pub fn beside(mut self, name: impl Into<String>, times: Option<Samples>) -> Self {
        let name = name.into();
        // Where that is what is to be reached, it is told already.
        if name != self.against {
            self.limit = times.map(|times| Limit { name, times: times.median });
        }
        self
    }

    pub fn is_met(&self) -> bool {
        self.reached.is_some_and(|reached| match self.wanted {
            Wanted::Times(wanted) => reached >= wanted,
            Wanted::AtMostTimes(wanted) => reached <= wanted,
            Wanted::Milliseconds(wanted) => reached < wanted,
        })
    }

    /// What was wanted, and what was reached, in words.
    pub fn texts(&self) -> [String; 2] {
        let reached = |text: fn(f64) -> String| self.reached.map_or("-".to_owned(), text);
        match self.wanted {
            Wanted::Times(wanted) => [count(wanted), reached(count)],
            Wanted::AtMostTimes(wanted) => [format!("≤ {}", count(wanted)), reached(count)],
            Wanted::Milliseconds(wanted) => {
                [format!("< {wanted} ms"), reached(|time| format!("{time:.1} ms"))]
            }
        }
    }
}

/// With two digits after the point as long as these say anything.
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
    fn what_was_not_measured_is_not_met() {
        let goal = |wanted, reached: Option<f64>| {
            Goal::new("work", "other", wanted, reached.map(|reached| Samples::new(vec![reached])))
        };
        assert!(goal(Wanted::Times(1.5), Some(1.5)).is_met());
        assert!(!goal(Wanted::Times(1.5), Some(1.4)).is_met());
        assert!(!goal(Wanted::Times(1.5), None).is_met());
        assert!(goal(Wanted::AtMostTimes(1.5), Some(1.0)).is_met());
        assert_eq!(goal(Wanted::Milliseconds(20.0), Some(21.0)).texts(), ["< 20 ms", "21.0 ms"]);
    }
}
