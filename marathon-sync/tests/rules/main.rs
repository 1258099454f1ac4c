//! From Marathon's documents to plans: dialects, rules, known breakages, and the guard.

mod addresses;
mod breakages;
mod bridge_bugs;
mod dialects;
mod guard;
mod labels;
mod liveness;
mod properties;
mod quarantine;
mod versions;
mod world;
