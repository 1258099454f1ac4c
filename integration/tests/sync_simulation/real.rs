//! The same against a real Redis.
