//! Reading the stream, for `tail` and the private plane.

use std::time::Duration;

use bytes::Bytes;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, RedisError, Value};

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

impl Redis {
    /// Reads on a connection of its own: a blocking command would hold up the appends.
    pub(in crate::queue) async fn read(&self, request: ReadRequest) -> Result<Page, ReadError> {
        let unavailable = |error: RedisError| ReadError::Unavailable(describe(&error));
        let mut connection = self
            .server
            .connect(&self.keys.stream, READ_TIMEOUT + request.wait)
            .await
            .map_err(ReadError::Unavailable)?;
        let mut page = Page { entries: Vec::new(), last: self.start_of(&request, &mut connection).await? };
        let mut options = StreamReadOptions::default();
        if !request.wait.is_zero() {
            options = options.block(usize::try_from(request.wait.as_millis()).unwrap_or(usize::MAX));
        }
        let mut bytes = 0;
        let mut batch = 1;
        while page.entries.len() < request.limit && bytes < PAGE_LIMIT_BYTES {
            let count = batch.min(request.limit - page.entries.len());
            let options = std::mem::take(&mut options).count(count);
            let stream = [self.keys.stream.as_str()];
            let reply: Option<StreamReadReply> = connection
                .xread_options(&stream, &[page.last.as_str()], &options)
                .await
                .map_err(unavailable)?;
            let mut fetched = 0;
            let mut largest = 0;
            for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
                fetched += 1;
                page.last.clone_from(&entry.id);
                // An entry that is no job was put there by somebody else.
                let Some(document) = document_of(&entry) else { continue };
                bytes += document.len();
                largest = largest.max(document.len());
                page.entries.push(Entry { position: entry.id, document });
            }
            if fetched < count {
                break;
            }
            batch = if largest <= SMALL_ENTRY_BYTES { (batch * 2).min(READ_COUNT) } else { 1 };
        }
        Ok(page)
    }

    async fn start_of(
        &self,
        request: &ReadRequest,
        connection: &mut Connection,
    ) -> Result<String, ReadError> {
        match &request.after {
            Some(after) if is_entry_id(after) => Ok(after.clone()),
            Some(after) => Err(ReadError::Position(after.clone())),
            None => {
                let newest: redis::streams::StreamRangeReply = connection
                    .xrevrange_count(&self.keys.stream, "+", "-", 1)
                    .await
                    .map_err(|error| ReadError::Unavailable(describe(&error)))?;
                Ok(newest.ids.into_iter().next().map_or_else(|| START.to_owned(), |entry| entry.id))
            }
        }
    }
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
