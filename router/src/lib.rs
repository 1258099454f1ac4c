//! `router`: a Hipache-compatible HTTP and WebSocket router whose routes are Redis lists.
//!
//! `main → app → worker → proxy → {table, upstream, access_log} → route → shared`: nothing points
//! back, and a test sees to it. See ARCHITECTURE.md.

pub mod access_log;
pub mod admin;
pub mod app;
pub mod buffers;
pub mod cli;
pub mod client_io;
pub mod clients;
pub mod clock;
pub mod coherence;
pub mod config;
pub mod connection;
pub mod dead_marks;
pub mod descriptors;
pub mod grace;
pub mod healthcheck;
pub mod host_failures;
pub mod http1;
pub mod http2;
pub mod limits;
pub mod listen;
pub mod message;
pub mod metrics;
pub mod passwords;
pub mod permit;
pub mod pipes;
pub mod pool;
pub mod privileges;
pub mod proxy;
pub mod route;
pub mod seldom;
pub mod snapshot;
pub mod stream;
pub mod suggest;
pub mod table;
pub mod tls;
pub mod upstream;
pub mod worker;
