//! The control API below `/_fake/`.

use std::sync::Arc;

use super::http::{Answer, Request};
use super::node::Node;

/// Path before every other of this API.
pub(super) const PREFIX: &str = "/_fake/";

pub(super) fn answer(_: &Arc<Node>, _: &Request) -> Answer {
    Answer::new(404, "application/json", "{}")
}
