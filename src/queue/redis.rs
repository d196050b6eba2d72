//! The Redis queue: one connection, one batch in flight, what is waiting goes out as one pipeline of `XADD`s.
//!
//! A receipt means that Redis answered the `XADD` with an entry id; Redis's own settings decide what that survives.
//! While Redis is away or refuses writes, jobs are refused at once. After a time-out or a broken connection the
//! outcome of the batch in flight is unknown, and its jobs are answered 503.

use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, AsyncConnectionConfig, Client, Pipeline, RedisError, Value};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tracing::{info, warn};

use super::lane::{Append, Lane, Waiting, lane, refuse};
use super::{Entry, Health, PAGE_LIMIT_BYTES, Page, QueueError, ReadError, ReadRequest, time_for};

/// How long a new connection may take, and any command that isn't an append.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// An idle connection is tried this often, so that readiness tells the truth without traffic.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The pauses between attempts to connect grow from the first to the last of these.
const RECONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How many entries one `XREAD` fetches at the most. It begins with one and doubles while entries are small, so that a
/// page holds what it says and one entry more.
const READ_COUNT: usize = 64;

/// An entry up to this size is small.
const SMALL_ENTRY_BYTES: usize = PAGE_LIMIT_BYTES / READ_COUNT;

/// How long a page may take to arrive, besides the waiting for it.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The field of a stream entry that holds the job.
pub const JOB_FIELD: &str = "job";

/// The keys of an app. The hash tag keeps all of them in one slot of a cluster.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The stream of jobs.
    pub stream: String,
    /// Written to learn whether Redis takes writes.
    pub probe: String,
}

impl Keys {
    /// The keys of the app of that name.
    pub fn of(app: &str) -> Keys {
        Keys { stream: format!("retrieve:{{{app}}}:jobs"), probe: format!("retrieve:{{{app}}}:probe") }
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

/// The writer: owns the connection.
#[derive(Debug)]
pub struct RedisWriter {
    waiting: Waiting,
    client: Client,
    keys: Keys,
    batch_timeout: Duration,
    health: watch::Sender<Health>,
}

/// Why the writer left a connection.
enum Left {
    /// The lane is closed and empty.
    Closed,
    /// The connection is broken.
    Broken,
}

impl Redis {
    /// A queue at that URL. Connects later, in the writer: a Redis that is away doesn't stop the start.
    ///
    /// # Errors
    /// The URL isn't one of Redis.
    pub fn new(
        url: &SecretString,
        app: &str,
        batch_timeout: Duration,
    ) -> Result<(Redis, RedisWriter), RedisError> {
        let client = Client::open(url.expose_secret())?;
        let keys = Keys::of(app);
        let (lane, waiting) = lane();
        let (health_sender, health) = watch::channel(Health::Down("not connected yet".to_owned()));
        let writer = RedisWriter {
            waiting,
            client: client.clone(),
            keys: keys.clone(),
            batch_timeout,
            health: health_sender,
        };
        Ok((Redis { lane, client, keys, health }, writer))
    }

    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Reads on a connection of its own: a blocking command would hold up the appends.
    pub(super) async fn read(&self, request: ReadRequest) -> Result<Page, ReadError> {
        let unavailable = |error: RedisError| ReadError::Unavailable(describe(&error));
        let mut connection = connect(&self.client, READ_TIMEOUT + request.wait).await.map_err(unavailable)?;
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
        connection: &mut MultiplexedConnection,
    ) -> Result<String, ReadError> {
        match &request.after {
            Some(after) if is_entry_id(after) => Ok(after.clone()),
            Some(after) => Err(ReadError::Position(after.clone())),
            None => {
                let newest: redis::streams::StreamRangeReply = connection
                    .xrevrange_count(&self.keys.stream, "+", "-", 1)
                    .await
                    .map_err(|error| ReadError::Unavailable(describe(&error)))?;
                Ok(newest.ids.into_iter().next().map_or_else(|| super::START.to_owned(), |entry| entry.id))
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

async fn connect(client: &Client, response_timeout: Duration) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(response_timeout));
    client.get_multiplexed_async_connection_with_config(&config).await
}

impl RedisWriter {
    /// Appends batches until the lane is closed and empty.
    pub async fn run(mut self) {
        let mut pause = RECONNECT_PAUSE.0;
        loop {
            let client = self.client.clone();
            let connecting = connect(&client, CONNECT_TIMEOUT);
            match self.refuse_until(connecting).await {
                None => return,
                Some(Ok(connection)) => {
                    pause = RECONNECT_PAUSE.0;
                    if let Left::Closed = self.serve(connection).await {
                        return;
                    }
                }
                Some(Err(error)) => self.report(Health::Down(describe(&error))),
            }
            if self.refuse_until(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            pause = (pause * 2).min(RECONNECT_PAUSE.1);
        }
    }

    /// Waits for something while it refuses all jobs. None if the lane closed first.
    async fn refuse_until<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(what);
        let refusal = QueueError::Unavailable("Redis can't be reached".to_owned());
        loop {
            tokio::select! {
                done = &mut what => return Some(done),
                batch = self.waiting.batch() => refuse(batch?, &refusal),
            }
        }
    }

    /// Uses one connection until it breaks.
    async fn serve(&mut self, mut connection: MultiplexedConnection) -> Left {
        if self.probe(&mut connection).await.is_err() {
            return Left::Broken;
        }
        let mut pipeline = Pipeline::new();
        loop {
            let done = match tokio::time::timeout(PROBE_INTERVAL, self.waiting.batch()).await {
                Ok(Some(batch)) => self.append(&mut connection, &mut pipeline, batch).await,
                Ok(None) => return Left::Closed,
                Err(_) => self.probe(&mut connection).await,
            };
            if done.is_err() {
                return Left::Broken;
            }
        }
    }

    /// Sends a batch and settles each of its jobs by its own reply.
    async fn append(
        &self,
        connection: &mut MultiplexedConnection,
        pipeline: &mut Pipeline,
        batch: Vec<Append>,
    ) -> Result<(), ()> {
        pipeline.clear();
        pipeline.ignore_errors();
        for append in &batch {
            pipeline
                .cmd("XADD")
                .arg(&self.keys.stream)
                .arg("*")
                .arg(JOB_FIELD)
                .arg(append.document().as_ref());
        }
        let replies = pipeline.query_async::<Vec<Result<Value, RedisError>>>(connection);
        let bytes = batch.iter().map(|append| append.document().len()).sum();
        match tokio::time::timeout(time_for(self.batch_timeout, bytes), replies).await {
            Ok(Ok(replies)) if replies.len() == batch.len() => {
                self.settle(batch, replies);
                Ok(())
            }
            Ok(Ok(_)) => self.broken(batch, "Redis answered with too few replies"),
            Ok(Err(error)) => self.broken(batch, &describe(&error)),
            Err(_) => self.broken(batch, "Redis didn't answer in time"),
        }
    }

    fn settle(&self, batch: Vec<Append>, replies: Vec<Result<Value, RedisError>>) {
        let mut health = Health::Up;
        for (append, reply) in batch.into_iter().zip(replies) {
            match reply {
                Ok(_) => append.settle(Ok(())),
                Err(error) => {
                    // An error reply to XADD means that it wasn't executed.
                    health = Health::Down(format!("Redis refuses writes: {}", describe(&error)));
                    append.settle(Err(QueueError::Unavailable(describe(&error))));
                }
            }
        }
        self.report(health);
    }

    fn broken(&self, batch: Vec<Append>, why: &str) -> Result<(), ()> {
        self.report(Health::Down(why.to_owned()));
        refuse(batch, &QueueError::Unconfirmed);
        Err(())
    }

    /// Learns whether Redis takes writes, without adding to the stream: a write of another key of the app meets a
    /// full memory, a read-only replica, a failed snapshot or missing rights as an append would.
    async fn probe(&self, connection: &mut MultiplexedConnection) -> Result<(), ()> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        pipeline.cmd("SET").arg(&self.keys.probe).arg("1").arg("EX").arg(60);
        pipeline.cmd("TYPE").arg(&self.keys.stream);
        let replies = pipeline.query_async::<Vec<Result<Value, RedisError>>>(connection);
        let replies = match tokio::time::timeout(CONNECT_TIMEOUT, replies).await {
            Ok(Ok(replies)) => replies,
            Ok(Err(error)) => return self.broken(Vec::new(), &describe(&error)),
            Err(_) => return self.broken(Vec::new(), "Redis didn't answer in time"),
        };
        let mut health = Health::Up;
        for reply in replies {
            match reply {
                Err(error) => health = Health::Down(format!("Redis refuses writes: {}", describe(&error))),
                Ok(Value::SimpleString(kind)) if kind != "stream" && kind != "none" => {
                    health =
                        Health::Down(format!("the key {} holds a {kind}, not a stream", self.keys.stream));
                }
                Ok(_) => {}
            }
        }
        self.report(health);
        Ok(())
    }

    /// Tells readiness, and the log when something changes.
    fn report(&self, health: Health) {
        self.health.send_if_modified(|current| {
            let changed = *current != health;
            if changed {
                match &health {
                    Health::Up => info!(stream = %self.keys.stream, "Redis takes jobs"),
                    Health::Down(why) => warn!(%why, "Redis takes no jobs; webhooks are answered 503"),
                }
                *current = health;
            }
            changed
        });
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
