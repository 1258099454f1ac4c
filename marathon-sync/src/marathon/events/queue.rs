//! Hints on their way to the agent: never blocks the reader, never grows beyond a bound.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::hint::{Hint, STATUS_UPDATE};

/// Different hints that may wait. More than a look at everything cannot follow from them, so that the
/// bound only has to leave room for the tasks of a large deployment.
const CAPACITY: usize = 1024;

/// What is put instead of a hint for which there is no room.
const OVERFLOW: Hint = Hint::Look { kind: "overflow", app_id: None };

/// The hints that wait. Equal ones are one; of the changes of the connection only the last counts.
/// Pure.
#[derive(Debug, Default)]
struct Waiting {
    order: VecDeque<Hint>,
    known: HashSet<Hint>,
}

impl Waiting {
    fn push(&mut self, hint: Hint) {
        let hint = match hint {
            // Certainties have the rest of the room.
            Hint::TaskStarted { app_id, .. } if self.known.len() >= CAPACITY / 2 => {
                Hint::Look { kind: STATUS_UPDATE, app_id: Some(app_id) }
            }
            hint => hint,
        };
        if matches!(hint, Hint::Connected | Hint::Lost { .. }) {
            let is_other = |hint: &Hint| !matches!(hint, Hint::Connected | Hint::Lost { .. });
            self.order.retain(is_other);
            self.known.retain(is_other);
        } else if self.known.len() >= CAPACITY && hint != OVERFLOW {
            return self.push(OVERFLOW);
        }
        // The last word on a task is the one that counts.
        if matches!(hint, Hint::TaskGone { .. } | Hint::TaskStarted { .. })
            && self.known.contains(&hint)
        {
            self.order.retain(|waiting| *waiting != hint);
            self.order.push_back(hint);
            return;
        }
        // One more than the bound for the overflow, one more for the connection.
        if self.known.insert(hint.clone()) {
            self.order.push_back(hint);
        }
    }

    fn pop(&mut self) -> Option<Hint> {
        let hint = self.order.pop_front()?;
        self.known.remove(&hint);
        Some(hint)
    }
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Wakes the one receiver; keeps one permit if it does not wait.
    arrived: Notify,
}

/// The side that listens to Marathon.
#[derive(Debug)]
pub struct HintSender(Arc<Shared>);

/// The agent's side.
#[derive(Debug)]
pub struct Hints(Arc<Shared>);

/// A queue with its two ends.
pub fn channel() -> (HintSender, Hints) {
    let shared = Arc::new(Shared::default());
    (HintSender(Arc::clone(&shared)), Hints(shared))
}

impl HintSender {
    /// Hands on `hint`. Returns at once, whatever the agent does.
    pub fn send(&self, hint: Hint) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(hint);
        self.0.arrived.notify_one();
    }
}

impl Hints {
    /// The next hint; waits for one. Loses none when it is dropped before its end.
    pub async fn next(&mut self) -> Hint {
        loop {
            if let Some(hint) = self.take() {
                return hint;
            }
            self.0.arrived.notified().await;
        }
    }

    /// The next hint that is there already.
    pub fn take(&mut self) -> Option<Hint> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hint::Gone;
    use super::*;

    fn gone(number: usize) -> Hint {
        let task_id = format!("t.{number}").into();
        Hint::TaskGone { task_id, app_id: "/t".into(), how: Gone::Killing }
    }

    fn rest(hints: &mut Hints) -> Vec<Hint> {
        std::iter::from_fn(|| hints.take()).collect()
    }

    #[test]
    fn last_word_on_a_task_is_the_last_in_the_queue() {
        let (sender, mut hints) = channel();
        let started =
            Hint::TaskStarted { task_id: "t.1".into(), app_id: "/t".into(), is_running: true };
        for hint in [gone(1), started.clone(), gone(1)] {
            sender.send(hint);
        }
        assert_eq!(rest(&mut hints), [started, gone(1)]);
    }

    #[tokio::test]
    async fn a_flood_of_equal_hints_is_one() {
        let (sender, mut hints) = channel();
        for _ in 0..1000 {
            sender.send(Hint::Look { kind: "status_update_event", app_id: None });
        }
        sender.send(gone(1));
        assert_eq!(hints.next().await, Hint::Look { kind: "status_update_event", app_id: None });
        assert_eq!(rest(&mut hints), [gone(1)]);
        sender.send(gone(1));
        assert_eq!(hints.next().await, gone(1), "what was taken may come again");
    }

    #[test]
    fn a_flood_of_different_hints_ends_in_a_look() {
        let (sender, mut hints) = channel();
        for number in 0..3 * CAPACITY {
            sender.send(gone(number));
        }
        let rest = rest(&mut hints);
        assert_eq!(rest.len(), CAPACITY + 1);
        assert_eq!(rest.last(), Some(&OVERFLOW));
    }

    #[test]
    fn only_the_last_change_of_the_connection_counts() {
        let (sender, mut hints) = channel();
        let lost = Hint::Lost { reason: "x".into() };
        for hint in [Hint::Connected, gone(1), lost.clone(), Hint::Connected] {
            sender.send(hint);
        }
        assert_eq!(rest(&mut hints), [gone(1), Hint::Connected]);
        sender.send(Hint::Connected);
        sender.send(lost.clone());
        assert_eq!(rest(&mut hints), [lost]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hint_wakes_the_one_who_waits() {
        let (sender, mut hints) = channel();
        let waiting = tokio::spawn(async move { hints.next().await });
        tokio::task::yield_now().await;
        sender.send(Hint::Connected);
        assert_eq!(waiting.await.unwrap(), Hint::Connected);
    }

    proptest! {
        #[test]
        fn what_waits_is_bounded_and_without_repeats(numbers in prop::collection::vec(0_usize..5000, 0..3000)) {
            let (sender, mut hints) = channel();
            for &number in &numbers {
                sender.send(if number == 0 { Hint::Connected } else { gone(number) });
            }
            let rest = rest(&mut hints);
            let different: HashSet<&Hint> = rest.iter().collect();
            prop_assert!(rest.len() <= CAPACITY + 2);
            prop_assert_eq!(different.len(), rest.len());
        }
    }
}
