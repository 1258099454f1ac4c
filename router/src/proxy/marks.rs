//! What a response, or the lack of one, means for the dead mark of its backend.

use std::sync::Arc;

use super::context::RequestContext;
use super::error::{Consequences, Mark, ProxyError};
use crate::dead_marks::Reason;
use crate::http1::head::ResponseHead;
use crate::http1::known::KnownField;
use crate::message::request_kind::{Outcome, classify};
use crate::route::Route;

/// Marks the backend dead if its response says so.
pub(super) fn judge_response(
    cx: &RequestContext<'_>,
    route: &Arc<Route>,
    index: usize,
    head: &ResponseHead,
) {
    let (settings, marks) = (&cx.client.settings, &cx.client.shared.marks);
    let announces_end = head.fields.present().contains(KnownField::RetryAfter);
    match classify(head.status, cx.facts.kind, announces_end) {
        Outcome::Fine => {}
        Outcome::ForChecker if settings.dead_backend_on_500 => {
            marks.announce_500(route, index, settings.dead_backend_ttl);
        }
        Outcome::ForChecker => {}
        Outcome::Failed(status) => {
            marks.mark(route, index, settings.dead_backend_ttl, Reason::Status(status));
        }
    }
}

/// Marks the backend dead if the error that came of it says so.
pub(super) fn judge_error(
    cx: &RequestContext<'_>,
    route: &Arc<Route>,
    index: usize,
    error: &ProxyError,
    consequences: &Consequences,
) {
    let settings = &cx.client.settings;
    let silence_marks = settings.dead_backend_on_silence && cx.facts.kind.silence_marks();
    let marks = match consequences.mark {
        Mark::No => false,
        Mark::IfSilenceMarks => silence_marks,
        Mark::Yes => true,
    };
    if marks {
        let reason = match error {
            ProxyError::BackendTimedOut => Reason::TimedOut,
            _ => Reason::Connect(error.cause(route).into()),
        };
        cx.client.shared.marks.mark(route, index, settings.dead_backend_ttl, reason);
    }
}
