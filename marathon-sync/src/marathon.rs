//! Marathon as this program sees it: its API over HTTP, and its stream of events.

pub mod debounce;
pub mod sse;
