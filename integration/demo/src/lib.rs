//! What `try.sh` and `compose.yaml` show the products with: a demo backend and a fake Marathon, as programs.
//!
//! The fake Marathon and its few helpers are a library as well, which the test harness builds on. Nothing
//! here may need the harness: the demo has to build quickly.

pub mod eventually;
pub mod head;
pub mod marathon;
pub mod ports;
