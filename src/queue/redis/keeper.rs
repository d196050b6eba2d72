//! Keeps the stream small, and tells how its readers are doing.
//!
//! On a connection of its own, now and then. What goes wrong here is told in the log and holds up no job.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::RedisError;
use redis::streams::{
    StreamInfoConsumersReply, StreamInfoGroup, StreamInfoGroupsReply, StreamInfoStreamReply,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::server::{Connection, Server};
use super::{CONNECT_TIMEOUT, Keys, describe, script};
use crate::telemetry::queue::{GroupLabels, QueueMetrics, StreamLabels};

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(5);

/// How many entries are removed at once: a script holds up everybody else.
const REMOVED_AT_ONCE: u64 = 10_000;

/// How many groups are told apart in the metrics.
const GROUPS_LIMIT: usize = 32;

/// What is removed from a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trim {
    /// Entries that every consumer group has acknowledged.
    pub acknowledged: bool,
    /// Entries of this age, whether they were read or not.
    pub age_limit: Option<Duration>,
}

/// The worker that keeps one stream.
#[derive(Debug)]
pub struct Keeper {
    pub(super) server: Server,
    pub(super) keys: Keys,
    pub(super) metrics: QueueMetrics,
    pub(super) stop: CancellationToken,
}

/// What was said already, so that it is said when it changes.
#[derive(Default)]
struct Said {
    trouble: Option<String>,
    dead: BTreeSet<String>,
    groups: BTreeSet<String>,
    /// Since when each group is known.
    known: BTreeMap<String, Instant>,
    /// By group that entries wait for: where it was when it was last looked at.
    waited: BTreeMap<String, (String, usize)>,
}

impl Keeper {
    /// Works until the queue is closed.
    pub async fn run(self) {
        let mut said = Said::default();
        let mut connection = None;
        let stop = self.stop.clone();
        let keeping = async {
            loop {
                let trouble = self.keep(&mut connection, &mut said).await.err();
                if trouble.is_some() {
                    connection = None;
                }
                if trouble != said.trouble {
                    let stream = &self.keys.stream;
                    match &trouble {
                        Some(why) => {
                            warn!(%stream, %why, "the stream isn't trimmed, and its readers aren't counted")
                        }
                        None => info!(%stream, "the stream is trimmed, and its readers are counted"),
                    }
                    said.trouble = trouble;
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        let _ = stop.run_until_cancelled(keeping).await;
    }

    async fn keep(&self, connection: &mut Option<Connection>, said: &mut Said) -> Result<(), String> {
        let connection = match connection {
            Some(connection) => connection,
            None => {
                let mut fresh = self.server.connect(&self.keys.stream, CONNECT_TIMEOUT).await?;
                let loaded = script::load_trim().query_async::<()>(&mut fresh).await;
                loaded.map_err(|error| describe(&error))?;
                connection.insert(fresh)
            }
        };
        self.look(connection, said).await.map_err(|error| describe(&error))
    }

    async fn look(&self, connection: &mut Connection, said: &mut Said) -> Result<(), RedisError> {
        let stream = &self.keys.stream;
        let labels = StreamLabels { stream: stream.clone() };
        let trim = self.server.settings().trim;
        loop {
            let trimming = script::trim(&self.keys, trim, REMOVED_AT_ONCE);
            let removed: i64 = trimming.query_async(connection).await?;
            match u64::try_from(removed) {
                Ok(0) => break,
                Ok(removed) => self.metrics.stream_removed.get_or_create(&labels).inc_by(removed),
                Err(_) => {
                    self.metrics.stream_entries.get_or_create(&labels).set(0);
                    self.forget_groups(said, BTreeSet::new());
                    return Ok(());
                }
            };
        }
        let length: u64 = redis::cmd("XLEN").arg(stream).query_async(connection).await?;
        self.metrics.stream_entries.get_or_create(&labels).set(length);
        let groups: StreamInfoGroupsReply =
            redis::cmd("XINFO").arg("GROUPS").arg(stream).query_async(connection).await?;
        let mut seen = BTreeSet::new();
        for group in groups.groups.into_iter().take(GROUPS_LIMIT) {
            self.measure(connection, &group, said).await?;
            seen.insert(group.name);
        }
        self.forget_groups(said, seen);
        Ok(())
    }

    async fn measure(
        &self,
        connection: &mut Connection,
        group: &StreamInfoGroup,
        said: &mut Said,
    ) -> Result<(), RedisError> {
        let stream = &self.keys.stream;
        let dead_after = self.server.settings().dead_after;
        let command = redis::cmd("XINFO").arg("CONSUMERS").arg(stream).arg(&group.name).to_owned();
        let consumers: StreamInfoConsumersReply = command.query_async(connection).await?;
        let is_active = |idle: usize| (idle as u128) < dead_after.as_millis();
        // Redis doesn't say how old a group without consumers is.
        let known_for = said.known.entry(group.name.clone()).or_insert_with(Instant::now).elapsed();
        let is_new = consumers.consumers.is_empty() && known_for < dead_after;
        let is_silent = !is_new && !consumers.consumers.iter().any(|consumer| is_active(consumer.idle));
        // Up to 7.0 a consumer that asks and gets nothing counts as idle. So a group is dead only if something waits for it
        // and did so at the last look, which is far longer than a consumer needs that is there.
        let is_dead = if is_silent && self.is_waited_for(connection, group).await? {
            let now = (group.last_delivered_id.clone(), group.pending);
            said.waited.insert(group.name.clone(), now.clone()) == Some(now)
        } else {
            said.waited.remove(&group.name);
            false
        };
        let labels = self.group_labels(&group.name);
        self.metrics.group_pending.get_or_create(&labels).set(group.pending as u64);
        self.metrics.group_dead.get_or_create(&labels).set(u64::from(is_dead));
        // Redis 6.2 doesn't say, and later ones don't know it after an entry was deleted by hand.
        match group.lag {
            Some(lag) => drop(self.metrics.group_lag.get_or_create(&labels).set(lag as u64)),
            None => drop(self.metrics.group_lag.remove(&labels)),
        }
        if !is_dead {
            said.dead.remove(&group.name);
        } else if said.dead.insert(group.name.clone()) {
            let pending = group.pending;
            warn!(
                %stream, group = %group.name, pending, lag = group.lag,
                "jobs wait for the group, and none of its consumers has asked for {dead_after:?}; nothing behind them is \
                 trimmed until it is read again or destroyed"
            );
        }
        Ok(())
    }

    /// Whether there are entries that the group hasn't taken or hasn't acknowledged.
    async fn is_waited_for(
        &self,
        connection: &mut Connection,
        group: &StreamInfoGroup,
    ) -> Result<bool, RedisError> {
        if group.pending > 0 {
            return Ok(true);
        }
        if let Some(lag) = group.lag {
            return Ok(lag > 0);
        }
        let command = redis::cmd("XINFO").arg("STREAM").arg(&self.keys.stream).to_owned();
        let facts: StreamInfoStreamReply = command.query_async(connection).await?;
        let last = facts.last_entry.id;
        Ok(facts.length > 0 && position(&last) > position(&group.last_delivered_id))
    }

    fn group_labels(&self, group: &str) -> GroupLabels {
        GroupLabels { stream: self.keys.stream.clone(), group: group.to_owned() }
    }

    /// A group that was destroyed must not go on being measured.
    fn forget_groups(&self, said: &mut Said, seen: BTreeSet<String>) {
        for gone in said.groups.difference(&seen) {
            let labels = self.group_labels(gone);
            self.metrics.group_pending.remove(&labels);
            self.metrics.group_dead.remove(&labels);
            self.metrics.group_lag.remove(&labels);
        }
        said.dead.retain(|group| seen.contains(group));
        said.known.retain(|group, _| seen.contains(group));
        said.waited.retain(|group, _| seen.contains(group));
        said.groups = seen;
    }
}

/// The numbers of an entry's id.
fn position(id: &str) -> Option<(u64, u64)> {
    let (ms, seq) = id.split_once('-')?;
    Some((ms.parse().ok()?, seq.parse().ok()?))
}
