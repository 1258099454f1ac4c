//! Keeps the router's Redis lists equal to the live tasks of a Marathon cluster.

pub mod agent;
pub mod app;
pub mod cli;
pub mod config;
pub mod document;
pub mod guard;
pub mod healthcheck;
pub mod marathon;
pub mod observe;
pub mod pass;
pub mod plan;
pub mod routes;
pub mod rules;
