//! Who may write, as a state machine. Pure: time and answers are handed in.

use std::time::Duration;

use tokio::time::Instant;

/// What Redis said to an attempt to take or renew the lease.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// No answer, or an error.
    Failed,
    /// Another token holds it.
    HeldBy(String),
    /// It was ours and is so for longer now.
    Renewed,
    /// It was free and is ours.
    Taken,
}

/// Where this process stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It writes, with this token.
    Leader {
        /// Goes with each write.
        token: String,
        /// Counts up whenever Redis may have lost data or somebody else may have written: then
        /// everything is to be compared again.
        term: u64,
    },
    /// Another process writes.
    Standby {
        /// The token of that process, which begins with its name.
        leader: String,
    },
    /// Not known: Redis has not answered, or not for longer than the lease lasts.
    Unknown,
}

/// One process in the election.
#[derive(Debug)]
pub(super) struct Election {
    name: String,
    ttl: Duration,
    /// Tokens so far: a lease that was lost is never asked for with the same token again, so that a
    /// write that is still on its way cannot be taken for one of the next term.
    tokens: u64,
    term: u64,
    state: State,
    /// When Redis is to be asked next.
    next: Instant,
}

#[derive(Debug, Eq, PartialEq)]
enum State {
    Following(String),
    Leading { until: Instant, troubled: bool },
    Unknown,
}

impl Election {
    /// `name` must be of this process alone.
    pub(super) fn new(name: String, ttl: Duration, now: Instant) -> Self {
        Self { name, ttl, tokens: 0, term: 0, state: State::Unknown, next: now }
    }

    /// The token to ask with.
    pub(super) fn token(&self) -> String {
        format!("{}/{}", self.name, self.tokens)
    }

    /// When something is due: a question to Redis, or the end of a lease that was not renewed.
    pub(super) fn due(&self) -> Instant {
        match &self.state {
            State::Leading { until, .. } => self.next.min(*until),
            State::Following(_) | State::Unknown => self.next,
        }
    }

    /// How long to wait for an answer from `now` on. A lease must not count on because Redis is slow
    /// to say that it is gone.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let patience = self.ttl / 3;
        match &self.state {
            State::Leading { until, .. } => patience.min(until.saturating_duration_since(now)),
            State::Following(_) | State::Unknown => patience,
        }
    }

    /// A write was refused: Redis is to be asked at once.
    pub(super) fn suspect(&mut self, now: Instant) {
        self.next = now;
    }

    /// The standing at `now`; a lease that has run out is none.
    pub(super) fn standing(&mut self, now: Instant) -> Standing {
        if let State::Leading { until, .. } = &self.state
            && now >= *until
        {
            self.lose(State::Unknown);
        }
        match &self.state {
            State::Following(leader) => Standing::Standby { leader: leader.clone() },
            State::Leading { .. } => Standing::Leader { token: self.token(), term: self.term },
            State::Unknown => Standing::Unknown,
        }
    }

    /// Takes in an answer to a question that was asked with `token` at `asked`. The lease counts from
    /// the question: Redis has counted from later on.
    pub(super) fn answered(&mut self, token: &str, asked: Instant, now: Instant, answer: Answer) {
        if token != self.token() {
            // It ran out while Redis thought about it. Whatever it said, the new token asks again.
            self.next = now;
            return;
        }
        self.next = asked + self.ttl / 3;
        let until = asked + self.ttl;
        match answer {
            Answer::Failed => {
                self.next = now + self.ttl / 10;
                if let State::Leading { troubled, .. } = &mut self.state {
                    *troubled = true;
                }
            }
            Answer::HeldBy(other) => self.lose(State::Following(other)),
            Answer::Renewed | Answer::Taken => {
                let goes_on = answer == Answer::Renewed
                    && matches!(self.state, State::Leading { troubled: false, .. });
                if !goes_on {
                    self.term += 1;
                }
                self.state = State::Leading { until, troubled: false };
            }
        }
    }

    fn lose(&mut self, state: State) {
        if matches!(self.state, State::Leading { .. }) {
            self.tokens += 1;
        }
        self.state = state;
    }
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;
