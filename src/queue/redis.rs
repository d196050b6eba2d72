//! The Redis queue: an idempotent producer on one connection.
//!
//! What is waiting goes out as a numbered batch; a script on the server appends it and writes down its number, so that
//! sending it again changes nothing ([`crate::queue::producer`]). A receipt means that Redis confirmed the batch, or
//! that it lies fsynced in the outage journal; what is there goes to Redis, in order, as soon as it is back.
//! Redis's own settings decide what a confirmation survives.

mod link;
mod mover;
mod read;
mod script;
mod writer;

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;

pub use self::mover::Mover;
pub use self::writer::RedisWriter;
use super::Health;
use super::embedded::Leftover;
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
    client: Client,
    keys: Keys,
    health: watch::Receiver<Health>,
}

/// Where the app's stream is.
#[derive(Clone, Debug)]
struct Server {
    client: Client,
    keys: Keys,
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
    /// What an embedded queue left in the same folder.
    pub leftover: Option<Leftover>,
}

impl Redis {
    /// A queue at that URL. Connects later, in the writer: a Redis that is away doesn't stop the start. A job that Redis
    /// hasn't confirmed after `settle_after` goes to the journal; without one it is refused.
    ///
    /// # Errors
    /// The URL isn't one of Redis.
    pub fn new(
        url: &SecretString,
        app: &str,
        settle_after: Duration,
        outage: Option<Outage>,
        metrics: QueueMetrics,
    ) -> Result<(Redis, RedisWriter, Option<Mover>), RedisError> {
        let client = Client::open(url.expose_secret())?;
        let keys = Keys::of(app);
        let (lane, waiting) = lane();
        let (health_sender, health) = watch::channel(Health::Down("not connected yet".to_owned()));
        let server = Server { client: client.clone(), keys: keys.clone() };
        let mover = outage.as_ref().and_then(|outage| {
            let field = format!("{}.moved", outage.identity.producer.simple());
            let leftover = outage.leftover.clone()?;
            Some(Mover::new(leftover, server.clone(), field, health.clone(), metrics.clone()))
        });
        let writer = RedisWriter::new(waiting, server, settle_after, outage, health_sender, metrics);
        Ok((Redis { lane, client, keys, health }, writer, mover))
    }

    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }
}

async fn connect(client: &Client, response_timeout: Duration) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(response_timeout));
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// The server's code and words, without the address or the URL that the client was given.
fn describe(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => error.to_string(),
    }
}
