//! Reading the stream, for `tail` and the private plane.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use redis::streams::{StreamRangeReply, StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, Value};
use tokio::time::Instant;

use super::server::Connection;
use super::{JOB_FIELD, Redis, describe};
use crate::queue::{Entry, PAGE_LIMIT_BYTES, Page, ReadError, ReadRequest, START};

/// How many entries one `XREAD` fetches at the most. It begins with one and doubles while entries are small, so that a
/// page holds what it says and one entry more.
const READ_COUNT: usize = 64;

/// An entry up to this size is small.
const SMALL_ENTRY_BYTES: usize = PAGE_LIMIT_BYTES / READ_COUNT;

/// How long a page may take to arrive, besides the waiting for it.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How often shards are asked for a first job: one connection can't wait on several nodes.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

impl Redis {
    /// Reads on connections of its own: a blocking command would hold up the appends. A position holds the last entry of
    /// each shard, separated by commas.
    pub(in crate::queue) async fn read(&self, request: ReadRequest) -> Result<Page, ReadError> {
        let positions = match &request.after {
            Some(after) => Some(self.positions(after)?),
            None => None,
        };
        let deadline = Instant::now() + request.wait;
        let connecting = self
            .shards
            .iter()
            .map(|shard| self.server.connect(&shard.keys.stream, READ_TIMEOUT + request.wait));
        let mut connections = try_join_all(connecting).await.map_err(ReadError::Unavailable)?;
        let mut positions = match positions {
            Some(positions) => positions,
            None => self.ends(&mut connections).await?,
        };
        // A shard with many jobs must not keep those of the others from being read.
        let share = request.limit.div_ceil(self.shards.len());
        let share_bytes = PAGE_LIMIT_BYTES / self.shards.len();
        let mut wait = Some(request.wait).filter(|wait| !wait.is_zero() && self.shards.len() == 1);
        let mut entries = Vec::new();
        loop {
            for (number, connection) in connections.iter_mut().enumerate() {
                let limit = share.min(request.limit - entries.len());
                let page = Bounds { limit, limit_bytes: share_bytes, wait: wait.take() };
                let stream = &self.shards[number].keys.stream;
                for (id, document) in read_shard(connection, stream, &positions[number], page).await? {
                    positions[number] = id;
                    if let Some(document) = document {
                        entries.push(Entry { position: positions.join(","), document });
                    }
                }
            }
            if !entries.is_empty() || Instant::now() >= deadline {
                return Ok(Page { entries, last: positions.join(",") });
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + POLL_INTERVAL)).await;
        }
    }

    fn positions(&self, text: &str) -> Result<Vec<String>, ReadError> {
        if text == START {
            return Ok(vec![START.to_owned(); self.shards.len()]);
        }
        let positions: Vec<String> = text.split(',').map(str::to_owned).collect();
        if positions.len() == self.shards.len() && positions.iter().all(|position| is_entry_id(position)) {
            Ok(positions)
        } else {
            Err(ReadError::Position(text.to_owned()))
        }
    }

    /// The position behind what is there now.
    async fn ends(&self, connections: &mut [Connection]) -> Result<Vec<String>, ReadError> {
        let mut ends = Vec::new();
        for (shard, connection) in self.shards.iter().zip(connections) {
            let newest: StreamRangeReply = connection
                .xrevrange_count(&shard.keys.stream, "+", "-", 1)
                .await
                .map_err(|error| ReadError::Unavailable(describe(&error)))?;
            let newest = newest.ids.into_iter().next();
            ends.push(newest.map_or_else(|| START.to_owned(), |entry| entry.id));
        }
        Ok(ends)
    }
}

/// How much is read of one shard.
struct Bounds {
    limit: usize,
    limit_bytes: usize,
    /// How long to wait for a first entry.
    wait: Option<Duration>,
}

/// The entries behind a position. One without a document is no job; somebody else put it there.
async fn read_shard(
    connection: &mut Connection,
    stream: &str,
    after: &str,
    bounds: Bounds,
) -> Result<Vec<(String, Option<Bytes>)>, ReadError> {
    let mut options = StreamReadOptions::default();
    if let Some(wait) = bounds.wait {
        options = options.block(usize::try_from(wait.as_millis()).unwrap_or(usize::MAX));
    }
    let mut entries: Vec<(String, Option<Bytes>)> = Vec::new();
    let (mut jobs, mut bytes) = (0, 0);
    let mut batch = 1;
    while jobs < bounds.limit && bytes < bounds.limit_bytes {
        let count = batch.min(bounds.limit - jobs);
        let options = std::mem::take(&mut options).count(count);
        let last = entries.last().map_or(after, |(id, _)| id.as_str());
        let reply: Option<StreamReadReply> = connection
            .xread_options(&[stream], &[last], &options)
            .await
            .map_err(|error| ReadError::Unavailable(describe(&error)))?;
        let mut fetched = 0;
        let mut largest = 0;
        for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
            fetched += 1;
            let document = document_of(&entry);
            if let Some(document) = &document {
                jobs += 1;
                bytes += document.len();
                largest = largest.max(document.len());
            }
            entries.push((entry.id, document));
        }
        if fetched < count {
            break;
        }
        batch = if largest <= SMALL_ENTRY_BYTES { (batch * 2).min(READ_COUNT) } else { 1 };
    }
    Ok(entries)
}

fn document_of(entry: &redis::streams::StreamId) -> Option<Bytes> {
    let Some(Value::BulkString(document)) = entry.map.get(JOB_FIELD) else { return None };
    let is_json = serde_json::from_slice::<&serde_json::value::RawValue>(document).is_ok();
    is_json.then(|| Bytes::copy_from_slice(document))
}

/// `1526919030474-55`, or its first part alone.
fn is_entry_id(text: &str) -> bool {
    let is_number =
        |text: &str| text.parse::<u64>().is_ok() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('-') {
        Some((milliseconds, sequence)) => is_number(milliseconds) && is_number(sequence),
        None => is_number(text),
    }
}
