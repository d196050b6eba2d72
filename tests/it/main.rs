//! The integration tests: one binary, so that it links once. Each module says what it proves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod answers;
mod command_line;
mod connections;
mod domains;
mod drain;
mod embedded;
mod failing_disk;
mod http;
mod jobs;
mod nginx;
mod payloads;
mod private_plane;
mod proxy_protocol;
mod redis;
mod redis_checks;
mod redis_errors;
mod redis_shards;
mod redis_topology;
mod redis_trim;
mod report_mode;
mod send;
mod senders;
mod settings;
mod support;
mod workers;
