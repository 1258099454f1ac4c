//! The instruction budget: committed counts of instructions a request, and the comparison with them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};

use crate::callgrind::Workload;

/// The committed file. JSON, so that a person can edit it; `docs/benchmarks.md` says how.
#[derive(Debug, PartialEq)]
pub(crate) struct Budget {
    /// Part of the figures: another compiler generates other code.
    toolchain: String,
    /// Percent by which a count may differ from its figure in either direction.
    tolerance: f64,
    /// Instructions a request, by the name of the workload.
    instructions: BTreeMap<String, u64>,
}

/// How a count compares with its figure.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Within,
    /// The check fails.
    Exceeded,
    /// The figure no longer protects what was gained.
    Below,
}

/// One line of the comparison.
#[derive(Debug)]
struct Line {
    workload: Workload,
    counted: u64,
    budget: u64,
    outcome: Outcome,
}

impl Budget {
    /// # Errors
    /// When the file cannot be read or is not a budget.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let file: serde_json::Value = serde_json::from_str(text).context("no JSON")?;
        let toolchain = file["toolchain"].as_str().context("toolchain: expected text")?.to_owned();
        let tolerance =
            file["tolerance_percent"].as_f64().context("tolerance_percent: expected a number")?;
        ensure!(tolerance > 0.0, "tolerance_percent: expected more than 0");
        let instructions = file["instructions"]
            .as_object()
            .context("instructions: expected an object")?
            .iter()
            .map(|(name, count)| {
                let count = count.as_u64().filter(|&count| count > 0);
                let count = count.with_context(|| format!("{name}: expected a whole number"))?;
                Ok((name.clone(), count))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { toolchain, tolerance, instructions })
    }

    /// The workloads to count.
    ///
    /// # Errors
    /// When the budget has none or one that is unknown.
    pub(crate) fn workloads(&self) -> anyhow::Result<Vec<Workload>> {
        ensure!(!self.instructions.is_empty(), "the budget names no workload");
        self.instructions
            .keys()
            .map(|name| Workload::from_name(name).with_context(|| format!("no workload {name:?}")))
            .collect()
    }

    /// Prints each count with its figure.
    ///
    /// # Errors
    /// When a count is above its figure by more than the tolerance.
    pub(crate) fn check(&self, counts: &[(Workload, u64)]) -> anyhow::Result<()> {
        println!("| | instructions a request | budget | |");
        println!("|---|---:|---:|---|");
        let mut exceeded = Vec::new();
        for &(workload, counted) in counts {
            let line = self.line(workload, counted)?;
            println!("{line}");
            if line.outcome == Outcome::Exceeded {
                exceeded.push(workload.name());
            }
        }
        if exceeded.is_empty() {
            return Ok(());
        }
        bail!(
            "instruction budget exceeded by more than {} %: {}. Find the cause with \
             callgrind_annotate; raise the budget only with the reason in the commit. The figures \
             are for Rust {}",
            self.tolerance,
            exceeded.join(", "),
            self.toolchain,
        )
    }

    fn line(&self, workload: Workload, counted: u64) -> anyhow::Result<Line> {
        let budget = self.instructions.get(workload.name()).copied();
        let budget = budget.with_context(|| format!("no figure for {}", workload.name()))?;
        Ok(Line { workload, counted, budget, outcome: compare(counted, budget, self.tolerance) })
    }
}

fn compare(counted: u64, budget: u64, tolerance: f64) -> Outcome {
    match change(counted, budget) {
        change if change > tolerance => Outcome::Exceeded,
        change if change < -tolerance => Outcome::Below,
        _ => Outcome::Within,
    }
}

/// Percent by which `counted` is above `budget`.
#[allow(clippy::cast_precision_loss, reason = "instructions a request are far below 2^52")]
fn change(counted: u64, budget: u64) -> f64 {
    100.0 * (counted as f64 / budget as f64 - 1.0)
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = change(self.counted, self.budget);
        let advice = match self.outcome {
            Outcome::Within => "",
            Outcome::Exceeded => ", **exceeded**",
            Outcome::Below => ", lower the budget",
        };
        write!(
            f,
            "| {} | {} | {} | {change:+.1} %{advice} |",
            self.workload.name(),
            self.counted,
            self.budget,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
        "toolchain": "1.95.0",
        "tolerance_percent": 3,
        "instructions": { "small": 10000, "tls": 20000 }
    }"#;

    #[test]
    fn counts_are_compared_within_the_tolerance() {
        for (counted, outcome) in [
            (10_000, Outcome::Within),
            (10_299, Outcome::Within),
            (10_301, Outcome::Exceeded),
            (9_701, Outcome::Within),
            (9_699, Outcome::Below),
        ] {
            assert_eq!(compare(counted, 10_000, 3.0), outcome, "{counted}");
        }
    }

    #[test]
    fn only_an_exceeded_budget_fails_the_check() {
        let budget = Budget::parse(FILE).unwrap();
        budget.check(&[(Workload::Small, 9_000), (Workload::Tls, 20_500)]).unwrap();
        let error = budget.check(&[(Workload::Small, 10_400), (Workload::Tls, 1)]).unwrap_err();
        assert!(error.to_string().contains("exceeded by more than 3 %: small."), "{error}");
    }

    #[test]
    fn lines_say_what_to_do() {
        let budget = Budget::parse(FILE).unwrap();
        let line = |counted| budget.line(Workload::Small, counted).unwrap().to_string();
        assert_eq!(line(10_100), "| small | 10100 | 10000 | +1.0 % |");
        assert_eq!(line(10_500), "| small | 10500 | 10000 | +5.0 %, **exceeded** |");
        assert_eq!(line(9_000), "| small | 9000 | 10000 | -10.0 %, lower the budget |");
    }

    #[test]
    fn malformed_budgets_are_refused() {
        for (file, part) in [
            ("", "no JSON"),
            (r#"{"tolerance_percent": 3, "instructions": {}}"#, "toolchain"),
            (r#"{"toolchain": "1", "tolerance_percent": 0, "instructions": {}}"#, "tolerance"),
            (r#"{"toolchain": "1", "tolerance_percent": 3}"#, "instructions"),
            (
                r#"{"toolchain": "1", "tolerance_percent": 3, "instructions": {"small": -1}}"#,
                "small",
            ),
        ] {
            let error = format!("{:#}", Budget::parse(file).unwrap_err());
            assert!(error.contains(part), "{file}: {error}");
        }
        let unknown = FILE.replace("small", "smaller");
        Budget::parse(&unknown).unwrap().workloads().unwrap_err();
    }

    #[test]
    fn committed_budget_is_for_the_toolchain_of_the_project() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let budget = Budget::read(&root.join("budget.json")).unwrap();
        budget.workloads().unwrap();
        let toolchain = fs::read_to_string(root.join("../../rust-toolchain.toml")).unwrap();
        assert!(toolchain.contains(&format!("\"{}\"", budget.toolchain)), "{toolchain}");
    }
}
