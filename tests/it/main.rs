//! The integration tests: one binary, so that it links once. Each module says what it proves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod answers;
mod command_line;
mod connections;
mod drain;
mod embedded;
mod failing_disk;
mod http;
mod jobs;
mod private_plane;
mod redis;
mod send;
mod settings;
mod support;
mod workers;
