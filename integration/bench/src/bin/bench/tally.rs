//! What a load generator of this program counted, and the line in which it reports that.

use std::time::Duration;

use tokio::time::Instant;

/// Requests of one client, or of all of them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) latencies: Vec<Duration>,
    /// Bytes of the response bodies, or of the messages that came back.
    pub(crate) bytes: usize,
    pub(crate) failed: usize,
    pub(crate) first_failure: Option<anyhow::Error>,
}

impl Tally {
    /// Records one exchange that began at `started` and brought this many bytes, or failed.
    pub(crate) fn record(&mut self, started: Instant, exchanged: anyhow::Result<usize>) {
        match exchanged {
            Ok(bytes) => {
                self.bytes += bytes;
                self.latencies.push(started.elapsed());
            }
            Err(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert(error);
            }
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.bytes += other.bytes;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }

    /// The first failure, if any, and the line that `load` reads, which is also what wrk's script
    /// prints. All failures are reported as read errors: one is enough to fail the run.
    pub(crate) fn report(mut self, elapsed: Duration) -> String {
        self.latencies.sort_unstable();
        let failure = match &self.first_failure {
            Some(error) => format!("first failure: {error:#}\n"),
            None => String::new(),
        };
        format!(
            "{failure}bench requests={} duration_us={} bytes={} p50_us={} p99_us={} connect=0 \
             read={} write=0 timeout=0 status=0",
            self.latencies.len(),
            elapsed.as_micros(),
            self.bytes,
            percentile(&self.latencies, 0.5).as_micros(),
            percentile(&self.latencies, 0.99).as_micros(),
            self.failed,
        )
    }
}

/// The value that this share of the sorted values does not exceed.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are far below 2^52"
)]
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 0.5), Duration::from_millis(100));
        assert_eq!(percentile(&values, 0.99), Duration::from_millis(198));
        assert_eq!(percentile(&values, 1.0), Duration::from_millis(200));
        assert_eq!(percentile(&values[..1], 0.01), Duration::from_millis(1));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn report_shows_first_failure_and_counts_all() {
        let mut all = Tally::default();
        for message in ["one", "two"] {
            let mut own = Tally::default();
            own.record(Instant::now(), Err(anyhow::anyhow!(message)));
            own.record(Instant::now(), Ok(50));
            all.add(own);
        }
        let report = all.report(Duration::from_secs(1));
        assert!(report.starts_with("first failure: one\nbench requests=2 "), "{report}");
        assert!(report.contains(" bytes=100 ") && report.contains(" read=2 "), "{report}");
    }
}
