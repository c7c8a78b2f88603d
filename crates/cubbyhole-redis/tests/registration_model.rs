//! A small model of the protocol that registers a namespace in a Redis Cluster, explored in full.
//!
//! A namespace's data and its tenant's index of namespaces lie in different slots, and no step
//! touches both. The model takes every order in which the steps of some clients can fall, with time
//! passing anywhere between them, and checks in each state that can come about what a listing and
//! an operator rely on. A client that crashes takes no further step, and a request that the network
//! holds back takes its step late: both are among these orders. So is each client starting over as
//! often as it likes, because the state says nothing that grows: tokens count by their order only,
//! and ages up to where nothing depends on them any more.
//!
//! A reader of a listing asks the index first and the namespace then. It needs no steps here: it
//! misses nothing if what is live is in the index in every state.
//!
//! Each test of a broken protocol shows that the exploration would find that mistake; run with
//! `--nocapture` they print the steps that lose a namespace. ARCHITECTURE.md has the argument why
//! the protocol holds, and the scripts are the protocol.
#![expect(clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]
#![expect(
    clippy::print_stdout,
    clippy::disallowed_macros,
    reason = "counts and traces are for who reads the output of the tests"
)]

use std::collections::HashSet;
use std::fmt;

/// The most writers, and the most tidiers, that a state has room for.
const MOST: usize = 2;
/// How many steps an undisturbed writer may take from wherever it stands: two refusals, the second
/// of which tells it the fence, and the round that follows.
const PATIENCE: usize = 5;

/// The rules of the protocol, each of which can be broken.
#[derive(Clone, Copy, Debug)]
struct Protocol {
    writers: usize,
    tidiers: usize,
    /// How old a token may be when it registers, counted from when it was asked for.
    validity: Lasts,
    fence: Lasts,
    tokens: Tokens,
    /// Whether a refused writer is told the fence, for its next token to be above it.
    tells_fence: bool,
    /// Whether a tidier raises the fence in the step in which it finds nothing live.
    looks_as_it_fences: bool,
    /// Whether a fence never gives way to a lower one.
    only_raises: bool,
    /// Whether a name is removed only while it has the token that the fence was raised to.
    compares: bool,
    /// Whether a tidier goes on where it finds no marker: a writer may have crashed before it.
    tidies_unmarked: bool,
}

/// How long something holds, in units of the model's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lasts {
    /// There is no such thing.
    Not,
    For(u8),
    Forever,
}

/// What a tenant's slot knows when it draws a token, besides the fence told and the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tokens {
    /// Every earlier token.
    Rising,
    /// Nothing: its clock may stand anywhere, as after a failover. Tokens go up to this one, since
    /// more than their order counts here and the states must end.
    Anywhere(u8),
}

const SOUND: Protocol = Protocol {
    writers: 2,
    tidiers: 2,
    validity: Lasts::For(1),
    fence: Lasts::For(3),
    tokens: Tokens::Rising,
    tells_fence: true,
    looks_as_it_fences: true,
    only_raises: true,
    compares: true,
    tidies_unmarked: true,
};

/// What both slots hold and where each client stands. A token of 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
struct State {
    // The namespace's slot.
    live: bool,
    marker: bool,
    fence: u8,
    fence_age: u8,
    // The tenant's slot.
    index: u8,
    /// The last token drawn.
    drawn: u8,
    // The clients.
    writers: [Writer; MOST],
    tidiers: [Tidier; MOST],
}

/// What a writer does next. Its age is that of its request for a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Writer {
    #[default]
    Asks,
    Draws {
        age: u8,
        told: u8,
    },
    Writes {
        age: u8,
        token: u8,
    },
}

/// What a tidier does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Tidier {
    #[default]
    Reads,
    Looks(u8),
    /// Only where looking and fencing are two steps.
    Fences(u8),
    Removes(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    TimePasses,
    /// The last entry expires or is deleted.
    EntryGoes,
    /// A writer's next step; the number is how far a token lies above the lowest that could be.
    Write(usize, u8),
    Tidy(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    LiveButNotListed,
    LeftForEver,
    WriterNeverDone,
}

/// What exploring a protocol found.
struct Explored {
    states: usize,
    /// The shortest way to a broken promise, if there is one.
    counterexample: Option<Counterexample>,
}

struct Counterexample {
    broken: Broken,
    protocol: Protocol,
    steps: Vec<Step>,
}

impl Lasts {
    /// An age after another unit of time. Ages end where all that is older is treated alike.
    fn older(self, age: u8) -> u8 {
        match self {
            Self::For(limit) => (age + 1).min(limit + 1),
            Self::Not | Self::Forever => 0,
        }
    }

    fn holds_at(self, age: u8) -> bool {
        match self {
            Self::Not => false,
            Self::For(limit) => age <= limit,
            Self::Forever => true,
        }
    }
}

impl Protocol {
    fn time_passes(&self, state: &mut State) {
        for writer in &mut state.writers {
            if let Writer::Draws { age, .. } | Writer::Writes { age, .. } = writer {
                *age = self.validity.older(*age);
            }
        }
        if state.fence != 0 {
            state.fence_age = self.fence.older(state.fence_age);
            if !self.fence.holds_at(state.fence_age) {
                (state.fence, state.fence_age) = (0, 0);
            }
        }
    }

    /// A writer's next step: where it stands after it, or nothing if this token cannot be drawn.
    fn write(&self, state: &mut State, writer: Writer, lead: u8) -> Option<Writer> {
        let needs_token = |told| Writer::Draws { age: 0, told };
        Some(match writer {
            Writer::Asks if state.marker => {
                state.live = true;
                Writer::Asks
            }
            Writer::Asks => needs_token(0),
            Writer::Draws { age, told } => {
                let token = self.draw(state, told, lead)?;
                state.index = token;
                Writer::Writes { age, token }
            }
            Writer::Writes { age, token } => {
                // No fence, or one that expired, is 0, which every token is above.
                let is_accepted = self.validity.holds_at(age) && token > state.fence;
                if !state.marker && !is_accepted {
                    return Some(needs_token(if self.tells_fence { state.fence } else { 0 }));
                }
                (state.marker, state.live) = (true, true);
                Writer::Asks
            }
        })
    }

    fn draw(&self, state: &mut State, told: u8, lead: u8) -> Option<u8> {
        let above = told.max(state.index);
        match self.tokens {
            Tokens::Rising => {
                state.drawn = above.max(state.drawn) + 1 + lead;
                Some(state.drawn)
            }
            Tokens::Anywhere(last) => Some(above + 1 + lead).filter(|token| *token <= last),
        }
    }

    fn tidy(&self, state: &mut State, tidier: Tidier) -> Tidier {
        match tidier {
            Tidier::Reads if state.index == 0 => Tidier::Reads,
            Tidier::Reads => Tidier::Looks(state.index),
            Tidier::Looks(_) if state.live => Tidier::Reads,
            Tidier::Looks(_) if !state.marker && !self.tidies_unmarked => Tidier::Reads,
            Tidier::Looks(token) if !self.looks_as_it_fences => Tidier::Fences(token),
            Tidier::Looks(token) | Tidier::Fences(token) => {
                state.marker = false;
                if self.fence != Lasts::Not {
                    state.fence = if self.only_raises { state.fence.max(token) } else { token };
                    state.fence_age = 0;
                }
                Tidier::Removes(token)
            }
            Tidier::Removes(token) => {
                if !self.compares || state.index == token {
                    state.index = 0;
                }
                Tidier::Reads
            }
        }
    }

    fn steps(&self) -> Vec<Step> {
        // That others have drawn in between makes no difference to a counter that only rises.
        let leads = if let Tokens::Anywhere(last) = self.tokens { last } else { 1 };
        let mut steps = vec![Step::TimePasses, Step::EntryGoes];
        for n in 0..self.writers {
            steps.extend((0..leads).map(|lead| Step::Write(n, lead)));
        }
        steps.extend((0..self.tidiers).map(Step::Tidy));
        steps
    }

    /// The state after a step, or nothing if the step cannot be taken.
    fn after(&self, state: &State, step: Step) -> Option<State> {
        let mut next = *state;
        match step {
            Step::TimePasses => self.time_passes(&mut next),
            Step::EntryGoes => next.live = false,
            Step::Write(n, lead) => {
                if lead > 0 && !matches!(state.writers[n], Writer::Draws { .. }) {
                    return None;
                }
                next.writers[n] = self.write(&mut next, state.writers[n], lead)?;
            }
            Step::Tidy(n) => next.tidiers[n] = self.tidy(&mut next, state.tidiers[n]),
        }
        Some(next)
    }

    fn broken_promise(&self, state: &State) -> Option<Broken> {
        if state.live && state.index == 0 {
            return Some(Broken::LiveButNotListed);
        }
        if !state.live && !self.is_cleaned_up(*state) {
            return Some(Broken::LeftForEver);
        }
        // Also one that comes anew.
        let writers = state.writers[..self.writers].iter().chain([&Writer::Asks]);
        for writer in writers {
            if !self.gets_done(*state, *writer) {
                return Some(Broken::WriterNeverDone);
            }
        }
        None
    }

    /// Whether one undisturbed tidy and some time leave nothing, whoever crashed where.
    fn is_cleaned_up(&self, mut state: State) -> bool {
        let mut tidier = self.tidy(&mut state, Tidier::Reads);
        while tidier != Tidier::Reads {
            tidier = self.tidy(&mut state, tidier);
        }
        if let Lasts::For(units) = self.fence {
            for _ in 0..=units {
                self.time_passes(&mut state);
            }
        }
        let is_fenced = state.fence != 0 && self.fence != Lasts::Forever;
        state.index == 0 && !state.marker && !is_fenced
    }

    fn gets_done(&self, mut state: State, mut writer: Writer) -> bool {
        state.live = false;
        for _ in 0..PATIENCE {
            // Past the last token of a bounded model there is nothing to say.
            let Some(next) = self.write(&mut state, writer, 0) else { return true };
            writer = next;
            if state.live {
                return true;
            }
        }
        false
    }

    /// The same state as far as anything that follows can tell. Tokens are only compared, so they
    /// can be numbered anew in the order in which they stand.
    fn canonical(&self, mut state: State) -> State {
        if self.tokens != Tokens::Rising {
            return state;
        }
        for writer in &mut state.writers {
            if let Writer::Draws { told, .. } = writer {
                // The counter is above whatever was told.
                *told = 0;
            }
        }
        let mut known = 0_u32;
        state.each_token(|token| known |= 1 << *token);
        // None stays none.
        known &= !1;
        let rank = |up_to: u8| (1..=up_to).map(|token| u8::from(known >> token & 1 == 1)).sum();
        state.each_token(|token| *token = rank(*token));
        // The next token is above all of these in any case.
        state.drawn = rank(state.drawn);
        state
    }

    /// Breadth first, so that the first broken promise is one that takes the fewest steps.
    fn explore(&self) -> Explored {
        let steps = self.steps();
        // Each state with the one before it and the step between them.
        let mut states = vec![(State::default(), 0, Step::TimePasses)];
        let mut seen = HashSet::from([State::default()]);
        let mut at = 0;
        while let Some((state, ..)) = states.get(at).copied() {
            if let Some(broken) = self.broken_promise(&state) {
                let mut way = Vec::new();
                while at > 0 {
                    let (_, before, step) = states[at];
                    way.push(step);
                    at = before;
                }
                way.reverse();
                let counterexample = Counterexample { broken, protocol: *self, steps: way };
                return Explored { states: states.len(), counterexample: Some(counterexample) };
            }
            for step in &steps {
                if let Some(next) = self.after(&state, *step) {
                    let next = self.canonical(next);
                    if seen.insert(next) {
                        states.push((next, at, *step));
                    }
                }
            }
            at += 1;
        }
        Explored { states: states.len(), counterexample: None }
    }
}

impl State {
    /// Every token that somebody may still use.
    fn each_token(&mut self, mut each: impl FnMut(&mut u8)) {
        each(&mut self.fence);
        each(&mut self.index);
        for writer in &mut self.writers {
            if let Writer::Writes { token, .. } = writer {
                each(token);
            }
        }
        for tidier in &mut self.tidiers {
            if let Tidier::Looks(token) | Tidier::Fences(token) | Tidier::Removes(token) = tidier {
                each(token);
            }
        }
    }
}

impl Counterexample {
    fn takes_time(&self) -> bool {
        self.steps.contains(&Step::TimePasses)
    }
}

impl fmt::Display for Counterexample {
    /// The steps again, with the tokens as they would be drawn.
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
                Step::EntryGoes => write!(f, "the entry expires or is deleted")?,
                Step::Write(n, _) => {
                    write!(f, "writer {}: ", n + 1)?;
                    match (state.writers[n], after.writers[n]) {
                        (_, Writer::Writes { token, .. }) => write!(f, "lists the name as {token}"),
                        (Writer::Writes { token, .. }, Writer::Asks) => {
                            write!(f, "writes with token {token}")
                        }
                        (Writer::Writes { token, .. }, Writer::Draws { .. }) => {
                            write!(f, "is refused with token {token}")
                        }
                        (_, Writer::Draws { .. }) => write!(f, "is asked for a token"),
                        (_, Writer::Asks) => write!(f, "writes"),
                    }?;
                }
                Step::Tidy(n) => {
                    write!(f, "tidier {}: ", n + 1)?;
                    match (state.tidiers[n], after.tidiers[n]) {
                        (_, Tidier::Looks(token)) => write!(f, "reads {token} in the index"),
                        (_, Tidier::Fences(_)) => write!(f, "finds nothing live"),
                        (_, Tidier::Removes(_)) if after.fence == 0 => {
                            write!(f, "removes the marker")
                        }
                        (_, Tidier::Removes(_)) => {
                            write!(f, "removes the marker, fence {}", after.fence)
                        }
                        (Tidier::Removes(_), _) if after.index == 0 => {
                            write!(f, "unlists the name")
                        }
                        (_, Tidier::Reads) => write!(f, "leaves it"),
                    }?;
                }
            }
            writeln!(f)?;
            state = after;
        }
        let broken = match self.broken {
            Broken::LiveButNotListed => "the namespace is live and not listed",
            Broken::LeftForEver => "no tidy ever removes what is left",
            Broken::WriterNeverDone => "a writer goes round for ever",
        };
        writeln!(f, "  now {broken}")
    }
}

/// Explores a protocol that keeps every promise.
fn holds(what: &str, protocol: Protocol) {
    let Explored { states, counterexample } = protocol.explore();
    println!("{what}: {states} states");
    if let Some(counterexample) = counterexample {
        panic!("{what}:\n{counterexample}");
    }
    // An exploration that went nowhere would find nothing either.
    assert!(states > 2_000, "{what}: only {states} states");
}

/// Explores a protocol that breaks this promise first.
fn breaks(what: &str, protocol: Protocol, promise: Broken) -> Counterexample {
    let found = protocol.explore().counterexample.expect("a mistake is found");
    println!("{what}:\n{found}");
    assert_eq!(found.broken, promise, "{what}:\n{found}");
    found
}

fn loses_a_namespace(what: &str, protocol: Protocol) -> Counterexample {
    breaks(what, protocol, Broken::LiveButNotListed)
}

#[test]
fn what_is_live_is_listed_in_every_state_and_nothing_stays_or_waits_for_ever() {
    holds("the protocol", SOUND);
}

#[test]
fn removing_empty_namespaces_without_token_and_fence_loses_a_live_one() {
    let naive = Protocol {
        validity: Lasts::Forever,
        fence: Lasts::Not,
        compares: false,
        writers: 1,
        tidiers: 1,
        ..SOUND
    };
    assert!(!loses_a_namespace("naive", naive).takes_time());
}

#[test]
fn without_the_fence_a_live_namespace_is_lost() {
    let found = loses_a_namespace("no fence", Protocol { fence: Lasts::Not, ..SOUND });
    assert!(!found.takes_time());
}

#[test]
fn removing_a_name_whatever_its_token_loses_a_live_namespace() {
    let found = loses_a_namespace("no comparison", Protocol { compares: false, ..SOUND });
    assert!(!found.takes_time());
}

#[test]
fn a_fence_that_expires_before_tokens_do_loses_a_live_namespace() {
    let (validity, fence) = (Lasts::For(2), Lasts::For(1));
    let found = loses_a_namespace("short fence", Protocol { validity, fence, ..SOUND });
    assert!(found.takes_time());
}

#[test]
fn a_fence_need_not_outlive_the_tokens_it_refuses() {
    let (validity, fence) = (Lasts::For(2), Lasts::For(2));
    holds("a fence as long as the window", Protocol { validity, fence, ..SOUND });
}

#[test]
fn tokens_that_are_valid_for_ever_need_fences_that_stay_for_ever() {
    let forever = Protocol { validity: Lasts::Forever, ..SOUND };
    assert!(loses_a_namespace("no window", forever).takes_time());
    holds("no window, lasting fence", Protocol { fence: Lasts::Forever, ..forever });
}

#[test]
fn looking_and_fencing_in_two_steps_loses_a_live_namespace() {
    let found = loses_a_namespace("two steps", Protocol { looks_as_it_fences: false, ..SOUND });
    assert!(!found.takes_time());
}

#[test]
fn a_tidier_that_lowers_the_fence_loses_a_live_namespace() {
    let found = loses_a_namespace("lowered fence", Protocol { only_raises: false, ..SOUND });
    assert!(!found.takes_time());
}

/// A tidier that is held back for longer than the fence lasts can remove the name that a later
/// writer listed with the same token. While the fence lasts it refuses such a token.
#[test]
fn tokens_may_repeat_while_the_fence_lasts_and_not_after_it() {
    let tokens = Tokens::Anywhere(3);
    let found = loses_a_namespace("repeated tokens", Protocol { tokens, writers: 1, ..SOUND });
    assert!(found.takes_time());
    holds("repeated tokens, lasting fence", Protocol { tokens, fence: Lasts::Forever, ..SOUND });
}

#[test]
fn a_writer_that_is_not_told_the_fence_may_never_get_done() {
    let tokens = Tokens::Anywhere(3);
    let untold = Protocol { tokens, tells_fence: false, ..SOUND };
    breaks("untold fence", untold, Broken::WriterNeverDone);
}

#[test]
fn a_tidier_that_stops_without_a_marker_leaves_a_name_for_ever() {
    let stops = Protocol { tidies_unmarked: false, ..SOUND };
    breaks("stops without a marker", stops, Broken::LeftForEver);
}
