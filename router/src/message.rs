//! What a proxy does with the fields of the messages that pass through it: which facts a request states,
//! and which fields the next hop gets.
//!
//! Pure decisions over heads that are ranges of a buffer ([`crate::http1`]): no I/O, clock or randomness,
//! and on the ordinary path no allocation. Lines that are passed on keep their names' case and their
//! order. In this order for each request:
//!
//! 1. [`request::RequestFacts`]: what the head asks for and what kind of request it is.
//! 2. [`client_info::ClientInfo::resolve`]: what the backend is told about the client.
//! 3. [`host_options`]: what the options of a host read from the head.
//! 4. [`request_head::write_request`]: the head for the backend, in one pass.
//! 5. [`response_head::write_response`]: the backend's head for the client, in one pass.

pub mod client_info;
pub mod forwarded;
pub mod forwarding;
pub mod hops;
pub mod host_options;
pub mod logins;
pub mod request;
pub mod request_head;
pub mod request_ids;
pub mod request_kind;
pub mod response_head;
mod text;

#[cfg(test)]
mod testing;
