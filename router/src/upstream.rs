//! The way to a backend: its name and addresses, which of them are allowed, dialling and TLS.

pub mod connect;
pub mod guard;
pub mod names;
pub mod trust;
