//! From samples to markdown: medians, the spread, and the ratio to the baseline in the same round.

use std::fmt;
use std::fs;

use crate::Args;
use crate::contenders::{AccessLog, Contender};
use crate::load::Sample;
use crate::scenario::{Scenario, Subject};
use crate::setup::Setup;

#[derive(Debug)]
pub(crate) struct Report {
    conditions: Conditions,
    pub(crate) tables: Vec<Table>,
}

/// What a reader needs to judge the figures.
#[derive(Debug)]
pub(crate) struct Conditions {
    lines: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) scenario: Scenario,
    pub(crate) access_log: AccessLog,
    /// Samples of each row in the order of the rounds.
    rows: Vec<(Subject, Vec<Sample>)>,
}

impl Report {
    pub(crate) fn new(conditions: Conditions) -> Self {
        Self { conditions, tables: Vec::new() }
    }

    /// Those of proxies that had their core to themselves.
    fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.tables
            .iter()
            .filter(|table| !table.scenario.shares_cores())
            .flat_map(|table| &table.rows)
            .flat_map(|(_, samples)| samples)
    }
}

impl Conditions {
    pub(crate) async fn read(setup: &Setup, contenders: &[Contender], args: &Args) -> Self {
        let mut versions = Vec::new();
        for contender in contenders {
            versions.push(contender.version(setup).await);
        }
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown processor", |(_, model)| model);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        Self {
            lines: vec![
                format!("{model}, Linux {}, load average before {load}", kernel.trim()),
                versions.join("; "),
                format!(
                    "{} connections, {} rounds of {} s, proxy on core {}, the rest on core {}",
                    args.connections, args.rounds, args.seconds, setup.proxy_core, setup.load_core
                ),
            ],
        }
    }
}

impl Table {
    pub(crate) fn new(scenario: Scenario, access_log: AccessLog, contenders: &[Contender]) -> Self {
        let subjects = scenario.subjects(contenders);
        let rows = subjects.into_iter().map(|subject| (subject, Vec::new())).collect();
        Self { scenario, access_log, rows }
    }

    pub(crate) fn subjects(&self) -> Vec<Subject> {
        self.rows.iter().map(|(subject, _)| *subject).collect()
    }

    pub(crate) fn push(&mut self, subject: Subject, sample: Sample) {
        if let Some((_, samples)) = self.rows.iter_mut().find(|(row, _)| *row == subject) {
            samples.push(sample);
        }
    }

    /// Median of the ratios to the baseline round by round: what slows a whole round cancels out.
    fn ratio(&self, subject: Subject, samples: &[Sample], figure: fn(&Sample) -> f64) -> String {
        let baseline = self.scenario.baseline(subject);
        let Some((_, baseline)) = self.rows.iter().find(|(row, _)| *row == baseline) else {
            return "–".to_owned();
        };
        let ratios: Vec<f64> =
            samples.iter().zip(baseline).map(|(own, other)| figure(own) / figure(other)).collect();
        format!("{:.2}", median(&ratios))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.conditions.lines {
            writeln!(f, "- {line}")?;
        }
        let disturbed = self.samples().filter(|sample| sample.is_disturbed()).count();
        if disturbed > 0 {
            writeln!(
                f,
                "- **Disturbed:** in {disturbed} of {} samples other programs used the proxy's core",
                self.samples().count()
            )?;
        }
        for table in &self.tables {
            write!(f, "\n{table}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "**{}**, access log {}; median (least–most) of the rounds\n",
            self.scenario.title(),
            self.access_log
        )?;
        let baseline = self.scenario.baseline_name();
        writeln!(
            f,
            "| | CPU µs a request | ÷ {baseline} | requests/s | ÷ {baseline} | p50 | p99 | memory (peak) | core busy |"
        )?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|---:|---:|---:|")?;
        for (subject, samples) in &self.rows {
            let of =
                |figure: fn(&Sample) -> f64| -> Vec<f64> { samples.iter().map(figure).collect() };
            let cpu = of(|sample| sample.cpu_us_per_request);
            let rate = of(|sample| sample.requests_per_second);
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {} | {} | {} ({}) | {:.0} % |",
                self.scenario.label(*subject),
                spread(&cpu, if median(&cpu) < 100.0 { 2 } else { 0 }),
                self.ratio(*subject, samples, |sample| sample.cpu_us_per_request),
                spread(&rate, 0),
                self.ratio(*subject, samples, |sample| sample.requests_per_second),
                latency(median(&of(|sample| sample.p50_us))),
                latency(median(&of(|sample| sample.p99_us))),
                mebibytes(samples, |sample| sample.resident_kib),
                mebibytes(samples, |sample| sample.peak_kib),
                100.0 * median(&of(|sample| sample.busy)),
            )?;
        }
        Ok(())
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

pub(crate) fn spread(values: &[f64], decimals: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.decimals$} ({least:.decimals$}–{most:.decimals$})", median(values))
}

fn latency(microseconds: f64) -> String {
    if microseconds < 1000.0 {
        format!("{microseconds:.0} µs")
    } else {
        format!("{:.2} ms", microseconds / 1000.0)
    }
}

#[allow(clippy::cast_precision_loss, reason = "kibibytes of memory are far below 2^52")]
fn mebibytes(samples: &[Sample], figure: fn(&Sample) -> u64) -> String {
    let values: Vec<f64> = samples.iter().map(|sample| figure(sample) as f64 / 1024.0).collect();
    format!("{:.1} MiB", median(&values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu: f64) -> Sample {
        Sample { cpu_us_per_request: cpu, ..Sample::default() }
    }

    #[test]
    fn median_of_odd_and_even_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn spread_shows_least_and_most() {
        assert_eq!(spread(&[9.5, 9.0, 10.25], 1), "9.5 (9.0–10.2)");
    }

    #[test]
    fn latency_changes_its_unit_at_a_millisecond() {
        assert_eq!(latency(650.0), "650 µs");
        assert_eq!(latency(1250.0), "1.25 ms");
    }

    #[test]
    fn ratio_is_taken_round_by_round() {
        let contenders = [Contender::Router, Contender::Nginx];
        let mut table = Table::new(Scenario::Small, AccessLog::Off, &contenders);
        // The second round was slow for both.
        for (own, nginx) in [(9.0, 10.0), (18.0, 20.0), (9.0, 10.0)] {
            table.push(Subject::plain(Contender::Router), sample(own));
            table.push(Subject::plain(Contender::Nginx), sample(nginx));
        }
        let text = table.to_string();
        assert!(text.contains("| router | 9.00 (9.00–18.00) | 0.90 |"), "{text}");
        assert!(text.contains("| nginx | 10.00 (10.00–20.00) | 1.00 |"), "{text}");
    }

    #[test]
    fn without_nginx_there_is_no_ratio() {
        let mut table = Table::new(Scenario::Small, AccessLog::Off, &[Contender::Router]);
        table.push(Subject::plain(Contender::Router), sample(9.0));
        assert!(table.to_string().contains("| – |"));
    }
}
