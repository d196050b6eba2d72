//! Every metric of the gateway, in one place. Labels come from closed sets, never from a request.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::queue::QueueMetrics;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::queue::Backlog;
use crate::signature::keys::KeyHost;
use crate::source::Handshake;

/// From a fifth of a millisecond to ten seconds; the promise of 100 ms is a bucket of its own.
const BUCKETS_SECONDS: [f64; 14] =
    [0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 1.0, 2.5, 10.0];

/// The media type of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
    status: u16,
}

/// What became of a query to the DNS resolver.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum QueryOutcome {
    /// With records.
    Answered,
    /// NXDOMAIN, or no data.
    Nothing,
    /// Too long for UDP; asked again over TCP.
    Truncated,
    /// SERVFAIL or another error.
    Failed,
    /// No answer in time.
    TimedOut,
    /// Not sent: over the limit of queries or of look-ups in flight.
    OverLimit,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Query {
    outcome: QueryOutcome,
}

/// What the look-ups of domain entries count.
#[derive(Clone, Debug, Default)]
pub struct DnsMetrics {
    queries: Family<Query, Counter>,
    /// Addresses whose reverse DNS is cached.
    pub verdicts: Gauge,
    /// Addresses that are a listed domain's own.
    pub addresses: Gauge,
    /// Look-ups of a listed domain that failed.
    pub refresh_failures: Counter,
    /// Callers that were told to come again.
    pub undecided: Counter,
}

impl DnsMetrics {
    /// Counts one query.
    pub fn count_query(&self, outcome: QueryOutcome) {
        self.queries.get_or_create(&Query { outcome }).inc();
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("dns_queries", "DNS queries by outcome", self.queries.clone());
        registry.register(
            "dns_cached_verdicts",
            "Addresses whose reverse DNS is cached",
            self.verdicts.clone(),
        );
        registry.register(
            "domain_addresses",
            "Addresses that are a listed domain's own",
            self.addresses.clone(),
        );
        registry.register(
            "domain_refresh_failures",
            "Look-ups of a listed domain's addresses that failed",
            self.refresh_failures.clone(),
        );
        registry.register(
            "callers_undecided",
            "Callers whose domain couldn't be looked up in time",
            self.undecided.clone(),
        );
    }
}

/// What became of fetching a sender's public key.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum FetchOutcome {
    /// It is here.
    Fetched,
    /// No connection, or no answer in time.
    Unreachable,
    /// The host's certificate isn't trusted.
    Untrusted,
    /// Another status than 200, or no token for it.
    Refused,
    /// The document holds no key.
    NoKey,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Fetch {
    host: KeyHost,
    outcome: FetchOutcome,
}

/// What fetching senders' public keys counts.
#[derive(Clone, Debug, Default)]
pub struct KeyMetrics {
    fetches: Family<Fetch, Counter>,
}

impl KeyMetrics {
    /// Counts one fetch.
    pub fn count_fetch(&self, host: KeyHost, outcome: FetchOutcome) {
        self.fetches.get_or_create(&Fetch { host, outcome }).inc();
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfKind {
    kind: Handshake,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfIntegration {
    integration: String,
}

/// The metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    request_seconds: Histogram,
    /// From handing a job to the queue until its outcome, in seconds.
    pub queue_seconds: Histogram,
    in_flight: Gauge,
    in_flight_bytes: Gauge<u64, AtomicU64>,
    queue_up: Gauge,
    embedded_jobs: Gauge<u64, AtomicU64>,
    embedded_bytes: Gauge<u64, AtomicU64>,
    embedded_age_seconds: Gauge<f64, AtomicU64>,
    embedded_damaged_files: Gauge<u64, AtomicU64>,
    embedded_lost_jobs: Gauge<u64, AtomicU64>,
    /// Requests let in because the allowlists only report.
    pub allowlist_reported: Counter,
    signed_but_blocked: Family<OfIntegration, Counter>,
    handshakes: Family<OfKind, Counter>,
    /// The public plane's connections.
    pub connections: ConnectionMetrics,
    /// The resolver's queries, and the look-ups of domain entries.
    pub dns: DnsMetrics,
    /// The queue.
    pub queue: QueueMetrics,
    /// The fetches of senders' public keys.
    pub keys: KeyMetrics,
}

/// What a listener counts.
#[derive(Clone, Debug, Default)]
pub struct ConnectionMetrics {
    open: Gauge,
    accepted: Counter,
    /// Connections over the limit.
    pub refused: Counter,
    /// Heads that weren't HTTP, or over their limit; answered 400 or 431 before there was a request.
    pub malformed: Counter,
    /// Heads that came too slowly; answered 408.
    pub slow_heads: Counter,
    /// Failures to accept.
    pub accept_errors: Counter,
    proxy_headers_refused: Family<Reason, Counter>,
}

/// One of what a gauge counts, until it is dropped.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    fn by(gauge: &Gauge) -> Counted {
        gauge.inc();
        Counted(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl ConnectionMetrics {
    /// Counts a connection as accepted, and as open until the guard is dropped.
    pub fn open(&self) -> Counted {
        self.accepted.inc();
        Counted::by(&self.open)
    }

    /// Counts a connection of a trusted proxy that was closed for its PROXY header.
    pub fn count_proxy_header(&self, reason: &'static str) {
        self.proxy_headers_refused.get_or_create(&Reason { reason }).inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("retrieve");
        let seconds = || Histogram::new(BUCKETS_SECONDS);
        let metrics = Metrics {
            requests: Family::default(),
            request_seconds: seconds(),
            queue_seconds: seconds(),
            in_flight: Gauge::default(),
            in_flight_bytes: Gauge::default(),
            queue_up: Gauge::default(),
            embedded_jobs: Gauge::default(),
            embedded_bytes: Gauge::default(),
            embedded_age_seconds: Gauge::default(),
            embedded_damaged_files: Gauge::default(),
            embedded_lost_jobs: Gauge::default(),
            allowlist_reported: Counter::default(),
            signed_but_blocked: Family::default(),
            handshakes: Family::default(),
            connections: ConnectionMetrics::default(),
            dns: DnsMetrics::default(),
            queue: QueueMetrics::default(),
            keys: KeyMetrics::default(),
            registry: Registry::default(),
        };
        let build = Info::new([("version", crate::VERSION), ("commit", crate::COMMIT)]);
        registry.register("build", "The version of this gateway", build);
        registry.register("requests", "Requests by outcome", metrics.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "From the end of a request's head until its answer",
            Unit::Seconds,
            metrics.request_seconds.clone(),
        );
        registry.register_with_unit(
            "queue_append_duration",
            "From handing a job to the queue until its outcome",
            Unit::Seconds,
            metrics.queue_seconds.clone(),
        );
        registry.register("requests_in_flight", "Requests being answered", metrics.in_flight.clone());
        registry.register_with_unit(
            "in_flight",
            "Memory taken by bodies in flight",
            Unit::Bytes,
            metrics.in_flight_bytes.clone(),
        );
        registry.register("queue_up", "1 while the queue takes jobs", metrics.queue_up.clone());
        registry.register(
            "embedded_jobs",
            "Jobs in the embedded queue that aren't acknowledged",
            metrics.embedded_jobs.clone(),
        );
        registry.register_with_unit("embedded", "Their size", Unit::Bytes, metrics.embedded_bytes.clone());
        registry.register_with_unit(
            "embedded_oldest",
            "How long ago the oldest of them was stored",
            Unit::Seconds,
            metrics.embedded_age_seconds.clone(),
        );
        registry.register(
            "embedded_damaged_files",
            "Damaged files of the embedded queue that were set aside since the start",
            metrics.embedded_damaged_files.clone(),
        );
        registry.register(
            "embedded_lost_jobs",
            "Jobs of the embedded queue that damage took since the start, at the most",
            metrics.embedded_lost_jobs.clone(),
        );
        registry.register(
            "allowlist_reported",
            "Requests let in by nothing but RETRIEVE_ALLOWED_LIST_MODE=report",
            metrics.allowlist_reported.clone(),
        );
        registry.register(
            "signed_but_blocked",
            "Validly signed webhooks of callers on no allowlist, as far as they were looked at",
            metrics.signed_but_blocked.clone(),
        );
        let connections = &metrics.connections;
        registry.register("connections_open", "Open connections", connections.open.clone());
        registry.register("connections_accepted", "Accepted connections", connections.accepted.clone());
        registry.register(
            "malformed_heads",
            "Heads that were not HTTP, or too large",
            connections.malformed.clone(),
        );
        registry.register("slow_heads", "Heads that came too slowly", connections.slow_heads.clone());
        registry.register("connections_refused", "Connections over the limit", connections.refused.clone());
        registry.register(
            "accept_errors",
            "Failures to accept a connection",
            connections.accept_errors.clone(),
        );
        registry.register("handshakes", "Answered trials of a URL by kind", metrics.handshakes.clone());
        registry.register(
            "key_fetches",
            "Fetches of senders' public keys by host and outcome",
            metrics.keys.fetches.clone(),
        );
        metrics.dns.register(&mut registry);
        metrics.queue.register(&mut registry);
        registry.register(
            "proxy_headers_refused",
            "Connections of trusted proxies closed for their PROXY header",
            connections.proxy_headers_refused.clone(),
        );
        Metrics { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts a request as in flight until the guard is dropped.
    pub fn begin_request(&self) -> Counted {
        Counted::by(&self.in_flight)
    }

    /// Counts a request's outcome.
    pub fn count_request(&self, outcome: &'static str, status: u16, elapsed: Duration) {
        self.requests.get_or_create(&Outcome { outcome, status }).inc();
        self.request_seconds.observe(elapsed.as_secs_f64());
    }

    /// Shows what waits in the embedded queue.
    pub fn set_embedded_backlog(&self, backlog: Backlog) {
        self.embedded_jobs.set(backlog.jobs);
        self.embedded_bytes.set(backlog.bytes);
        self.embedded_age_seconds.set(backlog.age.as_secs_f64());
        self.embedded_damaged_files.set(u64::from(backlog.damaged_files));
        self.embedded_lost_jobs.set(backlog.lost_jobs);
    }

    /// Counts an answered handshake.
    pub fn count_handshake(&self, kind: Handshake) {
        self.handshakes.get_or_create(&OfKind { kind }).inc();
    }

    /// Counts a validly signed webhook that the lists block. An id whose signature verifies is one of the settings'.
    pub fn count_signed_but_blocked(&self, integration: &str) {
        self.signed_but_blocked.get_or_create(&OfIntegration { integration: integration.to_owned() }).inc();
    }

    /// The text of all metrics in the OpenMetrics format, with the states that are read at this moment.
    pub fn encode(&self, in_flight_bytes: usize, queue_is_up: bool) -> String {
        self.in_flight_bytes.set(in_flight_bytes as u64);
        self.queue_up.set(i64::from(queue_is_up));
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Writing to a string doesn't fail.
            Err(std::fmt::Error) => String::new(),
        }
    }
}
