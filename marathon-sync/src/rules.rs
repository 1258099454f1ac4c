//! What follows from an answer of Marathon: which hosts apps claim, which tasks are live, where they
//! listen, and the plan that all this makes. Pure: what happened before is a [`memory::Memory`] that
//! is handed in, and so is the time.

pub mod address;
pub mod desired;
pub mod glob;
pub mod labels;
pub mod liveness;
pub mod memory;
pub mod report;
pub mod versions;

pub use desired::{Desired, Seen, desired};

/// What to do with a task that is neither known to be well nor known to be sick.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Policy {
    /// Take it out.
    Down,
    /// Leave it where it is listed, and do not add it.
    #[default]
    Keep,
    /// Take it for well.
    Up,
}

/// All that can be chosen.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How labels are read.
    pub labels: labels::Options,
    /// Which tasks are live.
    pub liveness: liveness::Options,
    /// Ids of apps to leave out, exact or with `*` and `?`.
    pub exclude: Vec<String>,
}
