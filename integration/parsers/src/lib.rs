//! Tests that need the libraries of both programs: the corpus of the fuzz targets, replayed.
//!
//! They are a package of their own so that `integration`, which sees the programs only through sockets, signals,
//! files and Redis, is not compiled again whenever a program changes.
