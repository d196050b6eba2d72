//! The integration tests: one binary, so that it links once. Each module says what it proves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod answers;
mod blocked;
mod command_line;
mod connections;
mod corpora;
mod damage;
mod dedupe;
mod domains;
mod drain;
mod embedded;
mod failing_disk;
mod faults;
mod full_disk;
mod hostile;
mod http;
mod io_errors;
mod job_schema;
mod jobs;
mod nginx;
mod outage;
mod payloads;
mod private_plane;
mod proxy_protocol;
mod redis;
mod redis_checks;
mod redis_error_rows;
mod redis_errors;
mod redis_shards;
mod redis_tls;
mod redis_topology;
mod redis_trim;
mod redis_versions;
mod report_mode;
mod secrets;
mod send;
mod sender_keys;
mod senders;
mod settings;
mod support;
mod workers;
mod wrong_signatures;
