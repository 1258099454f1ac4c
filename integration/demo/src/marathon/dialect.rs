//! Which Marathon is spoken: every difference between versions that clients can see, as a question.

use std::fmt;
use std::str::FromStr;

/// A version of Marathon, in order of age.
///
/// Each stands for the versions up to the next one where nothing else is said; `V1_9` also for 1.7,
/// 1.8 and what came after.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[allow(missing_docs, reason = "the name is the version")]
pub enum Dialect {
    V0_8_1,
    V0_8_2,
    V0_9,
    V0_10,
    V0_11,
    V1_1_1,
    V1_3,
    V1_4,
    V1_5,
    V1_6,
    V1_9,
}

impl Dialect {
    /// Every dialect, oldest first.
    pub const ALL: [Self; 11] = [
        Self::V0_8_1,
        Self::V0_8_2,
        Self::V0_9,
        Self::V0_10,
        Self::V0_11,
        Self::V1_1_1,
        Self::V1_3,
        Self::V1_4,
        Self::V1_5,
        Self::V1_6,
        Self::V1_9,
    ];

    /// The version as `/v2/info` and people write it.
    pub fn version(self) -> &'static str {
        match self {
            Self::V0_8_1 => "0.8.1",
            Self::V0_8_2 => "0.8.2",
            Self::V0_9 => "0.9.0",
            Self::V0_10 => "0.10.0",
            Self::V0_11 => "0.11.0",
            Self::V1_1_1 => "1.1.1",
            Self::V1_3 => "1.3.0",
            Self::V1_4 => "1.4.0",
            Self::V1_5 => "1.5.0",
            Self::V1_6 => "1.6.352",
            Self::V1_9 => "1.9.100",
        }
    }

    // --- answers ---

    /// `Content-Type` of a JSON answer.
    pub(super) fn json_type(self) -> &'static str {
        if (Self::V0_11..=Self::V1_6).contains(&self) {
            "application/json; qs=2"
        } else {
            "application/json"
        }
    }

    /// `Server` header.
    pub(super) fn server(self) -> &'static str {
        if self <= Self::V1_1_1 {
            "Jetty(8.y.z-SNAPSHOT)"
        } else if self <= Self::V1_6 {
            "Jetty(9.3.z-SNAPSHOT)"
        } else {
            "Jetty(9.4.8.v20171121)"
        }
    }

    /// Whether answers of the leader name it in `X-Marathon-Leader`.
    pub(super) fn names_leader(self) -> bool {
        self >= Self::V0_9
    }

    /// Whether answers forbid framing and such.
    pub(super) fn sends_browser_headers(self) -> bool {
        self >= Self::V1_9
    }

    /// Whether `/v2/tasks` answers JSON to a request that does not ask for a type.
    pub(super) fn prefers_json(self) -> bool {
        self >= Self::V0_11
    }

    /// Whether `/v2/tasks` has the plain-text table at all.
    pub(super) fn has_text_tasks(self) -> bool {
        self < Self::V1_9
    }

    /// Whether `/v2/apps` understands several `embed` parameters and always embeds counts and
    /// deployments.
    pub(super) fn embeds_freely(self) -> bool {
        self >= Self::V0_9
    }

    // --- roles ---

    /// What a process says that knows no leader: `None` answers from its own state.
    pub(super) fn status_without_leader(self) -> Option<u16> {
        if self <= Self::V0_8_2 {
            None
        } else if self <= Self::V1_6 {
            Some(503)
        } else {
            Some(502)
        }
    }

    /// Whether a standby answers 200 without a body when it cannot reach the leader.
    pub(super) fn swallows_proxy_errors(self) -> bool {
        self <= Self::V0_8_2
    }

    // --- events ---

    /// Whether there is `/v2/events`.
    pub fn has_events(self) -> bool {
        self >= Self::V0_9
    }

    /// Whether events carry an `event:` line.
    pub fn has_event_line(self) -> bool {
        self >= Self::V0_11
    }

    /// Whether `?event_type=` filters. It came with 1.3.7; `V1_3` is 1.3.0.
    pub fn has_event_filter(self) -> bool {
        self >= Self::V1_4
    }

    /// Whether `?plan-format=light` is understood.
    pub fn has_light_plans(self) -> bool {
        self >= Self::V1_6
    }

    /// Whether plans are light without being asked for.
    pub fn has_only_light_plans(self) -> bool {
        self >= Self::V1_9
    }

    /// Whether instances have events of their own, and health events name them.
    pub fn has_instances(self) -> bool {
        self >= Self::V1_4
    }

    /// Whether a standby sends the clients of events to the leader; older ones proxy the stream.
    pub(super) fn redirects_events(self) -> bool {
        self >= Self::V1_9
    }

    /// Whether a proxied stream arrives only when it ends.
    pub(super) fn buffers_proxied_events(self) -> bool {
        self == Self::V0_10
    }

    /// How many events may wait for a slow reader.
    pub(super) fn event_buffer(self) -> usize {
        if self >= Self::V1_5 { 1024 } else { 50 }
    }

    /// Whether a reader that is too slow is disconnected; older versions drop events in silence.
    pub(super) fn closes_slow_readers(self) -> bool {
        self >= Self::V1_9
    }

    /// `Content-Type` of the stream.
    pub(super) fn events_type(self) -> &'static str {
        if self <= Self::V1_1_1 {
            "text/event-stream;charset=UTF-8"
        } else {
            "text/event-stream;charset=utf-8"
        }
    }

    /// The key of an action's name in a deployment's plan.
    pub(super) fn action_key(self) -> &'static str {
        if self >= Self::V1_4 { "action" } else { "type" }
    }

    /// Whether `api_post_event` is sent for a `DELETE`, too.
    pub(super) fn posts_deletions(self) -> bool {
        self <= Self::V0_9
    }

    // --- apps and tasks ---

    /// Whether checks without a result are listed as `null`.
    pub(super) fn lists_missing_results(self) -> bool {
        self <= Self::V0_8_1
    }

    /// Whether tasks say on which agent they are.
    pub(super) fn has_slave_id(self) -> bool {
        self >= Self::V0_11
    }

    /// Whether tasks have `ipAddresses`, and apps networks of their own.
    pub fn has_ip_per_task(self) -> bool {
        self >= Self::V1_1_1
    }

    /// Whether tasks have `state`.
    pub fn has_state(self) -> bool {
        self >= Self::V1_3
    }

    /// Whether `TASK_KILLING` exists.
    pub fn has_killing(self) -> bool {
        self >= Self::V1_3
    }

    /// Whether `TASK_UNREACHABLE` exists; before, such tasks are `TASK_LOST`.
    pub fn has_unreachable(self) -> bool {
        self >= Self::V1_4
    }

    /// Whether apps have `networks` and omit what is empty.
    pub fn has_networks(self) -> bool {
        self >= Self::V1_5
    }

    /// Whether lists of tasks are always there and `null` never is.
    pub fn has_full_lists(self) -> bool {
        self >= Self::V1_6
    }

    /// Whether task ids end in `._app.<incarnation>`.
    pub(super) fn has_incarnations(self) -> bool {
        self >= Self::V1_9
    }

    /// Whether tasks and apps have a `role`.
    pub(super) fn has_role(self) -> bool {
        self >= Self::V1_9
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.version())
    }
}

impl FromStr for Dialect {
    type Err = String;

    /// Takes `1.5` as well as `1.5.0`; of two with the same beginning the older one.
    fn from_str(text: &str) -> Result<Self, String> {
        let known = |dialect: &Self| {
            let version = dialect.version();
            version == text || version.rsplit_once('.').is_some_and(|(short, _)| short == text)
        };
        Self::ALL.into_iter().find(known).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|dialect| dialect.version()).collect();
            format!("no dialect of Marathon {text:?}; there are {}", all.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_is_found_by_its_version() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.version().parse(), Ok(dialect));
        }
        for (text, dialect) in
            [("0.9", Dialect::V0_9), ("1.5", Dialect::V1_5), ("1.9", Dialect::V1_9)]
        {
            assert_eq!(text.parse(), Ok(dialect));
        }
        for text in ["", "1", "2.0", "1.5."] {
            assert!(text.parse::<Dialect>().is_err(), "{text}");
        }
    }
}
