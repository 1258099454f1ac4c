//! Whether this process does its part. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Facts;
use crate::agent::state::View;
use crate::routes::lease::Standing;

/// Ready is who leads and can read and write Redis, or stands by for the leader, and has lately seen
/// that Redis is what Marathon wants. Returns which of the two, and what is wrong with Redis all the
/// same.
///
/// # Errors
///
/// Why the process is not ready, for people.
pub fn readiness(facts: &Facts, stale_after: Duration, now: Timestamp) -> Result<String, String> {
    if facts.is_ending {
        return Err("ending".to_owned());
    }
    let view = &facts.view;
    let role = match view.standing {
        Standing::Leader { .. } => "leader",
        Standing::Standby { .. } => "standby",
        Standing::Unknown => {
            let why = match (&view.lease_problem, facts.redis_is_up) {
                (Some((_, problem)), true) => problem.to_string(),
                (None, true) => "Redis is connected".to_owned(),
                (_, false) => facts.outage.to_string(),
            };
            return Err(format!("it is not known which process writes; {why}"));
        }
    };
    if let (Standing::Leader { .. }, Some(failure)) = (&view.standing, &view.redis_failed) {
        return Err(format!("this process writes, and cannot: {}", failure.message));
    }
    let Some(success) = view.succeeded else {
        return Err(format!("no pass has succeeded since the start{}", because(view)));
    };
    // A clock that was set back makes no pass stale.
    let age = now.duration_since(success).max(SignedDuration::ZERO).unsigned_abs();
    if age > stale_after {
        let (age, limit) = (age.as_secs(), stale_after.as_secs());
        let because = because(view);
        return Err(format!(
            "stale: the last success was {age} s ago, more than {limit} s{because}"
        ));
    }
    Ok(match &view.lease_problem {
        Some((_, problem)) => format!("{role}; {problem}"),
        None => role.to_owned(),
    })
}

/// What does not work now.
fn because(view: &View) -> String {
    let failures = [&view.answer_failed, &view.redis_failed].into_iter().flatten();
    failures.map(|failure| format!("; {}", failure.message)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::super::Facts;
    use super::super::testing::{at, facts, failure, leader, standby};
    use super::readiness;
    use crate::routes::lease::{Problem, Standing};

    const FULL: &str = "leader; Redis is full: it uses more memory than its `maxmemory` and may evict \
        nothing (OOM); raise `maxmemory` or remove what is not needed; routes are still written";

    fn refused() -> Option<(Timestamp, Problem)> {
        Some((at(0), Problem::Refused("MISCONF".to_owned())))
    }

    #[test]
    fn ready_is_who_has_a_role_and_a_recent_success() {
        type Change = fn(&mut Facts);
        // What is known, seconds since the last success, answer
        let cases: &[(&str, Change, i64, Result<&str, &str>)] = &[
            ("a leader", |facts| facts.view.standing = leader(), 120, Ok("leader")),
            ("a standby", |facts| facts.view.standing = standby(), 0, Ok("standby")),
            ("a clock that was set back", |_| {}, -500, Ok("leader")),
            (
                "a leader that cannot write",
                |facts| facts.view.redis_failed = failure("no Redis"),
                0,
                Err("this process writes, and cannot: no Redis"),
            ),
            (
                "trouble of a standby that is not old",
                |facts| {
                    facts.view.standing = standby();
                    facts.view.redis_failed = failure("no Redis");
                },
                120,
                Ok("standby"),
            ),
            (
                "no answer that is not old",
                |facts| facts.view.answer_failed = failure("no answer"),
                120,
                Ok("leader"),
            ),
            ("too old", |_| {}, 121, Err("stale: the last success was 121 s ago, more than 120 s")),
            (
                "too old, and why",
                |facts| {
                    facts.view.standing = standby();
                    facts.view.answer_failed = failure("no answer");
                    facts.view.redis_failed = failure("no Redis");
                },
                121,
                Err("stale: the last success was 121 s ago, more than 120 s; no answer; no Redis"),
            ),
            (
                "no success yet",
                |facts| facts.view.succeeded = None,
                0,
                Err("no pass has succeeded since the start"),
            ),
            (
                "no success yet, and why",
                |facts| {
                    facts.view.succeeded = None;
                    facts.view.answer_failed = failure("no answer");
                },
                0,
                Err("no pass has succeeded since the start; no answer"),
            ),
            (
                "no election",
                |facts| facts.view.standing = Standing::Unknown,
                0,
                Err("it is not known which process writes; Redis is not reachable"),
            ),
            (
                "no election although Redis is there",
                |facts| {
                    facts.view.standing = Standing::Unknown;
                    facts.redis_is_up = true;
                },
                0,
                Err("it is not known which process writes; Redis is connected"),
            ),
            (
                "no election, and why",
                |facts| {
                    facts.view.standing = Standing::Unknown;
                    facts.view.lease_problem = refused();
                    facts.redis_is_up = true;
                },
                0,
                Err("it is not known which process writes; Redis does not give the lease: MISCONF"),
            ),
            (
                "a leader of a full Redis",
                |facts| facts.view.lease_problem = Some((at(0), Problem::Full)),
                0,
                Ok(FULL),
            ),
            ("the end", |facts| facts.is_ending = true, 0, Err("ending")),
        ];
        for (name, change, age, expected) in cases {
            let mut facts = facts();
            change(&mut facts);
            let answer = readiness(&facts, Duration::from_secs(120), at(*age));
            let answer = answer.as_ref().map(String::as_str).map_err(String::as_str);
            assert_eq!(answer, *expected, "{name}");
        }
    }
}
