//! The protocol: its rules, its state, and the steps of its clients.

/// The number of writers, and of sweepers, that a state has room for.
const MAX_CLIENTS: usize = 2;

/// The rules of the protocol. Each can be broken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    pub(crate) writers: usize,
    pub(crate) sweepers: usize,
    /// The greatest age of a token that is accepted. The age counts from the request for the token.
    pub(crate) token_lifetime: Lifetime,
    pub(crate) fence_lifetime: Lifetime,
    pub(crate) tokens: TokenSource,
    /// Whether a rejected writer learns the fence, and draws its next token above it.
    pub(crate) reports_fence: bool,
    /// Whether a sweeper checks for entries and raises the fence in one step.
    pub(crate) checks_and_fences_atomically: bool,
    /// Whether a fence is never replaced by a lower one.
    pub(crate) never_lowers_fence: bool,
    /// Whether a name is removed only while it has the token of the fence.
    pub(crate) compares_token: bool,
    /// Whether a sweeper continues without a marker. A writer may have crashed before setting it.
    pub(crate) sweeps_unmarked: bool,
}

/// A duration in units of the model's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lifetime {
    /// The token or fence does not exist.
    Zero,
    For(u8),
    Forever,
}

/// The tokens that a tenant's slot draws. Each is above the reported fence and the name's token in
/// the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TokenSource {
    /// Each token is above all earlier tokens.
    Increasing,
    /// A token may be below earlier tokens, because a failover can turn the clock back. The model
    /// limits the tokens, because their values count here and the number of states must be finite.
    Arbitrary { max: u8 },
}

/// The contents of both slots and the next step of each client. Token 0 means no token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct State {
    // The namespace's slot.
    pub(crate) live: bool,
    pub(crate) marker: bool,
    pub(crate) fence: u8,
    pub(crate) fence_age: u8,
    // The tenant's slot.
    pub(crate) index: u8,
    /// The last token that was drawn.
    pub(crate) drawn: u8,
    // The clients.
    pub(crate) writers: [Writer; MAX_CLIENTS],
    pub(crate) sweepers: [Sweeper; MAX_CLIENTS],
}

/// The next step of a writer. Ages count from the request for a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Writer {
    #[default]
    Put,
    Register {
        age: u8,
        /// The fence that rejected the last token, or 0.
        fence: u8,
    },
    PutWithToken {
        age: u8,
        token: u8,
    },
}

/// The next step of a sweeper.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Sweeper {
    #[default]
    ReadIndex,
    Check(u8),
    /// Only if checking and fencing are two steps.
    Fence(u8),
    Remove(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    TimePasses,
    /// The last entry expires or is deleted.
    EntryRemoved,
    /// The next step of a writer. The number is the distance of a new token from the lowest
    /// possible one.
    Write(usize, u8),
    /// The next step of a sweeper.
    Sweep(usize),
}

impl Lifetime {
    /// Returns the next age. All ages above the lifetime are equivalent, so they are one age.
    fn next_age(self, age: u8) -> u8 {
        match self {
            Self::For(limit) => (age + 1).min(limit + 1),
            Self::Zero | Self::Forever => 0,
        }
    }

    fn includes(self, age: u8) -> bool {
        match self {
            Self::Zero => false,
            Self::For(limit) => age <= limit,
            Self::Forever => true,
        }
    }
}

impl Protocol {
    pub(crate) fn pass_time(&self, state: &mut State) {
        for writer in &mut state.writers {
            if let Writer::Register { age, .. } | Writer::PutWithToken { age, .. } = writer {
                *age = self.token_lifetime.next_age(*age);
            }
        }
        if state.fence != 0 {
            state.fence_age = self.fence_lifetime.next_age(state.fence_age);
            if !self.fence_lifetime.includes(state.fence_age) {
                (state.fence, state.fence_age) = (0, 0);
            }
        }
    }

    /// Takes a writer's step. Returns its next one, or `None` if the token cannot be drawn.
    pub(crate) fn write(&self, state: &mut State, writer: Writer, lead: u8) -> Option<Writer> {
        Some(match writer {
            Writer::Put if state.marker => {
                state.live = true;
                Writer::Put
            }
            Writer::Put => Writer::Register { age: 0, fence: 0 },
            Writer::Register { age, fence } => {
                let token = self.draw(state, fence, lead)?;
                state.index = token;
                Writer::PutWithToken { age, token }
            }
            Writer::PutWithToken { age, token } => {
                // An absent fence is 0, so every token is above it.
                let is_accepted = self.token_lifetime.includes(age) && token > state.fence;
                if !state.marker && !is_accepted {
                    let fence = if self.reports_fence { state.fence } else { 0 };
                    return Some(Writer::Register { age: 0, fence });
                }
                (state.marker, state.live) = (true, true);
                Writer::Put
            }
        })
    }

    fn draw(&self, state: &mut State, fence: u8, lead: u8) -> Option<u8> {
        let above = fence.max(state.index);
        match self.tokens {
            TokenSource::Increasing => {
                state.drawn = above.max(state.drawn) + 1 + lead;
                Some(state.drawn)
            }
            TokenSource::Arbitrary { max } => Some(above + 1 + lead).filter(|token| *token <= max),
        }
    }

    /// Takes a sweeper's step. Returns its next one.
    pub(crate) fn sweep(&self, state: &mut State, sweeper: Sweeper) -> Sweeper {
        match sweeper {
            Sweeper::ReadIndex if state.index == 0 => Sweeper::ReadIndex,
            Sweeper::ReadIndex => Sweeper::Check(state.index),
            Sweeper::Check(_) if state.live => Sweeper::ReadIndex,
            Sweeper::Check(_) if !state.marker && !self.sweeps_unmarked => Sweeper::ReadIndex,
            Sweeper::Check(token) if !self.checks_and_fences_atomically => Sweeper::Fence(token),
            Sweeper::Check(token) | Sweeper::Fence(token) => {
                state.marker = false;
                if self.fence_lifetime != Lifetime::Zero {
                    let keeps_higher = self.never_lowers_fence;
                    state.fence = if keeps_higher { state.fence.max(token) } else { token };
                    state.fence_age = 0;
                }
                Sweeper::Remove(token)
            }
            Sweeper::Remove(token) => {
                if !self.compares_token || state.index == token {
                    state.index = 0;
                }
                Sweeper::ReadIndex
            }
        }
    }

    /// Returns every step that a state may allow.
    pub(crate) fn steps(&self) -> Vec<Step> {
        // Gaps between increasing tokens change nothing, because only their order counts.
        let leads = if let TokenSource::Arbitrary { max } = self.tokens { max } else { 1 };
        let mut steps = vec![Step::TimePasses, Step::EntryRemoved];
        for n in 0..self.writers {
            steps.extend((0..leads).map(|lead| Step::Write(n, lead)));
        }
        steps.extend((0..self.sweepers).map(Step::Sweep));
        steps
    }

    /// Returns the state after a step, or `None` if the state does not allow the step.
    pub(crate) fn after(&self, state: &State, step: Step) -> Option<State> {
        let mut next = *state;
        match step {
            Step::TimePasses => self.pass_time(&mut next),
            Step::EntryRemoved => next.live = false,
            Step::Write(n, lead) => {
                if lead > 0 && !matches!(state.writers[n], Writer::Register { .. }) {
                    return None;
                }
                next.writers[n] = self.write(&mut next, state.writers[n], lead)?;
            }
            Step::Sweep(n) => next.sweepers[n] = self.sweep(&mut next, state.sweepers[n]),
        }
        Some(next)
    }

    /// Returns the representative of all equivalent states. Increasing tokens are only compared, so
    /// they are replaced by their ranks.
    pub(crate) fn canonical(&self, mut state: State) -> State {
        if self.tokens != TokenSource::Increasing {
            return state;
        }
        for writer in &mut state.writers {
            if let Writer::Register { fence, .. } = writer {
                // The next token is above all earlier ones, so the fence does not matter.
                *fence = 0;
            }
        }
        let mut known = 0_u32;
        state.each_token(|token| known |= 1 << *token);
        // 0 is not a token.
        known &= !1;
        let rank = |up_to: u8| (1..=up_to).map(|token| u8::from(known >> token & 1 == 1)).sum();
        state.each_token(|token| *token = rank(*token));
        // The next token is above all tokens in use.
        state.drawn = rank(state.drawn);
        state
    }
}

impl State {
    /// Calls `each` for every token that a later step may use.
    fn each_token(&mut self, mut each: impl FnMut(&mut u8)) {
        each(&mut self.fence);
        each(&mut self.index);
        for writer in &mut self.writers {
            if let Writer::PutWithToken { token, .. } = writer {
                each(token);
            }
        }
        for sweeper in &mut self.sweepers {
            if let Sweeper::Check(token) | Sweeper::Fence(token) | Sweeper::Remove(token) = sweeper
            {
                each(token);
            }
        }
    }
}
