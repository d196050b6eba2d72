//! A webhook gateway: it admits a sender's webhook, turns it into a JSON job, makes the job durable, and only then
//! answers `{"result":true,"error":""}`.
//!
//! ```text
//!             public plane (hyper + tower)                                      workers
//!  socket -> listener -> [outcome, catch-panic] -> ingest()
//!                                                   | route            method + path -> Route                404 405
//!                                                   | client_address   peer, trusted hops -> ClientAddress   400
//!                                                   | apps.select      headers -> App
//!                                                   | admit            lists, domains, integration -> Caller 403 404 429 503
//!                                                   | receive          capped in bytes and in time           413 408 400 503
//!                                                   | verify           raw bytes -> Verified                 401 503
//!                                                   | handshake_at     a sender's trial of the URL -> answer   405
//!                                                   | decompress       gzip | deflate -> the content         400 413 415 503
//!                                                   | decode           json | xml | form | text -> Payload   400 415
//!                                                   | encode           + metadata -> Job
//!                                                   | append  --------------------------> lane -> embedded | redis
//!                                                   v          <---- Receipt (durable) <----'            503
//!  socket <- answer()   {"result":true,"error":""}
//!             private plane (axum, its own thread and runtime): /live /ready /metrics /api
//! ```
//!
//! Reading list, in order: [`ingest`] (the path), [`ingest::rejection`] (every refusal), [`queue`] (what a receipt
//! means), [`gateway`] (how it is put together and taken apart), [`config`] (every setting).

pub mod admin;
pub mod admission;
pub mod app;
pub mod command;
pub mod config;
pub mod gateway;
pub mod handshake;
pub mod ingest;
pub mod integration;
pub mod job;
pub mod memory;
pub mod outbound;
pub mod payload;
pub mod queue;
#[cfg(test)]
#[path = "../tests/it/support/random.rs"]
mod random;
pub mod resolver;
mod rfc3339;
pub mod shutdown;
pub mod signature;
pub mod source;
pub mod telemetry;

/// This gateway's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that it was built from, where the build said so (`RETRIEVE_BUILD_COMMIT`).
pub const COMMIT: &str = match option_env!("RETRIEVE_BUILD_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
