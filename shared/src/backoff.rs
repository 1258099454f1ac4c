//! Jittered exponential back-off for loops that never give up.

use std::time::Duration;

/// Delays that grow from `first` to `last`, each drawn at random from the upper half of its
/// step, so that many processes that lost the same peer do not come back in one instant.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    step: Duration,
}

impl Backoff {
    /// Starts at `first` and doubles up to `last`.
    pub fn new(first: Duration, last: Duration) -> Self {
        debug_assert!(first <= last);
        Self { first, last, step: first }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.step;
        self.step = (step * 2).min(self.last);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.step = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, Duration};

    #[test]
    fn delays_double_within_jitter_up_to_the_last_and_start_over() {
        let (first, last) = (Duration::from_millis(100), Duration::from_millis(350));
        let mut backoff = Backoff::new(first, last);
        for step in [100, 200, 350, 350] {
            let delay = backoff.next_delay();
            assert!(delay <= Duration::from_millis(step), "{delay:?} > {step} ms");
            assert!(delay >= Duration::from_millis(step / 2), "{delay:?} < {step}/2 ms");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= first);
    }
}
