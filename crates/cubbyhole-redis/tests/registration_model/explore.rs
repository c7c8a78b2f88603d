//! The exploration of all reachable states, the guarantees, and counterexamples.

use std::collections::HashSet;
use std::fmt;

use crate::protocol::{Lifetime, Protocol, State, Step, Sweeper, Writer};

/// The most steps that an undisturbed writer may need from any state: two rejections, the second of
/// which reports the fence, and one more round.
const MAX_WRITER_STEPS: usize = 5;

/// A guarantee that a state breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Violation {
    LiveButNotListed,
    NeverSwept,
    WriterNeverSucceeds,
}

/// The result of exploring a protocol.
pub(crate) struct Exploration {
    pub(crate) states: usize,
    /// The shortest path to a violation, if there is one.
    pub(crate) counterexample: Option<Counterexample>,
}

pub(crate) struct Counterexample {
    pub(crate) violation: Violation,
    protocol: Protocol,
    steps: Vec<Step>,
}

/// Explores a protocol breadth first, so the first violation takes the fewest steps.
pub(crate) fn explore(protocol: &Protocol) -> Exploration {
    let steps = protocol.steps();
    // Each state with the index of its predecessor and the step from there.
    let mut states = vec![(State::default(), 0, Step::TimePasses)];
    let mut seen = HashSet::from([State::default()]);
    let mut at = 0;
    while let Some((state, ..)) = states.get(at).copied() {
        if let Some(violation) = violation(protocol, &state) {
            let mut path = Vec::new();
            while at > 0 {
                let (_, before, step) = states[at];
                path.push(step);
                at = before;
            }
            path.reverse();
            let counterexample = Counterexample { violation, protocol: *protocol, steps: path };
            return Exploration { states: states.len(), counterexample: Some(counterexample) };
        }
        for step in &steps {
            if let Some(next) = protocol.after(&state, *step) {
                let next = protocol.canonical(next);
                if seen.insert(next) {
                    states.push((next, at, *step));
                }
            }
        }
        at += 1;
    }
    Exploration { states: states.len(), counterexample: None }
}

fn violation(protocol: &Protocol, state: &State) -> Option<Violation> {
    if state.live && state.index == 0 {
        return Some(Violation::LiveButNotListed);
    }
    if !state.live && !sweep_cleans_up(protocol, *state) {
        return Some(Violation::NeverSwept);
    }
    // The last one is a new writer.
    let writers = state.writers[..protocol.writers].iter().chain([&Writer::Put]);
    for writer in writers {
        if !writer_succeeds(protocol, *state, *writer) {
            return Some(Violation::WriterNeverSucceeds);
        }
    }
    None
}

/// Returns whether one undisturbed sweep and some time remove everything, even if all other clients
/// have crashed.
fn sweep_cleans_up(protocol: &Protocol, mut state: State) -> bool {
    let mut sweeper = protocol.sweep(&mut state, Sweeper::ReadIndex);
    while sweeper != Sweeper::ReadIndex {
        sweeper = protocol.sweep(&mut state, sweeper);
    }
    if let Lifetime::For(units) = protocol.fence_lifetime {
        for _ in 0..=units {
            protocol.pass_time(&mut state);
        }
    }
    let is_fenced = state.fence != 0 && protocol.fence_lifetime != Lifetime::Forever;
    state.index == 0 && !state.marker && !is_fenced
}

/// Returns whether an undisturbed writer succeeds within the limit of steps.
fn writer_succeeds(protocol: &Protocol, mut state: State, mut writer: Writer) -> bool {
    state.live = false;
    for _ in 0..MAX_WRITER_STEPS {
        // A bounded model has no token left.
        let Some(next) = protocol.write(&mut state, writer, 0) else { return true };
        writer = next;
        if state.live {
            return true;
        }
    }
    false
}

impl Counterexample {
    /// Returns whether time passes in a step.
    pub(crate) fn takes_time(&self) -> bool {
        self.steps.contains(&Step::TimePasses)
    }
}

impl fmt::Display for Counterexample {
    /// Repeats the steps, to print the tokens as the slot would draw them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut state = State::default();
        for step in &self.steps {
            let Some(after) = self.protocol.after(&state, *step) else { return Err(fmt::Error) };
            write!(f, "  ")?;
            match *step {
                Step::TimePasses if state.fence != 0 && after.fence == 0 => {
                    write!(f, "time passes; the fence expires")?;
                }
                Step::TimePasses => write!(f, "time passes")?,
                Step::EntryRemoved => write!(f, "the entry expires or is deleted")?,
                Step::Write(n, _) => {
                    write!(f, "writer {}: ", n + 1)?;
                    match (state.writers[n], after.writers[n]) {
                        (_, Writer::PutWithToken { token, .. }) => {
                            write!(f, "lists the name with token {token}")
                        }
                        (Writer::PutWithToken { token, .. }, Writer::Put) => {
                            write!(f, "puts with token {token}")
                        }
                        (Writer::PutWithToken { token, .. }, Writer::Register { .. }) => {
                            write!(f, "is rejected with token {token}")
                        }
                        (_, Writer::Register { .. }) => write!(f, "is rejected without a token"),
                        (_, Writer::Put) => write!(f, "puts"),
                    }?;
                }
                Step::Sweep(n) => {
                    write!(f, "sweeper {}: ", n + 1)?;
                    match (state.sweepers[n], after.sweepers[n]) {
                        (_, Sweeper::Check(token)) => write!(f, "reads token {token} in the index"),
                        (_, Sweeper::Fence(_)) => write!(f, "finds no entry"),
                        (_, Sweeper::Remove(_)) if after.fence == 0 => {
                            write!(f, "removes the marker")
                        }
                        (_, Sweeper::Remove(_)) => {
                            write!(f, "removes the marker, fence {}", after.fence)
                        }
                        (Sweeper::Remove(_), _) if after.index == 0 => {
                            write!(f, "removes the name from the index")
                        }
                        (_, Sweeper::ReadIndex) => write!(f, "skips the namespace"),
                    }?;
                }
            }
            writeln!(f)?;
            state = after;
        }
        let violation = match self.violation {
            Violation::LiveButNotListed => "the namespace is live and not listed",
            Violation::NeverSwept => "no sweep removes the remaining keys",
            Violation::WriterNeverSucceeds => "a writer repeats its steps indefinitely",
        };
        writeln!(f, "  result: {violation}")
    }
}
