//! Ways in which a Marathon, or what stands before it, fails to answer. Each is set for a route and
//! holds until it is taken back, or for a number of requests.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::Answer;

/// A kind of request, by what it asks for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Route {
    /// `/v2/apps`.
    Apps,
    /// `/v2/apps/{id}`.
    App,
    /// `/v2/apps/{id}/tasks`.
    AppTasks,
    /// `/v2/apps/{id}/versions` and below.
    AppVersions,
    /// `/v2/tasks`.
    Tasks,
    /// `/v2/deployments`.
    Deployments,
    /// `/v2/leader`.
    Leader,
    /// `/v2/info`.
    Info,
    /// `/ping`.
    Ping,
    /// `/v2/events`.
    Events,
    /// `/v2/pods/…`.
    Pods,
    /// The login of DC/OS.
    Login,
    /// Anything else.
    Other,
}

impl Route {
    /// Every route.
    pub const ALL: [Self; 13] = [
        Self::Apps,
        Self::App,
        Self::AppTasks,
        Self::AppVersions,
        Self::Tasks,
        Self::Deployments,
        Self::Leader,
        Self::Info,
        Self::Ping,
        Self::Events,
        Self::Pods,
        Self::Login,
        Self::Other,
    ];

    /// The route of a path without query and base path.
    pub(super) fn of(path: &str) -> Self {
        let path = path.trim_end_matches('/');
        match path {
            "/v2/apps" => Self::Apps,
            "/v2/tasks" => Self::Tasks,
            "/v2/deployments" => Self::Deployments,
            "/v2/leader" => Self::Leader,
            "/v2/info" => Self::Info,
            "/v2/events" => Self::Events,
            "/ping" => Self::Ping,
            super::auth::LOGIN_PATH => Self::Login,
            _ if path.starts_with("/v2/pods/") => Self::Pods,
            _ if path.starts_with("/v2/apps/") && path.ends_with("/tasks") => Self::AppTasks,
            _ if is_versions(path) => Self::AppVersions,
            _ if path.starts_with("/v2/apps/") => Self::App,
            _ => Self::Other,
        }
    }
}

fn is_versions(path: &str) -> bool {
    let parts: Vec<&str> = path.strip_prefix("/v2/apps/").unwrap_or_default().split('/').collect();
    matches!(parts.as_slice(), [_, .., "versions"] | [_, .., "versions", _])
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection ends without an answer.
    Close,
    /// It is reset without an answer.
    Reset,
    /// No answer until the fault is taken back; then the answer of that time.
    Hang,
    /// The answer is made at once, but sent only when the fault is taken back: a slow one.
    Late,
    /// Head and half of the body, and no more until the client ends it.
    HangMidBody,
    /// Head and half of the body, then a reset.
    ResetMidBody,
    /// Head and half of the body, then a regular end of the connection.
    CloseMidBody,
    /// The body in pieces of so many bytes with a pause after each.
    Drip(usize, Duration),
    /// This instead of the answer.
    Instead(Answer),
    /// The answer with half of its body, framed as if it was whole.
    Truncated,
    /// A redirect to the same URL.
    RedirectLoop,
    /// A redirect to another URL, to which nothing is added.
    Redirect(String),
}

impl Fault {
    /// 200 without a body, as a standby of 0.8 gives when its leader is gone.
    pub fn empty() -> Self {
        Self::Instead(Answer::new(200, "", Vec::new()))
    }

    /// 200 with a page, as a proxy gives.
    pub fn html() -> Self {
        Self::Instead(Answer::html(200, "Welcome"))
    }

    /// That status with the page that Marathon's web server makes for it.
    pub fn page(status: u16, message: &str) -> Self {
        Self::Instead(Answer::html(status, message))
    }

    /// That status, also 200, with `{"message":…}`.
    pub fn message(status: u16, message: &str) -> Self {
        Self::json(status, &json!({ "message": message }))
    }

    /// That status with any JSON.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::Instead(Answer::new(status, "application/json", body.to_string()))
    }

    /// 200 with `{"apps":[]}`.
    pub fn no_apps() -> Self {
        Self::json(200, &json!({"apps": []}))
    }

    /// 401 that asks for basic authentication, with a page.
    pub fn unauthorized() -> Self {
        Self::Instead(super::auth::unauthorized())
    }
}

/// The faults that are set.
#[derive(Debug, Default)]
pub(super) struct Faults {
    by_route: BTreeMap<Route, (Fault, Option<usize>)>,
}

impl Faults {
    /// Sets a fault for so many requests, or until it is taken back.
    pub(super) fn set(&mut self, route: Route, fault: Fault, times: Option<usize>) {
        self.by_route.insert(route, (fault, times));
    }

    /// Takes a fault back.
    pub(super) fn clear(&mut self, route: Route) {
        self.by_route.remove(&route);
    }

    /// Whether requests of the route still have to wait.
    pub(super) fn holds(&self, route: Route) -> bool {
        matches!(self.by_route.get(&route), Some((Fault::Hang | Fault::Late, _)))
    }

    /// The fault of the next request.
    pub(super) fn take(&mut self, route: Route) -> Option<Fault> {
        let (fault, times) = self.by_route.get_mut(&route)?;
        match times {
            None => Some(fault.clone()),
            Some(0) => None,
            Some(left) => {
                *left -= 1;
                Some(fault.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_a_route() {
        let cases = [
            ("/v2/apps", Route::Apps),
            ("/v2/apps/", Route::Apps),
            ("/v2/apps//shop/web", Route::App),
            ("/v2/apps/shop/web", Route::App),
            ("/v2/apps/shop/web/tasks", Route::AppTasks),
            ("/v2/apps/shop/web/versions", Route::AppVersions),
            ("/v2/apps/shop/web/versions/2015-09-17T09:32:42.598Z", Route::AppVersions),
            ("/v2/tasks", Route::Tasks),
            ("/v2/events", Route::Events),
            ("/v2/pods/::status", Route::Pods),
            ("/acs/api/v1/auth/login", Route::Login),
            ("/ping", Route::Ping),
            ("/v2/nothing", Route::Other),
        ];
        for (path, route) in cases {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn a_fault_for_some_requests_wears_off() {
        let mut faults = Faults::default();
        faults.set(Route::Apps, Fault::Close, Some(2));
        let taken: Vec<_> = (0..3).map(|_| faults.take(Route::Apps).is_some()).collect();
        assert_eq!(taken, [true, true, false]);
        assert!(faults.take(Route::Tasks).is_none());
    }
}
