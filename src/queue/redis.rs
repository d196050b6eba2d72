//! The Redis queue: an idempotent producer on one connection.
//!
//! What is waiting goes out as a numbered batch; a script on the server appends it and writes down its number, so that
//! sending it again changes nothing ([`crate::queue::producer`]). A receipt means that Redis confirmed the batch, or
//! that it lies fsynced in the outage journal; what is there goes to Redis, in order, as soon as it is back.
//! Redis's own settings decide what a confirmation survives.

mod link;
mod read;
mod script;
mod server;
mod slots;
pub mod target;
pub mod tls;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use tokio::sync::watch;
use tokio_rustls::rustls::ClientConfig;

use self::server::Server;
use self::target::Target;
pub use self::writer::RedisWriter;
use super::Health;
use super::journal::{Identity, Journal, Recovered};
use super::lane::{Lane, lane};
use crate::telemetry::queue::QueueMetrics;

/// How long a new connection may take, and any command but a batch.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The field of a stream entry that holds the job.
pub const JOB_FIELD: &str = "job";

/// The keys of an app. The hash tag keeps all of them in one slot of a cluster.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The stream of jobs.
    pub stream: String,
    /// The markers of the producers.
    pub producers: String,
    /// Written to learn whether Redis takes writes.
    pub probe: String,
    prefix: String,
}

impl Keys {
    /// The keys of the app of that name.
    pub fn of(app: &str) -> Keys {
        let prefix = format!("retrieve:{{{app}}}:");
        Keys {
            stream: format!("{prefix}jobs"),
            producers: format!("{prefix}producers"),
            probe: format!("{prefix}probe"),
            prefix,
        }
    }

    /// The mark of a delivery that was seen.
    pub fn seen(&self, key: &str) -> String {
        format!("{}seen:{key}", self.prefix)
    }
}

/// The Redis queue.
#[derive(Debug)]
pub struct Redis {
    lane: Lane,
    server: Server,
    keys: Keys,
    health: watch::Receiver<Health>,
}

/// What the queue is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where Redis is.
    pub target: Target,
    /// How its certificates are judged, where the target asks for TLS.
    pub tls: Option<Arc<ClientConfig>>,
}

/// The outage journal, and what this lane found in it.
#[derive(Debug)]
pub struct Outage {
    /// The journal.
    pub journal: Journal,
    /// Who writes.
    pub identity: Identity,
    /// What wasn't confirmed before the last stop.
    pub recovered: Recovered,
}

impl Redis {
    /// A queue there. Connects later, in the writer: a Redis that is away doesn't stop the start. A job that Redis hasn't
    /// confirmed after `settle_after` goes to the journal; without one it is refused.
    pub fn new(
        settings: &Settings,
        app: &str,
        settle_after: Duration,
        outage: Option<Outage>,
        metrics: QueueMetrics,
    ) -> (Redis, RedisWriter) {
        let server = Server::new(settings.target.clone(), settings.tls.clone());
        let keys = Keys::of(app);
        let (lane, waiting) = lane();
        let (health_sender, health) = watch::channel(Health::Down("not connected yet".to_owned()));
        let writer = RedisWriter::new(
            waiting,
            server.clone(),
            keys.clone(),
            settle_after,
            outage,
            health_sender,
            metrics,
        );
        (Redis { lane, server, keys, health }, writer)
    }

    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }
}

/// The server's code and words, without the address or the URL that the client was given.
fn describe(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => error.to_string(),
    }
}
