//! What `router` and `marathon-sync` both use: host names, backend URLs, the Redis key schema,
//! supervised Redis connections, the admin listener, back-off and telemetry.
//!
//! Belongs here: code that both programs need and that knows neither routing nor Marathon. `host`,
//! `backend`, `driver` and `keys` are pure: no sockets, no clock, no randomness.

pub mod accept;
pub mod admin;
pub mod backend;
pub mod backoff;
pub mod driver;
pub mod healthcheck;
pub mod host;
pub mod keys;
pub mod lock;
pub mod pinned;
pub mod secret;
pub mod store;
pub mod telemetry;
pub mod time_limit;
