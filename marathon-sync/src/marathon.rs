//! Marathon as this program sees it: its API over HTTP, and its stream of events.
//!
//! `client` fetches; `events` listens and hands on [`events::Hint`]s; `debounce` says when a hint
//! leads to a fetch. Nothing here knows what an app means: the answer is handed on as bytes.
//!
//! `endpoints`, `sse`, `debounce` and what `auth` and `answer` decide are pure.

mod answer;
pub mod auth;
pub mod client;
pub mod debounce;
pub mod endpoints;
pub mod events;
mod request;
pub mod sse;
#[cfg(test)]
mod testing;
pub mod tls;

pub use answer::NotAnswer;
pub use request::AttemptError;
