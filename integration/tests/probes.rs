//! Probes: one small attack or fault each, by name, and the right answer to it. `names.txt` lists
//! them; a test holds that each is played.
//!
//! A group is a list of probes and a `#[test]` that plays them all, so that one failure does not hide the
//! next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use integration::backend::{Backend, Request};
use integration::client::{Client, Response};
use integration::redis::Redis;
use integration::router::{Builder, Router};

mod chunks;
mod heads;
mod hop_by_hop;
mod hosts;
mod http2;
mod resources;
mod responses;
mod retries;
mod times;

/// A name and what is played under it.
struct Probe {
    name: &'static str,
    play: Box<dyn Fn(&Stage)>,
}

impl Probe {
    fn new(name: &'static str, play: impl Fn(&Stage) + 'static) -> Self {
        Self { name, play: Box::new(play) }
    }

    /// A request that is refused with 400: the connection ends, and nothing of it reaches a
    /// backend.
    fn refused(name: &'static str, request: impl Into<Vec<u8>>) -> Self {
        Self::refused_with(name, &[400], request)
    }

    /// The same with one of these statuses.
    fn refused_with(
        name: &'static str,
        statuses: &'static [u16],
        request: impl Into<Vec<u8>>,
    ) -> Self {
        let request = request.into();
        Self::new(name, move |stage| {
            let before = stage.backend.request_count();
            let mut client = Client::connect(stage.router.addr());
            // It may be cut off while it sends.
            drop(client.conn().send(&request));
            let response = client.response();
            assert!(statuses.contains(&response.status()), "answered {response:?}");
            assert!(client.is_closed(), "the connection goes on");
            assert_eq!(stage.backend.request_count(), before, "it was forwarded");
        })
    }

    /// A request that is forwarded as exactly one, of which `check` sees what the backend got.
    fn forwarded(
        name: &'static str,
        request: impl Into<Vec<u8>>,
        check: impl Fn(&Request, &Response, &mut Client) + 'static,
    ) -> Self {
        let request = request.into();
        Self::new(name, move |stage| {
            let before = stage.backend.request_count();
            let mut client = Client::connect(stage.router.addr());
            client.send(&request);
            let response = client.response();
            assert_eq!(response.status(), 200, "{response:?}");
            let seen = stage.backend.requests().split_off(before);
            assert_eq!(seen.len(), 1, "the backend saw {seen:?}");
            check(&seen[0], &response, &mut client);
        })
    }
}

/// A router in front of a backend that records, which serves `a.test`.
struct Stage {
    // Ends first.
    router: Router,
    redis: Redis,
    backend: Backend,
    hosts: AtomicUsize,
}

impl Stage {
    fn new(configure: impl FnOnce(Builder) -> Builder) -> Self {
        let backend = Backend::start("b");
        let redis = Redis::start();
        redis.frontend("a.test", "id", &[&backend.url()]);
        let router = configure(Router::builder(&redis)).start();
        Self { router, redis, backend, hosts: AtomicUsize::new(0) }
    }

    /// A virtual host of its own for `backend`.
    fn host(&self, backend: &Backend) -> String {
        let host = format!("{}.test", self.hosts.fetch_add(1, Ordering::Relaxed));
        self.redis.frontend(&host, "id", &[&backend.url()]);
        host
    }

    fn connect(&self) -> Client {
        Client::connect(self.router.addr())
    }

    /// The probe has done no harm.
    fn is_well(&self) {
        let response = self.connect().get("a.test", "/well");
        assert_eq!((response.status(), response.text().as_str()), (200, "b"));
    }
}

/// Plays every probe and fails with the names of all that were answered wrongly.
#[track_caller]
fn play(stage: &Stage, probes: &[Probe]) {
    let wrong: Vec<_> = probes
        .iter()
        .filter_map(|probe| {
            let played = catch_unwind(AssertUnwindSafe(|| {
                (probe.play)(stage);
                stage.is_well();
            }));
            let panic = played.err()?;
            let reason = panic.downcast_ref::<String>().map(String::as_str);
            let reason = reason.or_else(|| panic.downcast_ref::<&str>().copied());
            Some(format!("{}: {}", probe.name, reason.unwrap_or("panicked")))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), probes.len(), wrong.join("\n"));
}

/// Every probe is played, once.
#[test]
fn no_probe_is_left_out() {
    let groups = [
        chunks::probes(),
        heads::probes(),
        hop_by_hop::probes(),
        hosts::probes(),
        http2::probes(),
        resources::probes(),
        responses::probes(),
        retries::probes(),
        times::probes(),
    ];
    let mut played: Vec<_> = groups.iter().flatten().map(|probe| probe.name).collect();
    played.sort_unstable();
    let mut names: Vec<_> = include_str!("probes/names.txt").lines().collect();
    names.sort_unstable();
    assert_eq!(played, names);
    assert_eq!(names.len(), 183);
}
