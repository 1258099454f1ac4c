//! End-to-end tests of the `router` binary. One program for all of them: each test runs in a process of its
//! own all the same, and linking one program instead of thirty saves minutes and gigabytes.

mod access_log;
mod admin;
mod allowed_backends;
mod client_limits;
mod config_legacy;
mod dead_backends;
mod desync;
mod error_pages;
mod forwarded_headers;
mod framing;
mod freshness;
mod http1;
mod http2;
mod http2_conformance;
mod https;
mod https_backends;
mod limits;
mod logins;
mod neighbours;
mod options;
mod pages;
mod pool;
mod probes;
mod proxy_protocol;
mod redis_outage;
mod retry;
mod routing;
mod shutdown;
mod snapshot;
mod sticky;
mod storms;
mod tests_are_modules;
mod topologies;
mod websocket;
mod websocket_http2;
