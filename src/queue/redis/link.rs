//! The connection to Redis, from nothing to a producer in step with the server.
//!
//! resting → connecting → [numbering an epoch] → [fencing → noting] → up; after any error: resting again.

use std::pin::Pin;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use redis::{Cmd, RedisError, Value};
use tokio::time::{Instant, Sleep};

use super::checks::{Facts, check_policy};
use super::script::{self, Fence, Verdict};
use super::server::{Connection, Server};
use super::{CONNECT_TIMEOUT, Keys, describe};
use crate::queue::journal::JournalError;
use crate::queue::producer::Marker;

/// The first attempt after a good connection is made at once; then the pauses grow from the first to the last of these.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// An idle connection is tried this often, so that readiness tells the truth without traffic.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Where the connection is.
pub enum Link {
    /// Waiting for the next attempt.
    Resting(Pin<Box<Sleep>>),
    /// On the way to a connection, the scripts and the marker.
    Connecting(BoxFuture<'static, Result<(Connection, Option<Marker>), String>>),
    /// A number for an epoch is being written to the disk.
    Numbering(Connection, BoxFuture<'static, Result<u64, JournalError>>),
    /// A fence is on its way.
    Fencing(BoxFuture<'static, Result<(Connection, Fence), RedisError>>),
    /// The new numbers are being written to the disk.
    Noting(Connection, BoxFuture<'static, Result<u64, JournalError>>),
    /// In step.
    Up(Up),
    /// Another process writes under this identity; nothing more is sent.
    Fenced,
}

/// A connection in step with the server.
pub struct Up {
    connection: Connection,
    replies: FuturesOrdered<BoxFuture<'static, Result<Value, RedisError>>>,
    probing: Option<BoxFuture<'static, Result<(), String>>>,
    probe_at: Instant,
}

/// What happened to the connection.
pub enum LinkEvent {
    /// The pause is over.
    Rested,
    /// The server answered, with its marker.
    Connected(Connection, Option<Marker>),
    /// An epoch has a number.
    Numbered(Connection, u64),
    /// The server answered a fence.
    Fenced(Connection, Fence),
    /// The numbers are on the disk.
    Noted(Connection),
    /// The server answered a batch.
    Answered(Verdict),
    /// The server takes writes.
    Probed,
    /// Anything but a success, in words.
    Broken(String),
}

impl LinkEvent {
    /// Whether it tells how far the server has come, so that numbers must not change meanwhile.
    pub fn compares(&self) -> bool {
        matches!(self, LinkEvent::Connected(..) | LinkEvent::Fenced(..))
    }
}

impl Link {
    /// A first attempt, at once.
    pub fn start(server: &Server, keys: &Keys, producer: &str) -> Link {
        let (server, keys, producer) = (server.clone(), keys.clone(), producer.to_owned());
        Link::Connecting(Box::pin(async move {
            let mut connection = server.connect(&keys.stream, CONNECT_TIMEOUT).await?;
            let facts = Facts::ask(&mut connection).await.map_err(|error| describe(&error))?;
            facts.require(server.settings().ack)?;
            let marker = greet(&mut connection, &keys, &producer).await.map_err(|error| describe(&error))?;
            server.announce(&facts);
            Ok((connection, marker))
        }))
    }

    /// Waits before the next attempt; `attempts` failed in a row.
    pub fn rest(attempts: u32) -> Link {
        let pause = match attempts {
            0 => Duration::ZERO,
            attempts => PAUSE.0.saturating_mul(1 << attempts.min(8)).min(PAUSE.1),
        };
        Link::Resting(Box::pin(tokio::time::sleep(pause)))
    }

    /// Sends a fence.
    pub fn fence(mut connection: Connection, fence: Cmd) -> Link {
        Link::Fencing(Box::pin(async move {
            let reply = connection.write(fence).await?;
            Ok((connection, script::fence_verdict(reply)?))
        }))
    }

    /// A connection in step.
    pub fn up(connection: Connection) -> Link {
        Link::Up(Up {
            connection,
            replies: FuturesOrdered::new(),
            probing: None,
            probe_at: Instant::now() + PROBE_INTERVAL,
        })
    }

    /// What happens next. Dropping the future loses nothing.
    pub async fn next(&mut self, keys: &Keys) -> LinkEvent {
        let broken = |error: &dyn std::fmt::Display| LinkEvent::Broken(error.to_string());
        match self {
            Link::Resting(pause) => {
                pause.await;
                LinkEvent::Rested
            }
            Link::Connecting(connecting) => match connecting.await {
                Ok((connection, marker)) => LinkEvent::Connected(connection, marker),
                Err(trouble) => LinkEvent::Broken(trouble),
            },
            Link::Numbering(connection, numbering) => match numbering.await {
                Ok(number) => LinkEvent::Numbered(connection.clone(), number),
                Err(error) => broken(&error),
            },
            Link::Fencing(fencing) => match fencing.await {
                Ok((connection, fence)) => LinkEvent::Fenced(connection, fence),
                Err(error) => LinkEvent::Broken(describe(&error)),
            },
            Link::Noting(connection, noting) => match noting.await {
                Ok(_) => LinkEvent::Noted(connection.clone()),
                Err(error) => broken(&error),
            },
            Link::Up(up) => up.next(keys).await,
            Link::Fenced => std::future::pending().await,
        }
    }
}

impl Up {
    /// Sends a batch.
    pub fn send(&mut self, batch: Cmd) {
        let mut connection = self.connection.clone();
        self.replies.push_back(Box::pin(async move { connection.write(batch).await }));
        self.probe_at = Instant::now() + PROBE_INTERVAL;
    }

    async fn next(&mut self, keys: &Keys) -> LinkEvent {
        loop {
            tokio::select! {
                Some(reply) = self.replies.next() => {
                    return match reply.and_then(script::verdict) {
                        Ok(verdict) => LinkEvent::Answered(verdict),
                        Err(error) => LinkEvent::Broken(describe(&error)),
                    };
                }
                probed = finish(&mut self.probing) => {
                    self.probing = None;
                    self.probe_at = Instant::now() + PROBE_INTERVAL;
                    return match probed {
                        Ok(()) => LinkEvent::Probed,
                        Err(trouble) => LinkEvent::Broken(trouble),
                    };
                }
                () = tokio::time::sleep_until(self.probe_at), if self.probing.is_none() => {
                    let (mut connection, keys) = (self.connection.clone(), keys.clone());
                    self.probing = Some(Box::pin(async move {
                        let kind = script::probe(&keys).query_async(&mut connection).await;
                        let probed = kind.and_then(|kind| require_stream(&keys, kind));
                        probed.map_err(|error| describe(&error))?;
                        check_policy(&mut connection).await
                    }));
                }
            }
        }
    }
}

/// Learns whether this user may do here what is needed, and how far the producer had come.
async fn greet(
    connection: &mut Connection,
    keys: &Keys,
    producer: &str,
) -> Result<Option<Marker>, RedisError> {
    for load in script::load() {
        load.query_async::<()>(connection).await?;
    }
    let marker = script::marker(script::read_marker(keys, producer).query_async(connection).await?)?;
    // Written after the marker was read, so that the confirmation holds for what the marker speaks of.
    require_stream(keys, connection.write(script::probe(keys)).await?)?;
    Ok(marker)
}

/// Waits for what is going on, if anything is.
pub async fn finish<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Whatever else lies under the stream's name is in the way.
fn require_stream(keys: &Keys, kind: Value) -> Result<(), RedisError> {
    let kind: String = redis::from_redis_value(kind)?;
    if matches!(kind.as_str(), "stream" | "none") {
        return Ok(());
    }
    let what = format!("the key {} holds a {kind}, not a stream", keys.stream);
    Err((redis::ErrorKind::UnexpectedReturnType, "wrong type", what).into())
}
