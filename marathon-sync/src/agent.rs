//! The program that goes on: events, answers and Redis lead to passes, the one who leads writes.

pub mod seen;
pub mod state;
