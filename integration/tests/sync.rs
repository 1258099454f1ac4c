//! End-to-end tests of the `marathon-sync` binary and of the fake Marathon that they run against.

mod fake_marathon;
mod fake_marathon_auth;
mod fake_marathon_events;
mod fake_marathon_faults;
mod sync_agent;
mod sync_breakages;
mod sync_deployments;
mod sync_rolling;
