//! What the log says about keys that cannot be used as they stand: once for each state of a key.

use shared::store::KeyProblem;
use tracing::warn;

use crate::route::options::Options;
use crate::route::trust::Trust;
use crate::route::{Route, Target};

/// Rows of one list, and settings of one host, that are named because they cannot be used.
const MAX_REPORTED: usize = 5;

/// Reports an unreadable dead set; the host is served as if it were empty.
pub(super) fn dead_set(previous: Option<&Route>, problem: &KeyProblem) {
    if previous.is_none_or(|previous| !previous.has_dead_problem) {
        warn!(key = %problem.key, "dead set ignored: {}", problem.detail);
    }
}

/// Reports what is wrong with settings that were not seen before, and what is dangerous about them.
pub(super) fn options(previous: Option<&Route>, options: &Options) {
    let name = options.raw().map_or("", |raw| &raw.name);
    for problem in options.problems.iter().take(MAX_REPORTED) {
        warn!(
            options = name, field = %problem.field,
            "option not used as it stands: {}", problem.problem
        );
    }
    let is_open = |options: &Options| options.trust.as_ref().is_some_and(Trust::verifies_nothing);
    let was_open = previous.and_then(|previous| previous.options.as_deref()).is_some_and(is_open);
    if is_open(options) && !was_open {
        warn!(
            options = name,
            "backend-verify off: https:// backends of the host are not verified, so anyone in \
             between can read and change everything; give their authority in backend-ca instead"
        );
    }
}

/// Reports the rows of a list that cannot be used.
pub(super) fn rows(previous: Option<&Route>, route: &Route) {
    match &route.target {
        Target::Unknown => {}
        Target::Broken(problem) => {
            if !matches!(previous.map(|p| &p.target), Some(Target::Broken(old)) if old == problem) {
                warn!(host = %route.host, key = %problem.key, "key not used, its host gets 502: {}", problem.detail);
            }
        }
        Target::Frontend(frontend) => {
            let old = previous.and_then(Route::frontend);
            if old.is_none_or(|old| old.identifier != frontend.identifier)
                && frontend.has_url_as_identifier()
            {
                warn!(
                    frontend = %frontend.name, identifier = frontend.shown_identifier().0,
                    "the first item of a list is its identifier and gets no requests, but this one is a URL; \
                     if it is a backend, put an identifier before it: LPUSH frontend:{} NAME",
                    frontend.name
                );
            }
            if old.is_some_and(|old| old.backends == frontend.backends) {
                return;
            }
            let broken = frontend.backends.iter().filter(|backend| backend.is_err()).count();
            if broken > MAX_REPORTED {
                warn!(frontend = %frontend.name, broken, "many backends skipped, the first are:");
            }
            let rows = frontend.backends.iter().enumerate();
            let rows = rows.filter_map(|(position, row)| Some((position, row.as_ref().err()?)));
            for (position, error) in rows.take(MAX_REPORTED) {
                warn!(
                    frontend = %frontend.name, backend.position = position,
                    "backend skipped: {error}; write it as http://host:port"
                );
            }
            if frontend.backends.is_empty() {
                warn!(frontend = %frontend.name, "frontend has an identifier but no backends");
            }
        }
    }
}
