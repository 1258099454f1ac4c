//! How old an answer was, by what the only writer knows.
//!
//! Times are nanoseconds since the start of the run. A write counts from some moment between its
//! sending and its reply; both bounds are taken in the router's favour by less than the time of
//! one command.

use crate::model::Answers;

/// What was allowed for one host from one write to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    /// When the write that began it was sent; 0 for the first.
    pub(crate) sent: u64,
    /// When its reply had come.
    pub(crate) replied: u64,
    pub(crate) allowed: Answers,
    /// What the write was.
    pub(crate) kind: &'static str,
    /// Until when the focused connections asked for this host; 0 when they did not.
    pub(crate) watched_until: u64,
}

/// A request and its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observation {
    pub(crate) host: u32,
    /// One bit, or none: the request failed.
    pub(crate) answer: Answers,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// The last state that allows it had ended so long before the request was sent.
    Age(u64),
    /// No state up to the answer allows it.
    Wrong,
}

/// Judges one answer by the `states` of its host, which are in order.
pub(crate) fn judge(states: &[State], seen: &Observation) -> Verdict {
    let begun = states.partition_point(|state| state.sent <= seen.received);
    let last = states[..begun].iter().rposition(|state| state.allowed & seen.answer != 0);
    match last {
        None => Verdict::Wrong,
        Some(last) => {
            let end = states.get(last + 1).map_or(u64::MAX, |next| next.replied);
            Verdict::Age(seen.sent.saturating_sub(end))
        }
    }
}

/// For each watched write that shares no answer with the state before: the time from its reply to
/// the sending of the first request that got a new answer, or of the last one that did not. `None` when
/// the watch was over before anybody asked. `seen` is about the one host and in the order of
/// sending.
pub(crate) fn effects(states: &[State], seen: &[Observation]) -> Vec<Option<u64>> {
    let mut effects = Vec::new();
    for (index, pair) in states.windows(2).enumerate() {
        let [before, state] = pair else { continue };
        if before.allowed & state.allowed != 0 || state.watched_until == 0 {
            continue;
        }
        let end = states.get(index + 2).map_or(u64::MAX, |next| next.sent);
        let after = &seen[seen.partition_point(|seen| seen.sent < before.replied)..];
        let after = &after[..after.partition_point(|seen| seen.sent < end)];
        let is_new =
            |seen: &&Observation| seen.received >= state.sent && seen.answer & state.allowed != 0;
        let watched = state.replied..state.watched_until;
        let was_watched = after.iter().any(|seen| watched.contains(&seen.sent));
        effects.push(match after.iter().find(is_new) {
            Some(new) if new.sent <= state.replied => Some(0),
            // What was asked later than the watch says nothing, unless the watch saw the old.
            Some(new) if was_watched => Some(new.sent - state.replied),
            // It took longer than anybody saw.
            None if was_watched => after.last().map(|last| last.sent - state.replied),
            _ => None,
        });
    }
    effects
}

/// The value below which `share` of the sorted `values` lie.
pub(crate) fn quantile<T: Copy + Default>(values: &[T], share: f64) -> T {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index between 0 and the length"
    )]
    let index = (share * values.len() as f64) as usize;
    values.get(index.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 3] = [
        State { sent: 0, replied: 0, allowed: 0b001, kind: "", watched_until: 0 },
        State { sent: 100, replied: 110, allowed: 0b010, kind: "", watched_until: 150 },
        State { sent: 200, replied: 210, allowed: 0b110, kind: "", watched_until: 900 },
    ];

    fn seen(answer: Answers, sent: u64, received: u64) -> Observation {
        Observation { host: 0, answer, sent, received }
    }

    #[test]
    fn age_counts_from_the_end_of_the_last_state_that_allows_the_answer() {
        assert_eq!(judge(&STATES, &seen(0b001, 50, 60)), Verdict::Age(0));
        assert_eq!(judge(&STATES, &seen(0b001, 105, 130)), Verdict::Age(0));
        assert_eq!(judge(&STATES, &seen(0b001, 117, 130)), Verdict::Age(7));
        assert_eq!(judge(&STATES, &seen(0b010, 900, 910)), Verdict::Age(0));
    }

    #[test]
    fn an_answer_from_the_future_or_from_nowhere_is_wrong() {
        assert_eq!(judge(&STATES, &seen(0b100, 150, 160)), Verdict::Wrong);
        assert_eq!(judge(&STATES, &seen(0b100, 150, 200)), Verdict::Age(0));
        assert_eq!(judge(&STATES, &seen(0b1000, 150, 900)), Verdict::Wrong);
    }

    #[test]
    fn an_effect_is_the_first_new_answer_of_a_write_without_common_answers() {
        let early = [seen(0b001, 99, 100), seen(0b001, 112, 115), seen(0b010, 116, 120)];
        assert_eq!(effects(&STATES, &early), [Some(6)]);
        assert_eq!(effects(&STATES, &[seen(0b010, 90, 120)]), [Some(0)]);
        assert_eq!(effects(&STATES, &[seen(0b010, 220, 230)]), [None]);
        assert_eq!(effects(&STATES, &[seen(0b010, 160, 170)]), [None]);
        let late = [seen(0b001, 120, 125), seen(0b010, 160, 170)];
        assert_eq!(effects(&STATES, &late), [Some(50)]);
        assert_eq!(effects(&STATES, &late[..1]), [Some(10)]);
    }

    #[test]
    fn quantiles_stay_inside() {
        assert_eq!(quantile::<u64>(&[], 0.5), 0);
        assert_eq!(quantile(&[1, 2, 3], 0.5), 2);
        assert_eq!(quantile(&[1, 2, 3], 1.0), 3);
    }
}
