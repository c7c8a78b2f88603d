//! The checker: is there an order of the calls that a store without concurrency would answer alike?
//!
//! The search is that of Wing and Gong (Testing and Verifying Concurrent Objects, 1993) with the
//! memory of Lowe (Testing for Linearizability, 2017): a call may come next unless another ended
//! before it began, and no set of calls is followed twice in the same state. Calls of unknown
//! outcome may come at any later time or never; they are tried last, and those that nobody can have
//! seen are left out.

use std::collections::HashSet;
use std::fmt::Write as _;

/// How many keys a round has.
pub(super) const KEYS: usize = 3;
/// After so many steps of the search a history counts as undecided.
const MOST_STEPS: usize = 5_000_000;
/// How many calls of the longest order an explanation shows.
const SHOWN: usize = 8;

/// The number of the value of each key; `None` where there is none.
pub(super) type State = [Option<u64>; KEYS];

/// What a call has seen of a key, or what an unknown one asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Seen {
    /// That value, or none.
    Is(Option<u64>),
    /// Some value.
    Something,
}

impl Seen {
    fn fits(self, value: Option<u64>) -> bool {
        match self {
            Self::Is(seen) => value == seen,
            Self::Something => value.is_some(),
        }
    }
}

/// One call as it was made and answered. Everything that a store can be asked is of this form: if
/// it sees this, it does that.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// What an explanation says.
    pub(super) text: String,
    pub(super) called: u64,
    /// `None`: the outcome is unknown.
    pub(super) returned: Option<u64>,
    pub(super) seen: Vec<(usize, Seen)>,
    /// What stands at these keys afterwards. A call of unknown outcome that does not see what it
    /// asked for does nothing.
    pub(super) wrote: Vec<(usize, Option<u64>)>,
}

impl Call {
    /// The state after the call, unless it cannot be answered so in this one.
    fn apply(&self, state: &State) -> Option<State> {
        let fits = self.seen.iter().all(|(key, seen)| seen.fits(state[*key]));
        if !fits {
            return None;
        }
        let mut after = *state;
        for (key, value) in &self.wrote {
            after[*key] = *value;
        }
        // One that is unknown and changes nothing need not have been made.
        (self.returned.is_some() || after != *state).then_some(after)
    }

    fn ended(&self) -> u64 {
        self.returned.unwrap_or(u64::MAX)
    }
}

/// Finds an order for the calls, from nothing at all on.
///
/// # Errors
/// An explanation, if there is none.
pub(super) fn check(calls: &[Call]) -> Result<(), String> {
    let mut calls: Vec<&Call> = calls.iter().collect();
    leave_out_unseen(&mut calls);
    calls.sort_by_key(|call| call.called);
    Search::new(&calls).run()
}

/// Leaves out the puts of unknown outcome whose values no call has seen: whether they were made or
/// not, no answer differs. (It would if an answer said that there is something and not what.)
fn leave_out_unseen(calls: &mut Vec<&Call>) {
    let answered = || calls.iter().filter(|call| call.returned.is_some());
    let is_blind =
        answered().any(|call| call.seen.iter().any(|(_, seen)| *seen == Seen::Something));
    if is_blind {
        return;
    }
    let seen: HashSet<(usize, Seen)> =
        answered().flat_map(|call| call.seen.iter().copied()).collect();
    calls.retain(|call| {
        let is_seen = |(key, value): &(usize, Option<u64>)| {
            value.is_none() || seen.contains(&(*key, Seen::Is(*value)))
        };
        call.returned.is_some() || call.wrote.iter().any(is_seen)
    });
}

/// What has been put in order so far.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Done(Vec<u64>);

impl Done {
    fn contains(&self, call: usize) -> bool {
        self.0[call / 64] & (1 << (call % 64)) != 0
    }

    fn flip(&mut self, call: usize) {
        self.0[call / 64] ^= 1 << (call % 64);
    }
}

/// A place on the way: the state there, and which calls may come next.
struct Place {
    state: State,
    next: std::vec::IntoIter<usize>,
    /// The call that led here.
    by: Option<usize>,
}

struct Search<'a> {
    calls: &'a [&'a Call],
    done: Done,
    /// How many calls that were answered are not in order yet.
    left: usize,
    way: Vec<Place>,
    visited: HashSet<(Done, State)>,
    /// The longest order that was found: its calls, and the state at its end.
    longest: (Vec<usize>, State),
}

impl<'a> Search<'a> {
    fn new(calls: &'a [&'a Call]) -> Self {
        Self {
            calls,
            done: Done(vec![0; calls.len().div_ceil(64)]),
            left: calls.iter().filter(|call| call.returned.is_some()).count(),
            way: Vec::new(),
            visited: HashSet::new(),
            longest: (Vec::new(), State::default()),
        }
    }

    fn run(mut self) -> Result<(), String> {
        self.go_to(State::default(), None);
        for _ in 0..MOST_STEPS {
            if self.left == 0 {
                return Ok(());
            }
            let Some(place) = self.way.last_mut() else {
                return Err(self.explain("no order of these calls explains their answers"));
            };
            let state = place.state;
            match place.next.next() {
                Some(call) => self.try_next(call, &state),
                None => self.go_back(),
            }
        }
        Err(self.explain("undecided: too many orders to try"))
    }

    fn try_next(&mut self, call: usize, state: &State) {
        let Some(after) = self.calls[call].apply(state) else {
            return;
        };
        self.done.flip(call);
        if self.visited.insert((self.done.clone(), after)) {
            self.left -= usize::from(self.calls[call].returned.is_some());
            self.go_to(after, Some(call));
        } else {
            self.done.flip(call);
        }
    }

    fn go_to(&mut self, state: State, by: Option<usize>) {
        let next = self.candidates().into_iter();
        self.way.push(Place { state, next, by });
        if self.way.len() > self.longest.0.len() + 1 {
            let order = self.way.iter().filter_map(|place| place.by).collect();
            self.longest = (order, state);
        }
    }

    fn go_back(&mut self) {
        if let Some(call) = self.way.pop().and_then(|place| place.by) {
            self.done.flip(call);
            self.left += usize::from(self.calls[call].returned.is_some());
        }
    }

    /// The calls that began before any other that is left had ended, those that ended first first.
    fn candidates(&self) -> Vec<usize> {
        let mut candidates = Vec::new();
        let mut first_end = u64::MAX;
        for (number, call) in self.calls.iter().enumerate() {
            if call.called > first_end {
                break;
            }
            if !self.done.contains(number) {
                candidates.push(number);
                first_end = first_end.min(call.ended());
            }
        }
        candidates.sort_by_key(|number| self.calls[*number].ended());
        candidates
    }

    fn explain(&self, verdict: &str) -> String {
        let (order, state) = &self.longest;
        let mut text = format!("{verdict}\n  the longest order found ends with");
        let line = |text: &mut String, call: &Call| {
            let ended = call.returned.map_or_else(|| "?".to_owned(), |end| end.to_string());
            let _ = write!(text, "\n    [{} to {ended}] {}", call.called, call.text);
        };
        for call in &order[order.len().saturating_sub(SHOWN)..] {
            line(&mut text, self.calls[*call]);
        }
        let _ = write!(text, "\n  which leaves {state:?}; none of these can follow");
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

    fn call(text: &str, span: (u64, Option<u64>)) -> Call {
        let mut call = Call {
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
                ("a?", number) => call.seen.push((0, Seen::Is(value(number)))),
                ("b?", number) => call.seen.push((1, Seen::Is(value(number)))),
                ("a!", _) => call.seen.push((0, Seen::Something)),
                _ => unreachable!("{part}"),
            }
        }
        call
    }

    fn is_linearizable(calls: &[(&str, u64, u64)]) -> bool {
        // Past 100: it never ended.
        let span = |from: u64, to: u64| (from, (to < 100).then_some(to));
        let calls: Vec<_> =
            calls.iter().map(|(text, from, to)| call(text, span(*from, *to))).collect();
        check(&calls).is_ok()
    }

    #[test]
    fn calls_one_after_the_other_have_one_order() {
        assert!(is_linearizable(&[("a?-", 0, 1), ("a=1", 2, 3), ("a?1", 4, 5)]));
        assert!(!is_linearizable(&[("a=1", 0, 1), ("a?-", 2, 3)]));
        assert!(!is_linearizable(&[("a=1", 0, 1), ("a=2", 2, 3), ("a?1", 4, 5)]));
    }

    #[test]
    fn calls_at_once_have_any_order() {
        assert!(is_linearizable(&[("a=1", 0, 9), ("a=2", 1, 8), ("a?1", 10, 11)]));
        assert!(is_linearizable(&[("a=1", 0, 9), ("a=2", 1, 8), ("a?2", 2, 3), ("a?1", 4, 5)]));
        // Back and forth is no order.
        let back = [("a=1", 0, 9), ("a=2", 1, 8), ("a?2", 2, 3), ("a?1", 4, 5), ("a?2", 6, 7)];
        assert!(!is_linearizable(&back));
        // Seen, and then not seen any more.
        assert!(!is_linearizable(&[("a=1", 0, 9), ("a?1", 1, 2), ("a?-", 3, 4)]));
    }

    #[test]
    fn writes_of_several_keys_are_seen_whole() {
        let batch = [("a=1 b=2", 0, 9), ("a?1", 1, 2)];
        assert!(is_linearizable(&[batch[0], batch[1], ("b?2", 3, 4)]));
        assert!(!is_linearizable(&[batch[0], batch[1], ("b?-", 3, 4)]));
        assert!(!is_linearizable(&[("a=1 b=2", 0, 9), ("a?1 b?-", 1, 2)]));
    }

    #[test]
    fn of_two_conditional_writes_at_once_one_is_made() {
        assert!(!is_linearizable(&[("a?- a=1", 0, 9), ("a?- a=2", 1, 8)]));
        assert!(is_linearizable(&[("a?- a=1", 0, 9), ("a?1", 1, 8)]));
        // Both take the same.
        let taken = [("a=1", 0, 1), ("a?1 a=-", 2, 9), ("a?1 a=-", 3, 8)];
        assert!(!is_linearizable(&taken));
    }

    #[test]
    fn an_unknown_outcome_may_come_true_at_any_later_time_or_never() {
        assert!(is_linearizable(&[("a=1", 0, 100), ("a?-", 1, 2), ("a?1", 3, 4)]));
        assert!(is_linearizable(&[("a=1", 0, 100), ("a?-", 1, 2)]));
        assert!(is_linearizable(&[("a=1", 0, 1), ("a=-", 2, 100), ("a?1", 3, 4), ("a?-", 5, 6)]));
        // But once only, and not before it was asked for.
        let twice = [("a=1", 0, 100), ("a?1", 1, 2), ("a=-", 3, 4), ("a?1", 5, 6)];
        assert!(!is_linearizable(&twice));
        assert!(!is_linearizable(&[("a?1", 0, 1), ("a=1", 2, 100)]));
        // It does nothing where its condition does not hold.
        let condition = [("a=1", 0, 1), ("a?- a=2", 2, 100), ("a?2", 3, 4)];
        assert!(!is_linearizable(&condition));
        // Something was there: it may have been that.
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
