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

    /// When the lease ends, if this process holds one.
    pub(super) fn until(&self) -> Option<Instant> {
        match &self.state {
            State::Leading { until, .. } => Some(*until),
            State::Following(_) | State::Unknown => None,
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
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::{Answer, Election, Standing};

    const TTL: Duration = Duration::from_secs(9);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn leads(election: &mut Election, now: Instant) -> bool {
        matches!(election.standing(now), Standing::Leader { .. })
    }

    fn term(election: &mut Election, now: Instant) -> u64 {
        match election.standing(now) {
            Standing::Leader { term, .. } => term,
            other => panic!("{other:?}"),
        }
    }

    /// Asks and hears at once.
    fn ask(election: &mut Election, now: Instant, answer: Answer) {
        let token = election.token();
        election.answered(&token, now, now, answer);
    }

    #[test]
    fn a_leader_renews_each_third_and_ends_with_its_lease() {
        let start = Instant::now();
        let mut election = Election::new("me".to_owned(), TTL, start);
        assert_eq!((election.due(), election.standing(start)), (start, Standing::Unknown));
        ask(&mut election, start, Answer::Taken);
        assert_eq!(election.due(), start + seconds(3));
        let first = election.token();
        assert_eq!(election.standing(start), Standing::Leader { token: first.clone(), term: 1 });
        ask(&mut election, start + seconds(3), Answer::Failed);
        ask(&mut election, start + seconds(8), Answer::Failed);
        assert_eq!(election.due(), start + seconds(8) + TTL / 10);
        assert!(leads(&mut election, start + seconds(8)));
        assert_eq!(election.patience(start + seconds(8)), seconds(1));
        ask(&mut election, start + Duration::from_millis(8900), Answer::Failed);
        assert_eq!(election.due(), start + TTL, "the end is noticed at once");
        assert_eq!(election.standing(start + TTL), Standing::Unknown);
        assert_ne!(election.token(), first, "a lost token is not used again");
    }

    #[test]
    fn a_new_term_begins_whenever_others_may_have_written() {
        let mut now = Instant::now();
        let mut election = Election::new("me".to_owned(), TTL, now);
        for (answer, expected) in [
            (Answer::Taken, Some(1)),
            (Answer::Renewed, Some(1)),
            // Redis was emptied.
            (Answer::Taken, Some(2)),
            // Redis was away.
            (Answer::Failed, Some(2)),
            (Answer::Renewed, Some(3)),
            (Answer::Renewed, Some(3)),
            (Answer::HeldBy("other".to_owned()), None),
            (Answer::Taken, Some(4)),
        ] {
            now += seconds(1);
            ask(&mut election, now, answer.clone());
            match expected {
                Some(expected) => assert_eq!(term(&mut election, now), expected, "{answer:?}"),
                None => {
                    let leader = "other".to_owned();
                    assert_eq!(election.standing(now), Standing::Standby { leader });
                }
            }
        }
    }

    #[test]
    fn an_answer_to_a_token_that_ran_out_counts_for_nothing() {
        let start = Instant::now();
        let mut election = Election::new("me".to_owned(), TTL, start);
        ask(&mut election, start, Answer::Taken);
        let old = election.token();
        let late = start + TTL;
        assert_eq!(election.standing(late), Standing::Unknown);
        election.answered(&old, start + seconds(8), late, Answer::Renewed);
        assert_eq!((election.standing(late), election.due()), (Standing::Unknown, late));
    }

    /// The lease as Redis keeps it.
    #[derive(Debug, Default)]
    struct Server {
        held: Option<(String, Instant)>,
    }

    impl Server {
        fn take(&mut self, token: &str, now: Instant) -> Answer {
            let held = self.held.take().filter(|(_, until)| *until > now);
            let answer = match &held {
                Some((holder, _)) if holder != token => Answer::HeldBy(holder.clone()),
                Some(_) => Answer::Renewed,
                None => Answer::Taken,
            };
            self.held = match answer {
                Answer::HeldBy(_) => held,
                _ => Some((token.to_owned(), now + TTL)),
            };
            answer
        }
    }

    #[test]
    fn a_leader_that_is_gone_is_replaced_within_15_s() {
        assert!(crate::routes::lease::TTL.mul_f64(1.5) <= seconds(15));
        for offset in 0..30 {
            let start = Instant::now();
            let mut server = Server::default();
            let mut now = start + Duration::from_millis(offset * 100);
            assert_eq!(server.take("gone", start + seconds(3)), Answer::Taken);
            let mut election = Election::new("me".to_owned(), TTL, now);
            while !leads(&mut election, now) {
                now = election.due().max(now);
                let token = election.token();
                let answer = server.take(&token, now);
                election.answered(&token, now, now, answer);
            }
            assert!(now - (start + seconds(3)) < TTL.mul_f64(1.5), "{:?}", now - start);
        }
    }

    proptest! {
        /// Questions and answers are late or lost at will. Each step is: who acts, how long the way to
        /// Redis and back takes, and whether the answer arrives.
        #[test]
        fn never_do_two_processes_lead_at_once(
            steps in proptest::collection::vec((0..3_usize, 0..4_000_u64, 0..4_000_u64, any::<bool>()), 1..80),
        ) {
            let mut now = Instant::now();
            let mut server = Server::default();
            let mut processes: Vec<Election> =
                ["a", "b", "c"].map(|name| Election::new(name.to_owned(), TTL, now)).into();
            for (who, there, back, arrives) in steps {
                let asked = now;
                let token = processes[who].token();
                now += Duration::from_millis(there);
                let answer = server.take(&token, now);
                now += Duration::from_millis(back);
                let answer = if arrives { answer } else { Answer::Failed };
                processes[who].answered(&token, asked, now, answer);
                let leaders = processes.iter_mut().filter_map(|process| match process.standing(now) {
                    Standing::Leader { token, .. } => Some(token),
                    _ => None,
                });
                let leaders: Vec<String> = leaders.collect();
                prop_assert!(leaders.len() <= 1, "{leaders:?}");
                if let Some(leader) = leaders.first() {
                    let holder = server.held.as_ref().map(|(holder, _)| holder.as_str());
                    prop_assert_eq!(holder, Some(leader.as_str()));
                }
            }
        }
    }
}
