//! The terms of this process as the leader, and what another process may have written between them.
//! Pure.
//!
//! The lease is renewed by a task of its own, so it may be lost and won again while the agent makes a
//! pass. A plan therefore belongs to the term that the agent had entered when the pass began: the agent
//! enters a term between two passes only, and no plan is written in a term that it has not entered.

use std::time::Duration;

use tokio::time::Instant;

use crate::routes::lease::Standing;

/// What the agent knows of its terms.
#[derive(Debug, Default)]
pub struct Terms {
    /// Token and number of the last term that the agent entered.
    entered: Option<(String, u64)>,
    /// Another process wrote, or may have written, since our last own write.
    is_behind: bool,
    /// When the agent entered a term after its lease had been lost: an answer that was asked for before
    /// knows nothing of what another leader saw meanwhile.
    led_again: Option<Instant>,
}

impl Terms {
    /// Takes in a change of the standing, between two passes.
    pub fn enter(&mut self, standing: &Standing, now: Instant) {
        match standing {
            Standing::Leader { token, term } => {
                let last = self.entered.replace((token.clone(), *term));
                // A lost lease is never asked for with the same token again.
                if last.is_some_and(|(last, _)| last != *token) {
                    (self.is_behind, self.led_again) = (true, Some(now));
                }
            }
            Standing::Standby { .. } => self.is_behind = true,
            Standing::Unknown => {}
        }
    }

    /// What a plan may be carried out as, if the lease stands like `standing` now. A term that the agent
    /// has not entered yet is none: the plan is older than the term. Entering it plans again.
    pub fn admit(&self, standing: Standing) -> Standing {
        match &standing {
            Standing::Leader { token, term } => match &self.entered {
                Some((entered, number)) if entered == token && number == term => standing,
                Some(_) | None => Standing::Unknown,
            },
            Standing::Standby { .. } | Standing::Unknown => standing,
        }
    }

    /// All that this process wanted has been written in the term that it entered last.
    pub fn caught_up(&mut self) {
        self.is_behind = false;
    }

    /// Whether an answer that was asked for at `asked` may not contradict what another process wrote:
    /// it is older than `limit`, or from before the lease was lost, as in a process that was stopped.
    pub fn is_outdated(&self, asked: Instant, now: Instant, limit: Duration) -> bool {
        let age = now.saturating_duration_since(asked);
        self.is_behind && (age > limit || self.led_again.is_some_and(|at| asked < at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn leader(token: &str, term: u64) -> Standing {
        Standing::Leader { token: token.to_owned(), term }
    }

    fn standby() -> Standing {
        Standing::Standby { leader: "other".to_owned() }
    }

    /// The lease is lost and won again while a pass is made: `carry_out` sees the new term before the
    /// agent has entered it.
    #[test]
    fn plan_made_before_the_lease_was_lost_is_not_written() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut terms = Terms::default();
        assert_eq!(terms.admit(leader("me/0", 1)), Standing::Unknown, "nothing is entered yet");
        terms.enter(&leader("me/0", 1), at(0));
        assert_eq!(terms.admit(leader("me/0", 1)), leader("me/0", 1));
        assert!(!terms.is_outdated(start, at(3600), LIMIT));

        for between in [None, Some(Standing::Unknown), Some(standby())] {
            let mut terms = Terms { entered: terms.entered.clone(), ..Terms::default() };
            if let Some(between) = &between {
                terms.enter(between, at(10));
                assert_eq!(terms.admit(between.clone()), *between);
            }
            assert_eq!(terms.admit(leader("me/1", 2)), Standing::Unknown, "{between:?}");
            terms.enter(&leader("me/1", 2), at(12));
            assert_eq!(terms.admit(leader("me/1", 2)), leader("me/1", 2));
            assert_eq!(terms.admit(leader("me/0", 1)), Standing::Unknown);
            assert!(terms.is_outdated(at(11), at(13), LIMIT), "{between:?}");
            assert!(!terms.is_outdated(at(12), at(13), LIMIT), "{between:?}");
            assert!(terms.is_outdated(at(12), at(73), LIMIT), "{between:?}");
            terms.caught_up();
            assert!(!terms.is_outdated(at(11), at(13), LIMIT), "{between:?}");
        }
    }

    /// Redis lost the lease with all else: what is known is written again, but by a plan that was made
    /// for what stands there now.
    #[test]
    fn plan_of_an_earlier_term_with_the_same_token_is_not_written() {
        let now = Instant::now();
        let mut terms = Terms::default();
        terms.enter(&leader("me/0", 1), now);
        assert_eq!(terms.admit(leader("me/0", 2)), Standing::Unknown);
        terms.enter(&leader("me/0", 2), now);
        assert_eq!(terms.admit(leader("me/0", 2)), leader("me/0", 2));
        assert!(!terms.is_outdated(now, now + LIMIT * 2, LIMIT));
    }

    proptest! {
        /// Whatever the lease goes through while a plan is made, it is written in its own term only.
        #[test]
        fn plan_is_written_in_its_own_term_only(steps in proptest::collection::vec((0..3_u8, any::<bool>()), 1..40)) {
            let now = Instant::now();
            let (mut terms, mut term, mut lease) = (Terms::default(), 0, Standing::Unknown);
            let mut planned_in = None;
            for (step, is_noticed) in steps {
                lease = match step {
                    0 => standby(),
                    1 => { term += 1; leader(&format!("me/{term}"), term) }
                    _ => lease,
                };
                if is_noticed {
                    terms.enter(&lease, now);
                    if let Standing::Leader { term, .. } = lease {
                        planned_in = Some(term);
                    }
                }
                if let Standing::Leader { term, .. } = terms.admit(lease.clone()) {
                    prop_assert_eq!(Some(term), planned_in);
                }
            }
        }
    }
}
