//! The checker: searches for a sequential order of the calls that explains every reply.
//!
//! The search is that of Wing and Gong (Testing and Verifying Concurrent Objects, 1993), with the
//! memoisation of Lowe (Testing for Linearizability, 2017). A call may come next unless another
//! remaining call ended before it started. The search visits each pair of a set of calls and a
//! state only once. A call with an unknown outcome may take effect at any later time, or never. The
//! search tries these calls last, and ignores those whose effect no other call can have seen.

use std::collections::HashSet;
use std::fmt::Write as _;

/// The number of keys of a round.
pub(super) const KEYS: usize = 3;
/// The search gives up after this number of steps, and the history counts as undecided.
const MAX_STEPS: usize = 5_000_000;
/// The number of calls of the longest order that an explanation shows.
const SHOWN: usize = 8;

/// The number of the value of each key, or `None` for an absent key.
pub(super) type KeyValues = [Option<u64>; KEYS];

/// The state of a key that a call saw. For a call with an unknown outcome: the state that its
/// condition requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Observation {
    /// The key has this value, or is absent.
    Is(Option<u64>),
    /// The key has some value.
    Present,
}

impl Observation {
    fn fits(self, value: Option<u64>) -> bool {
        match self {
            Self::Is(seen) => value == seen,
            Self::Present => value.is_some(),
        }
    }
}

/// A call and its reply. Every method of a store has this form: if it sees `seen`, it writes
/// `wrote`.
#[derive(Debug, Clone)]
pub(super) struct RecordedCall {
    /// The text of the call in an explanation.
    pub(super) text: String,
    pub(super) called: u64,
    /// `None`: the outcome is unknown.
    pub(super) returned: Option<u64>,
    pub(super) seen: Vec<(usize, Observation)>,
    /// The values of these keys after the call. A call with an unknown outcome writes nothing if
    /// the keys are not in the state that its condition requires.
    pub(super) wrote: Vec<(usize, Option<u64>)>,
}

impl RecordedCall {
    /// Returns the state after the call, or `None` if the reply does not fit `state`.
    fn apply(&self, state: &KeyValues) -> Option<KeyValues> {
        let fits = self.seen.iter().all(|(key, seen)| seen.fits(state[*key]));
        if !fits {
            return None;
        }
        let mut after = *state;
        for (key, value) in &self.wrote {
            after[*key] = *value;
        }
        // A call with an unknown outcome that changes nothing can be left out of the order.
        (self.returned.is_some() || after != *state).then_some(after)
    }

    fn ended(&self) -> u64 {
        self.returned.unwrap_or(u64::MAX)
    }
}

/// Searches for an order of the calls. All keys are absent at the start.
///
/// # Errors
/// An explanation, if there is no order.
pub(super) fn check(calls: &[RecordedCall]) -> Result<(), String> {
    let mut calls: Vec<&RecordedCall> = calls.iter().collect();
    remove_unseen_puts(&mut calls);
    calls.sort_by_key(|call| call.called);
    Search::new(&calls).run()
}

/// Removes the puts with an unknown outcome whose values no call saw. Whether they took effect
/// changes no reply. If any reply only says that an entry exists, nothing is removed, because that
/// reply may have seen one of these puts.
fn remove_unseen_puts(calls: &mut Vec<&RecordedCall>) {
    let replied = || calls.iter().filter(|call| call.returned.is_some());
    let has_presence =
        replied().any(|call| call.seen.iter().any(|(_, seen)| *seen == Observation::Present));
    if has_presence {
        return;
    }
    let seen: HashSet<(usize, Observation)> =
        replied().flat_map(|call| call.seen.iter().copied()).collect();
    calls.retain(|call| {
        let is_seen = |(key, value): &(usize, Option<u64>)| {
            value.is_none() || seen.contains(&(*key, Observation::Is(*value)))
        };
        call.returned.is_some() || call.wrote.iter().any(is_seen)
    });
}

/// A set of calls, as bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CallSet(Vec<u64>);

impl CallSet {
    fn contains(&self, call: usize) -> bool {
        self.0[call / 64] & (1 << (call % 64)) != 0
    }

    fn flip(&mut self, call: usize) {
        self.0[call / 64] ^= 1 << (call % 64);
    }
}

/// A step of the current order: the state after it, and the calls that may come next.
struct SearchNode {
    state: KeyValues,
    next: std::vec::IntoIter<usize>,
    /// The call of this step; `None` at the start.
    call: Option<usize>,
}

struct Search<'a> {
    calls: &'a [&'a RecordedCall],
    ordered: CallSet,
    /// The number of calls with a reply that are not in the order yet.
    remaining: usize,
    path: Vec<SearchNode>,
    visited: HashSet<(CallSet, KeyValues)>,
    /// The longest order so far: its calls, and the state at its end.
    longest: (Vec<usize>, KeyValues),
}

impl<'a> Search<'a> {
    fn new(calls: &'a [&'a RecordedCall]) -> Self {
        Self {
            calls,
            ordered: CallSet(vec![0; calls.len().div_ceil(64)]),
            remaining: calls.iter().filter(|call| call.returned.is_some()).count(),
            path: Vec::new(),
            visited: HashSet::new(),
            longest: (Vec::new(), KeyValues::default()),
        }
    }

    fn run(mut self) -> Result<(), String> {
        self.push(KeyValues::default(), None);
        for _ in 0..MAX_STEPS {
            if self.remaining == 0 {
                return Ok(());
            }
            let Some(node) = self.path.last_mut() else {
                return Err(self.explain("no order of these calls explains their replies"));
            };
            let state = node.state;
            match node.next.next() {
                Some(call) => self.try_next(call, &state),
                None => self.pop(),
            }
        }
        Err(self.explain("undecided: the search gave up after too many steps"))
    }

    fn try_next(&mut self, call: usize, state: &KeyValues) {
        let Some(after) = self.calls[call].apply(state) else {
            return;
        };
        self.ordered.flip(call);
        if self.visited.insert((self.ordered.clone(), after)) {
            self.remaining -= usize::from(self.calls[call].returned.is_some());
            self.push(after, Some(call));
        } else {
            self.ordered.flip(call);
        }
    }

    fn push(&mut self, state: KeyValues, call: Option<usize>) {
        let next = self.candidates().into_iter();
        self.path.push(SearchNode { state, next, call });
        if self.path.len() > self.longest.0.len() + 1 {
            let order = self.path.iter().filter_map(|node| node.call).collect();
            self.longest = (order, state);
        }
    }

    fn pop(&mut self) {
        if let Some(call) = self.path.pop().and_then(|node| node.call) {
            self.ordered.flip(call);
            self.remaining += usize::from(self.calls[call].returned.is_some());
        }
    }

    /// Returns the calls that may come next, sorted by their end. These are the remaining calls
    /// that started before any other remaining call ended.
    fn candidates(&self) -> Vec<usize> {
        let mut candidates = Vec::new();
        let mut first_end = u64::MAX;
        for (number, call) in self.calls.iter().enumerate() {
            if call.called > first_end {
                break;
            }
            if !self.ordered.contains(number) {
                candidates.push(number);
                first_end = first_end.min(call.ended());
            }
        }
        candidates.sort_by_key(|number| self.calls[*number].ended());
        candidates
    }

    fn explain(&self, verdict: &str) -> String {
        let (order, state) = &self.longest;
        let mut text = format!("{verdict}\n  the longest order found ends with these calls:");
        let line = |text: &mut String, call: &RecordedCall| {
            let ended = call.returned.map_or_else(|| "?".to_owned(), |end| end.to_string());
            let _ = write!(text, "\n    [{} to {ended}] {}", call.called, call.text);
        };
        for call in &order[order.len().saturating_sub(SHOWN)..] {
            line(&mut text, self.calls[*call]);
        }
        let _ = write!(
            text,
            "\n  values of the keys after it: {state:?}; none of these calls can follow:"
        );
        let mut first_end = u64::MAX;
        for (number, call) in self.calls.iter().enumerate() {
            if call.called <= first_end && !order.contains(&number) {
                line(&mut text, call);
                first_end = first_end.min(call.ended());
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str, span: (u64, Option<u64>)) -> RecordedCall {
        let mut call = RecordedCall {
            text: text.to_owned(),
            called: span.0,
            returned: span.1,
            seen: Vec::new(),
            wrote: Vec::new(),
        };
        for part in text.split_whitespace() {
            let value = |text: &str| text.parse().ok();
            match part.split_at(2) {
                ("a=", number) => call.wrote.push((0, value(number))),
                ("b=", number) => call.wrote.push((1, value(number))),
                ("a?", number) => call.seen.push((0, Observation::Is(value(number)))),
                ("b?", number) => call.seen.push((1, Observation::Is(value(number)))),
                ("a!", _) => call.seen.push((0, Observation::Present)),
                _ => unreachable!("{part}"),
            }
        }
        call
    }

    fn is_linearizable(calls: &[(&str, u64, u64)]) -> bool {
        // An end of 100 or more means that the call has no reply.
        let span = |from: u64, to: u64| (from, (to < 100).then_some(to));
        let calls: Vec<_> =
            calls.iter().map(|(text, from, to)| call(text, span(*from, *to))).collect();
        check(&calls).is_ok()
    }

    #[test]
    fn sequential_calls_have_exactly_one_order() {
        assert!(is_linearizable(&[("a?-", 0, 1), ("a=1", 2, 3), ("a?1", 4, 5)]));
        assert!(!is_linearizable(&[("a=1", 0, 1), ("a?-", 2, 3)]));
        assert!(!is_linearizable(&[("a=1", 0, 1), ("a=2", 2, 3), ("a?1", 4, 5)]));
    }

    #[test]
    fn concurrent_calls_may_take_effect_in_any_order() {
        assert!(is_linearizable(&[("a=1", 0, 9), ("a=2", 1, 8), ("a?1", 10, 11)]));
        assert!(is_linearizable(&[("a=1", 0, 9), ("a=2", 1, 8), ("a?2", 2, 3), ("a?1", 4, 5)]));
        // The value changes back, but there are only two puts.
        let back = [("a=1", 0, 9), ("a=2", 1, 8), ("a?2", 2, 3), ("a?1", 4, 5), ("a?2", 6, 7)];
        assert!(!is_linearizable(&back));
        // A read sees the value, and a later read does not.
        assert!(!is_linearizable(&[("a=1", 0, 9), ("a?1", 1, 2), ("a?-", 3, 4)]));
    }

    #[test]
    fn torn_batch_is_detected() {
        let batch = [("a=1 b=2", 0, 9), ("a?1", 1, 2)];
        assert!(is_linearizable(&[batch[0], batch[1], ("b?2", 3, 4)]));
        assert!(!is_linearizable(&[batch[0], batch[1], ("b?-", 3, 4)]));
        assert!(!is_linearizable(&[("a=1 b=2", 0, 9), ("a?1 b?-", 1, 2)]));
    }

    #[test]
    fn only_one_concurrent_conditional_write_succeeds() {
        assert!(!is_linearizable(&[("a?- a=1", 0, 9), ("a?- a=2", 1, 8)]));
        assert!(is_linearizable(&[("a?- a=1", 0, 9), ("a?1", 1, 8)]));
        // Two calls take the same entry.
        let taken = [("a=1", 0, 1), ("a?1 a=-", 2, 9), ("a?1 a=-", 3, 8)];
        assert!(!is_linearizable(&taken));
    }

    #[test]
    fn unknown_outcome_may_take_effect_later_or_never() {
        assert!(is_linearizable(&[("a=1", 0, 100), ("a?-", 1, 2), ("a?1", 3, 4)]));
        assert!(is_linearizable(&[("a=1", 0, 100), ("a?-", 1, 2)]));
        assert!(is_linearizable(&[("a=1", 0, 1), ("a=-", 2, 100), ("a?1", 3, 4), ("a?-", 5, 6)]));
        // It takes effect at most once, and not before its start.
        let twice = [("a=1", 0, 100), ("a?1", 1, 2), ("a=-", 3, 4), ("a?1", 5, 6)];
        assert!(!is_linearizable(&twice));
        assert!(!is_linearizable(&[("a?1", 0, 1), ("a=1", 2, 100)]));
        // It has no effect if its condition does not hold.
        let condition = [("a=1", 0, 1), ("a?- a=2", 2, 100), ("a?2", 3, 4)];
        assert!(!is_linearizable(&condition));
        // A reply that only says that an entry exists may have seen it.
        assert!(is_linearizable(&[("a=1", 0, 100), ("a!", 1, 2)]));
    }

    #[test]
    fn many_unknown_outcomes_are_decided() {
        let unknown: Vec<String> = (1..60).map(|number| format!("a={number}")).collect();
        let mut calls: Vec<_> = unknown.iter().map(|text| call(text, (1, None))).collect();
        for number in [7, 3, 9] {
            let at = calls.len() as u64 * 2;
            calls.push(call(&format!("a?{number}"), (at, Some(at + 1))));
        }
        assert_eq!(check(&calls), Ok(()));
        calls.push(call("a?7", (1000, Some(1001))));
        assert!(check(&calls).is_err_and(|text| text.contains("a?7")));
    }
}
