//! The Redis queue: an idempotent producer on one connection to each of its streams.
//!
//! What is waiting goes out as a numbered batch; a script on the server appends it and writes down its number, so that
//! sending it again changes nothing ([`crate::queue::producer`]). A receipt means that Redis confirmed the batch, or
//! that it lies fsynced in the outage journal; what is there goes to Redis, in order, as soon as it is back.
//! Redis's own settings decide what a confirmation survives.

mod checks;
mod keeper;
mod link;
mod mover;
mod read;
pub mod script;
mod server;
mod slots;
mod socket;
pub mod target;
pub mod tls;
mod writer;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError};
use tokio::sync::watch;
use tokio_rustls::rustls::ClientConfig;
use tokio_util::sync::CancellationToken;

pub use self::keeper::{Keeper, Trim};
pub use self::mover::Mover;
use self::server::Server;
use self::target::Target;
pub use self::writer::RedisWriter;
use super::Health;
use super::embedded::Leftover;
use super::journal::{Identity, Journal, Recovered};
use super::lane::{Lane, lane};
use crate::job::Job;
use crate::telemetry::queue::QueueMetrics;

/// How long a new connection may take, and any command but a batch.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The field of a stream entry that holds the job.
pub const JOB_FIELD: &str = "job";

/// The keys of an app's shard. The hash tag keeps all of them in one slot of a cluster.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The number of the shard's lane: 0 for the one stream of an app that isn't spread, from 1 on for its shards. So a
    /// lane's number always means the same stream, whatever the number of shards is.
    pub lane: u32,
    /// The stream of jobs.
    pub stream: String,
    /// The markers of the producers.
    pub producers: String,
    /// The stream's name within a transaction that appends to it; nobody ever sees it.
    pub open: String,
    /// Written to learn whether Redis takes writes.
    pub probe: String,
    prefix: String,
}

impl Keys {
    /// The keys of a lane of the app of that name.
    pub fn of(app: &str, lane: u32) -> Keys {
        let prefix = match lane {
            0 => format!("retrieve:{{{app}}}:"),
            lane => format!("retrieve:{{{app}.{}}}:", lane - 1),
        };
        Keys {
            lane,
            stream: format!("{prefix}jobs"),
            producers: format!("{prefix}producers"),
            open: format!("{prefix}open"),
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
    server: Server,
    shards: Vec<Shard>,
    /// Lanes of an earlier number of shards: nothing new goes there, but what the journal holds for them.
    older: Vec<Shard>,
    /// Ends the keepers.
    stop: CancellationToken,
}

/// One stream, and the way to it.
#[derive(Debug)]
struct Shard {
    keys: Keys,
    lane: Lane,
    health: watch::Receiver<Health>,
}

/// What the queue is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where Redis is.
    pub target: Target,
    /// How its certificates are judged, where the target asks for TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// Over how many streams the app's jobs are spread.
    pub shards: u32,
    /// When a batch counts as confirmed.
    pub ack: Ack,
    /// What is removed from the streams.
    pub trim: Trim,
    /// How many entries a stream may hold before its jobs wait in the journal; 0 for any number.
    pub stream_limit: u64,
    /// For how long nobody may have read as a group that entries wait for, before it counts as dead; no setting.
    pub dead_after: Duration,
}

/// When a batch counts as confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// When Redis has executed it.
    Redis,
    /// When so many replicas have it too.
    Replicas(u32),
    /// When it is fsynced in Redis's append-only file.
    Fsync,
}

impl Ack {
    /// How long replicas or a disk may take to confirm. With `appendfsync everysec` the disk's turn comes each second.
    fn confirm_timeout(self) -> Duration {
        Duration::from_millis(if self == Ack::Fsync { 2000 } else { 800 })
    }

    /// How long a command may take on a connection that writes: longer than its confirmation, so that Redis's answer comes.
    fn response_timeout(self) -> Duration {
        self.confirm_timeout() + Duration::from_millis(200)
    }
}

impl Settings {
    /// Whether a batch may be a transaction with a command for each job, see `append.lua`. In a cluster a key that doesn't
    /// exist has every transaction refused for as long as its slot is being moved.
    fn may_split(&self) -> bool {
        !matches!(self.target.topology, target::Topology::Cluster { .. })
    }

    /// The lanes of the shards.
    fn lanes(&self) -> RangeInclusive<u32> {
        if self.shards > 1 { 1..=self.shards } else { 0..=0 }
    }

    /// How many lanes a journal needs.
    pub fn journal_lanes(&self) -> u32 {
        self.lanes().end() + 1
    }
}

/// The outage journal, and what the lanes found in it.
#[derive(Debug)]
pub struct Outage {
    /// The journal.
    pub journal: Journal,
    /// Who writes.
    pub identity: Identity,
    /// By lane: what wasn't confirmed before the last stop.
    pub recovered: Vec<Recovered>,
    /// What an embedded queue left in the same folder.
    pub leftover: Option<Leftover>,
}

impl Redis {
    /// A queue there, and the worker of each of its lanes. They connect later: a Redis that is away doesn't stop the
    /// start. A job that Redis hasn't confirmed after `settle_after` goes to the journal; without one it is refused.
    pub fn new(
        settings: &Settings,
        app: &str,
        settle_after: Duration,
        outage: Option<&Outage>,
        metrics: &QueueMetrics,
    ) -> (Redis, Vec<RedisWriter>, Option<Mover>) {
        let server = Server::new(settings);
        if let Some(Outage { journal, .. }) = outage {
            // What is found there is in the metrics before anybody can ask for them.
            metrics.journal_jobs.set(journal.usage().jobs());
            metrics.journal_bytes.set(journal.usage().bytes());
        }
        let mut writers = Vec::new();
        let mut open = |number| {
            let keys = Keys::of(app, number);
            let (lane, waiting) = lane();
            let (sender, health) = watch::channel(Health::Down("not connected yet".to_owned()));
            let (server, metrics) = (server.clone(), metrics.clone());
            let of_lane =
                RedisWriter::new(waiting, server, keys.clone(), settle_after, outage, sender, metrics);
            writers.push(of_lane);
            Shard { keys, lane, health }
        };
        let shards: Vec<Shard> = settings.lanes().map(&mut open).collect();
        let recovered = (0..).zip(outage.into_iter().flat_map(|outage| &outage.recovered));
        let backlogs =
            recovered.filter(|(number, found)| !settings.lanes().contains(number) && !found.runs.is_empty());
        let older = backlogs.map(|(number, _)| open(number)).collect();
        let mover = outage.and_then(|outage| {
            let field = format!("{}.moved", outage.identity.producer.simple());
            let first = shards.first()?;
            let leftover = outage.leftover.clone()?;
            let running = first.health.clone();
            Some(Mover::new(leftover, server.clone(), first.keys.clone(), field, running, metrics.clone()))
        });
        (Redis { server, shards, older, stop: CancellationToken::new() }, writers, mover)
    }

    /// The workers that keep the shards' streams.
    pub fn keepers(&self, metrics: &QueueMetrics) -> Vec<Keeper> {
        let keeper = |shard: &Shard| Keeper {
            server: self.server.clone(),
            keys: shard.keys.clone(),
            metrics: metrics.clone(),
            stop: self.stop.clone(),
        };
        self.shards.iter().map(keeper).collect()
    }

    /// The lane that a job takes: one for all jobs of an `order_key`, so that they keep their order, and any without one.
    pub(super) fn lane(&self, job: &Job, order_key: Option<&str>) -> &Lane {
        // Repeats of a delivery have to meet where the first one is marked.
        let hash = match (order_key, &job.dedupe) {
            (Some(key), _) => slots::crc16(key.as_bytes()),
            (None, Some(dedupe)) => slots::crc16(dedupe.key.as_bytes()),
            (None, None) => slots::crc16(job.id.as_bytes()),
        };
        // There is one shard at least.
        &self.shards[usize::from(hash) % self.shards.len()].lane
    }

    /// The worst of the lanes': a sender can't choose its lane.
    pub(super) fn health(&self) -> Health {
        let mut journaling = None;
        for lane in self.shards.iter().chain(&self.older) {
            match &*lane.health.borrow() {
                Health::Up => {}
                Health::Journaling(why) => journaling = Some(why.clone()),
                down @ Health::Down(_) => return down.clone(),
            }
        }
        journaling.map_or(Health::Up, Health::Journaling)
    }

    pub(super) fn close(&self) {
        self.stop.cancel();
        self.shards.iter().chain(&self.older).for_each(|shard| shard.lane.close());
    }
}

/// The server's code and words, without the address or the URL that the client was given.
fn describe(error: &RedisError) -> String {
    let words = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, Some(detail)) if error.kind() == ErrorKind::UnexpectedReturnType => detail.to_owned(),
        (None, _) => error.to_string(),
    };
    // Of what a script may not do, Redis 6.2 says it in one way and Redis from 7.2 on and Valkey in another, all as ERR; and
    // EXEC wraps it.
    let is_forbidden = words.contains("can't run this command") || words.contains("ACL failure in script");
    if words.contains("NOPERM") || is_forbidden {
        return format!("{words}; the rights that this user needs: {RIGHTS}");
    }
    words
}

/// What a user of the gateway needs, as `ACL SETUSER` takes it, besides the keys. docs/redis.md says what for.
pub const RIGHTS: &str = "+evalsha +script|load +multi +exec +hget +hset +xadd +xlen +xinfo +type +exists +rename \
                          +renamenx +set +get +pexpire +xread +xrevrange +xpending +xtrim +time +info +config|get +wait +role +cluster";
