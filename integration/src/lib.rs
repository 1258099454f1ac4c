//! The harness of the end-to-end tests and benchmarks: a real `redis-server`, recording raw-socket
//! backends, raw-socket clients and the real `router` binary.
//!
//! What lives here: starting, observing and stopping those parts. What may not: anything that knows
//! how the router works inside; the tests see it only through sockets, signals, files and Redis.
//!
//! Three rules hold for everything that is built on it. No port is fixed: whatever is needed twice
//! is reserved by a bound socket. Nothing sleeps: either a part reports that it is ready, or
//! [`eventually`](eventually::eventually) waits for an observable state. Every wait has a deadline,
//! and its failure names what was waited for.

pub use demo::{eventually, marathon, ports};

pub mod backend;
pub mod certificates;
pub mod client;
pub mod gate;
pub mod http2;
pub mod process;
pub mod program;
pub mod redis;
pub mod resolver;
pub mod router;
pub mod sentinel;
pub mod strict;
pub mod sync;
pub mod tls;
pub mod websocket;
pub mod wire;
