//! Says how Redis differs from a plan, and writes nothing. Pure.

use super::diff::Difference;

impl Difference {
    /// A line for each difference that readers of the lists see; none when Redis is as the plan
    /// wants it. What marathon-sync merely has not noted yet is no difference.
    pub fn findings(&self) -> Vec<String> {
        let problems = self.problems.iter().map(ToString::to_string);
        let changes = self.changes.iter().filter(|change| change.is_visible());
        problems.chain(changes.map(ToString::to_string)).collect()
    }
}
