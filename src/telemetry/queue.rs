//! What the Redis queue and its outage journal count.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters and gauges of the queue.
#[derive(Clone, Debug, Default)]
pub struct QueueMetrics {
    /// Jobs in the outage journal.
    pub journal_jobs: Gauge<u64, AtomicU64>,
    /// Their bytes.
    pub journal_bytes: Gauge<u64, AtomicU64>,
    /// Since when the journal holds jobs, in seconds.
    pub journal_age_seconds: Gauge<u64, AtomicU64>,
    /// Jobs of the embedded queue that are still to be moved to Redis.
    pub moving_jobs: Gauge<u64, AtomicU64>,
    /// Connections to Redis that were given up.
    pub redis_broken_connections: Counter,
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
    }
}
