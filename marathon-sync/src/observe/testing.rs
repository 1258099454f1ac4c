//! What the tests of this folder look at: four apps, one of each kind.
//!
//! `/a` has a task that is up and one that is down, `/b` one that is up and one that is unsure on the
//! same host and on one of its own; `/q` is quarantined, `/s` skipped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;

use super::{Facts, Identity, Observed};
use crate::agent::state::{Failure, State};
use crate::document::Problem;
use crate::guard::Held;
use crate::marathon::AttemptError;
use crate::marathon::client::FetchError;
use crate::pass::Pass;
use crate::plan::{Plan, Wanted};
use crate::routes::change::{Action, Change, Removed};
use crate::routes::lease::Standing;
use crate::rules::address::{Address, How, NoAddress, PortRef};
use crate::rules::labels::Refused;
use crate::rules::liveness::{Reason, Verdict};
use crate::rules::report::{AppReport, AppState, TaskAddress, TaskReport};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time")
}

pub(super) fn observed() -> Observed {
    let identity = Identity {
        instance: "default".to_owned(),
        process: "host/17".to_owned(),
        endpoints: vec!["http://marathon.test:8080".to_owned()],
        stale_after: Duration::from_secs(120),
    };
    let state = Arc::new(State::new(at(0)));
    Observed { identity, state, redis: None, is_ending: AtomicBool::new(false) }
}

/// A leader that has just succeeded.
pub(super) fn facts() -> Facts {
    let mut facts = observed().facts();
    facts.view.standing = leader();
    facts.view.succeeded = Some(at(0));
    facts.view.pass = Some(Arc::new(pass()));
    facts
}

pub(super) fn failure(message: &str) -> Option<Failure> {
    Some(Failure { since: at(1), times: 2, message: message.to_owned() })
}

pub(super) fn leader() -> Standing {
    Standing::Leader { token: "host/17/00ab/3".to_owned(), term: 2 }
}

pub(super) fn standby() -> Standing {
    Standing::Standby { leader: "other/9/00cd/1".to_owned() }
}

/// Each adds 30 rows and removes one that was put there by hand.
pub(super) fn changes(count: usize) -> Vec<Change> {
    let change = |number| Change {
        host: format!("h{number}.test"),
        action: Action::Update,
        seen: vec![b"id".to_vec(), b"http://old.test:1".to_vec()],
        identifier: b"id".to_vec(),
        kept: Vec::new(),
        added: (0..30).map(|row| format!("http://new{row}.test:1")).collect(),
        removed: vec![Removed { row: b"http://old.test:1".to_vec(), by_hand: true }],
        owned: None,
        records: Vec::new(),
    };
    (0..count).map(change).collect()
}

pub(super) fn fetch_error() -> FetchError {
    let error = AttemptError::TooLong { limit: 1 };
    FetchError { attempts: vec![("http://marathon.test:8080".to_owned(), error)] }
}

fn task(id: &str, verdict: Verdict, url: Result<&str, NoAddress>) -> TaskReport {
    let how = How::Agent { position: 0, is_mapped: false };
    let found = url.map(|url| Address { url: url.to_owned(), how });
    let address = TaskAddress { port: PortRef::Index(0), found, is_remembered: false };
    TaskReport { id: id.to_owned(), verdict, addresses: vec![address] }
}

fn apps() -> BTreeMap<String, Arc<AppReport>> {
    let sick = Verdict::Down(Reason::Sick);
    let mut a = AppReport::of(
        AppState::Mapped,
        &["ab.test"],
        vec![
            task("a.1", Verdict::Up, Ok("http://10.0.0.1:80")),
            task("a.2", sick, Ok("http://10.0.0.2:80")),
        ],
    );
    let reason = "`b.test/x` has a path, which cannot be routed".to_owned();
    a.refused.push(Refused { label: "HAPROXY_0_PATH".to_owned(), reason });
    let b = AppReport::of(
        AppState::MappedInPart("1 of its tasks cannot be read".to_owned()),
        &["ab.test", "b.test"],
        vec![
            task("b.1", Verdict::Up, Ok("http://10.0.0.3:80")),
            task("b.2", Verdict::Unsure(Reason::UnknownHealth), Err(NoAddress::NoHost)),
        ],
    );
    let mut q = AppReport::of(
        AppState::Quarantined("`labels` is not an object".to_owned()),
        &[],
        Vec::new(),
    );
    q.problems.push(Problem {
        app: "/q".to_owned(),
        task: None,
        field: "labels",
        reason: "a number".to_owned(),
    });
    let skipped = AppState::Skipped("it has no label `hipacheFrontend` with a host".to_owned());
    let s = AppReport::of(skipped, &[], Vec::new());
    [("/a", a), ("/b", b), ("/q", q), ("/s", s)]
        .map(|(id, app)| (id.to_owned(), Arc::new(app)))
        .into()
}

fn plan() -> Plan {
    let wanted = |up: &[&str], unsure: &[&str], apps: &[&str]| Wanted {
        identifier: "id".to_owned(),
        up: up.iter().map(|url| (*url).to_owned()).collect(),
        unsure: unsure.iter().map(|url| (*url).to_owned()).collect(),
        apps: apps.iter().map(|app| (*app).to_owned()).collect(),
        ..Wanted::default()
    };
    let mut ab = wanted(&["http://10.0.0.1:80", "http://10.0.0.3:80"], &[], &["/a", "/b"]);
    let shares = [("/a", "http://10.0.0.1:80"), ("/b", "http://10.0.0.3:80")];
    let shares = shares.map(|(app, url)| (app.to_owned(), [url.to_owned()].into()));
    ab.shares = shares.into();
    let q = wanted(&[], &["http://10.0.0.7:80"], &["/q"]);
    let held = wanted(&[], &["http://10.0.0.9:80"], &[]);
    [("ab.test", ab), ("b.test", wanted(&[], &[], &["/b"])), ("held.test", held), ("q.test", q)]
        .map(|(host, wanted)| (host.to_owned(), wanted))
        .into()
}

pub(super) fn pass() -> Pass {
    let held = Held {
        rows: [("held.test".to_owned(), vec!["http://10.0.0.9:80".to_owned()])].into(),
        reason: "5 of 6 backends would go, more than 50 %, and nothing says why".to_owned(),
        until: Duration::from_secs(60),
        observations_left: 2,
    };
    let shared = [("ab.test".to_owned(), vec!["/a".to_owned(), "/b".to_owned()])].into();
    Pass { plan: plan().into(), apps: apps(), shared, held: Some(held), ..Pass::default() }
}
