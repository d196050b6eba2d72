//! What the Redis queue and its outage journal count.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A stream: one for each shard.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StreamLabels {
    /// Its key.
    pub stream: String,
}

/// A consumer group of a stream; the keeper bounds how many there are.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct GroupLabels {
    /// The stream's key.
    pub stream: String,
    /// The group's name.
    pub group: String,
}

/// Counters and gauges of the queue.
#[derive(Clone, Debug, Default)]
pub struct QueueMetrics {
    /// Jobs in the outage journal.
    pub journal_jobs: Gauge<u64, AtomicU64>,
    /// Their bytes.
    pub journal_bytes: Gauge<u64, AtomicU64>,
    /// Since when the journal holds jobs, in seconds.
    pub journal_age_seconds: Gauge<u64, AtomicU64>,
    /// Damaged files of the journal that were set aside since the start.
    pub journal_damaged_files: Gauge<u64, AtomicU64>,
    /// Batches of the journal that damage took since the start, at the most.
    pub journal_lost_batches: Gauge<u64, AtomicU64>,
    /// Jobs of the embedded queue that are still to be moved to Redis.
    pub moving_jobs: Gauge<u64, AtomicU64>,
    /// Connections to Redis that were given up.
    pub redis_broken_connections: Counter,
    /// Entries of each stream.
    pub stream_entries: Family<StreamLabels, Gauge<u64, AtomicU64>>,
    /// Entries that were removed, because every group had acknowledged them or for their age.
    pub stream_removed: Family<StreamLabels, Counter>,
    /// Entries that a group hasn't taken yet, where Redis says it.
    pub group_lag: Family<GroupLabels, Gauge<u64, AtomicU64>>,
    /// Entries that a group's consumers took and haven't acknowledged.
    pub group_pending: Family<GroupLabels, Gauge<u64, AtomicU64>>,
    /// 1 for a group that entries wait for, and none of whose consumers has asked for an hour.
    pub group_dead: Family<GroupLabels, Gauge<u64, AtomicU64>>,
    /// How often Redis had lost what it had confirmed, and it wasn't held here any more.
    pub redis_losses: Counter,
}

impl QueueMetrics {
    /// Gives them their names.
    pub fn register(&self, registry: &mut Registry) {
        let jobs = "Jobs in the outage journal, until Redis has them";
        registry.register("journal_jobs", jobs, self.journal_jobs.clone());
        registry.register(
            "journal_bytes",
            "Bytes of the jobs in the outage journal",
            self.journal_bytes.clone(),
        );
        registry.register(
            "journal_age_seconds",
            "Seconds since the outage journal was last empty",
            self.journal_age_seconds.clone(),
        );
        registry.register(
            "journal_damaged_files",
            "Damaged files of the outage journal that were set aside since the start",
            self.journal_damaged_files.clone(),
        );
        registry.register(
            "journal_lost_batches",
            "Batches of the outage journal that damage took since the start, at the most",
            self.journal_lost_batches.clone(),
        );
        let moving = "Jobs of the embedded queue that are still to be moved to Redis";
        registry.register("moving_jobs", moving, self.moving_jobs.clone());
        registry.register(
            "redis_broken_connections",
            "Connections to Redis given up after an error, a refusal or a time-out",
            self.redis_broken_connections.clone(),
        );
        registry.register(
            "redis_losses",
            "How often Redis had lost jobs that it had confirmed and that weren't held here any more",
            self.redis_losses.clone(),
        );
        registry.register("stream_entries", "Entries of a stream", self.stream_entries.clone());
        let removed = "Entries removed: acknowledged by every group, or over the age limit";
        registry.register("stream_removed", removed, self.stream_removed.clone());
        let lag = "Entries that a consumer group hasn't taken yet";
        registry.register("stream_group_lag", lag, self.group_lag.clone());
        let pending = "Entries that a consumer group took and hasn't acknowledged";
        registry.register("stream_group_pending", pending, self.group_pending.clone());
        let dead = "1 for a consumer group that entries wait for and that nobody has read as for an hour";
        registry.register("stream_group_dead", dead, self.group_dead.clone());
    }
}
