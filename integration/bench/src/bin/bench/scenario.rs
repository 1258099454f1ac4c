//! What clients ask of the proxies: the scenarios, and which proxies take part in each.

use std::fmt;

use clap::ValueEnum;

use crate::contenders::{Contender, Front, LARGE_BYTES, MEDIUM_BYTES, SMALL_BODY};
use crate::websocket;

const KIB: usize = 1024;
/// Virtual hosts that the router serves in a row of `vhosts`.
const HOSTS: [u32; 3] = [1, 10_000, 100_000];

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Scenario {
    /// 50 bytes, keep-alive
    Small,
    /// The same over a single connection
    #[value(name = "small-1")]
    Small1,
    /// The same over 1,000 connections
    #[value(name = "small-1000")]
    Small1000,
    /// 50 bytes, a new client connection for every request
    Connect,
    /// 50 bytes of 1, 10,000 and 100,000 virtual hosts; the router alone
    Vhosts,
    /// Responses of 1 KiB
    #[value(name = "download-1k")]
    Download1k,
    /// Responses of 100 KiB
    #[value(name = "download-100k")]
    Download100k,
    /// Responses of 1 MiB
    Large,
    /// Responses of 10 MiB, 8 connections
    #[value(name = "download-10m")]
    Download10m,
    /// Request bodies of 1 KiB
    #[value(name = "upload-1k")]
    Upload1k,
    /// Request bodies of 100 KiB
    #[value(name = "upload-100k")]
    Upload100k,
    /// Request bodies of 1 MiB
    #[value(name = "upload-1m")]
    Upload1m,
    /// Request bodies of 10 MiB, 8 connections
    #[value(name = "upload-10m")]
    Upload10m,
    /// 50 bytes over TLS 1.3, keep-alive
    Tls,
    /// 50 bytes over TLS 1.3, a connection with a full handshake for every request
    Handshake,
    /// The same, resuming the session of an earlier connection
    Resume,
    /// 50 bytes over HTTP/2 over TLS 1.3, 16 requests at a time on each connection
    Http2,
    /// WebSocket messages of 50 bytes and their echo
    Websocket,
    /// 50 bytes, keep-alive, with one worker and with two
    Workers,
    /// Memory of 5,000 idle connections, and after they have gone
    Idle,
    /// All of the above
    All,
}

/// A row of a table: a proxy, and how it is set up for this row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Subject {
    pub(crate) contender: Contender,
    pub(crate) workers: u32,
    /// 0: the one host of the other scenarios.
    pub(crate) hosts: u32,
}

impl Subject {
    pub(crate) fn plain(contender: Contender) -> Self {
        Self { contender, workers: 1, hosts: 0 }
    }
}

impl Scenario {
    /// Replaces `all` by every scenario.
    pub(crate) fn expand(chosen: &[Self]) -> Vec<Self> {
        if !chosen.contains(&Self::All) {
            return chosen.to_vec();
        }
        Self::value_variants().iter().copied().filter(|each| *each != Self::All).collect()
    }

    /// The rows of its table.
    pub(crate) fn subjects(self, contenders: &[Contender]) -> Vec<Subject> {
        let mut subjects = Vec::new();
        for &contender in contenders.iter().filter(|contender| self.is_for(**contender)) {
            let plain = Subject::plain(contender);
            match self {
                Self::Vhosts => subjects.extend(HOSTS.map(|hosts| Subject { hosts, ..plain })),
                Self::Workers => {
                    subjects.extend([1, 2].map(|workers| Subject { workers, ..plain }));
                }
                _ => subjects.push(plain),
            }
        }
        subjects
    }

    /// Whether a contender can do the work. The floor copies bytes: it has no TLS to end and no
    /// virtual hosts to tell apart.
    fn is_for(self, contender: Contender) -> bool {
        match self {
            Self::Vhosts => contender == Contender::Router,
            Self::Workers => contender != Contender::Floor,
            _ => contender != Contender::Floor || !self.front().is_tls(),
        }
    }

    /// The row that `subject` is compared with, among those of the same scenario.
    pub(crate) fn baseline(self, subject: Subject) -> Subject {
        match self {
            Self::Vhosts => Subject { hosts: HOSTS[0], ..subject },
            Self::Workers => Subject { workers: 1, ..subject },
            _ => Subject { contender: Contender::Nginx, ..subject },
        }
    }

    /// What the ratios of its table are to.
    pub(crate) fn baseline_name(self) -> &'static str {
        match self {
            Self::Vhosts => "1 host",
            Self::Workers => "1 worker",
            _ => "nginx",
        }
    }

    /// Text of a row's first cell.
    pub(crate) fn label(self, subject: Subject) -> String {
        let contender = subject.contender;
        match self {
            Self::Vhosts => format!("{contender}, hosts: {}", subject.hosts),
            Self::Workers => format!("{contender}, workers: {}", subject.workers),
            _ => contender.to_string(),
        }
    }

    /// Hosts that Redis has to know.
    pub(crate) fn most_hosts(self) -> u32 {
        if self == Self::Vhosts { HOSTS[HOSTS.len() - 1] } else { 0 }
    }

    /// The proxy runs on the load generator's core as well: with two workers on two cores there is
    /// no other way, so times and "displaced" say nothing there, only CPU a request does.
    pub(crate) fn shares_cores(self) -> bool {
        self == Self::Workers
    }

    /// Connections of the load generator, if not `usual`.
    pub(crate) fn connections(self, usual: u64) -> u64 {
        match self {
            Self::Small1 => 1,
            Self::Small1000 => 1000,
            // Few, because the origin holds a whole upload of each in memory.
            Self::Download10m | Self::Upload10m => 8,
            _ => usual,
        }
    }

    /// What the proxy listens for.
    pub(crate) fn front(self) -> Front {
        match self {
            Self::Tls | Self::Handshake | Self::Resume => Front::Tls,
            Self::Http2 => Front::Http2,
            Self::Websocket => Front::Websocket,
            _ => Front::Plain,
        }
    }

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Download1k => "/1k",
            Self::Download100k => "/medium",
            Self::Large => "/large",
            Self::Download10m => "/10m",
            Self::Upload1k | Self::Upload100k | Self::Upload1m | Self::Upload10m => "/sink",
            _ => "/",
        }
    }

    /// Bytes of a complete response body.
    pub(crate) fn body_bytes(self) -> usize {
        match self {
            Self::Download1k => KIB,
            Self::Download100k => MEDIUM_BYTES,
            Self::Large => LARGE_BYTES,
            Self::Download10m => 10 * LARGE_BYTES,
            Self::Websocket => websocket::PAYLOAD.len(),
            _ => SMALL_BODY.len(),
        }
    }

    /// Bytes of the request body; 0 for a GET.
    pub(crate) fn upload_bytes(self) -> usize {
        match self {
            Self::Upload1k => KIB,
            Self::Upload100k => MEDIUM_BYTES,
            Self::Upload1m => LARGE_BYTES,
            Self::Upload10m => 10 * LARGE_BYTES,
            _ => 0,
        }
    }

    /// Title of its table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Small => "Small GET, keep-alive",
            Self::Small1 => "Small GET, one connection",
            Self::Small1000 => "Small GET, 1,000 connections",
            Self::Connect => "Small GET, a connection a request",
            Self::Vhosts => "Small GET, many virtual hosts",
            Self::Download1k => "Download of 1 KiB",
            Self::Download100k => "Download of 100 KiB",
            Self::Large => "Download of 1 MiB",
            Self::Download10m => "Download of 10 MiB",
            Self::Upload1k => "Upload of 1 KiB",
            Self::Upload100k => "Upload of 100 KiB",
            Self::Upload1m => "Upload of 1 MiB",
            Self::Upload10m => "Upload of 10 MiB",
            Self::Tls => "Small GET over TLS, keep-alive",
            Self::Handshake => "Small GET over TLS, a full handshake a request",
            Self::Resume => "Small GET over TLS, a resumed handshake a request",
            Self::Http2 => "Small GET over HTTP/2 over TLS",
            Self::Websocket => "WebSocket message and its echo",
            Self::Workers => "Small GET, one and two workers on shared cores",
            Self::Idle => "Memory of idle connections",
            Self::All => "All scenarios",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.pad(name.as_ref().map_or("", |name| name.get_name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENDERS: [Contender; 4] =
        [Contender::Router, Contender::Nginx, Contender::Haproxy, Contender::Floor];

    #[test]
    fn all_is_every_other_scenario() {
        let all = Scenario::expand(&[Scenario::Small, Scenario::All]);
        assert_eq!(all.len(), Scenario::value_variants().len() - 1);
        assert!(!all.contains(&Scenario::All));
        assert_eq!(Scenario::expand(&[Scenario::Tls]), [Scenario::Tls]);
    }

    #[test]
    fn every_row_has_its_baseline_in_the_same_table() {
        for &scenario in Scenario::value_variants() {
            let subjects = scenario.subjects(&CONTENDERS);
            for &subject in &subjects {
                let baseline = scenario.baseline(subject);
                assert!(subjects.contains(&baseline), "{scenario}: {subject:?}");
                assert_eq!(scenario.baseline(baseline), baseline, "{scenario}");
            }
        }
    }

    #[test]
    fn floor_takes_part_where_copying_bytes_is_enough() {
        let with_floor = |scenario: Scenario| {
            scenario.subjects(&CONTENDERS).contains(&Subject::plain(Contender::Floor))
        };
        for scenario in
            [Scenario::Small, Scenario::Connect, Scenario::Upload1m, Scenario::Websocket]
        {
            assert!(with_floor(scenario), "{scenario}");
        }
        for scenario in [Scenario::Tls, Scenario::Http2, Scenario::Vhosts, Scenario::Workers] {
            assert!(!with_floor(scenario), "{scenario}");
        }
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        assert_eq!(Scenario::Small1000.to_string(), "small-1000");
        assert_eq!(format!("{:<8}|", Scenario::Tls), "tls     |");
    }
}
