//! The connection to Redis, from nothing to a producer in step with the server.
//!
//! resting → connecting → [numbering an epoch] → [fencing → noting] → up; after any error: resting again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use redis::{Cmd, RedisError, Value};
use tokio::time::{Instant, Sleep};

use super::checks::{Facts, ask_policy, check_policy};
use super::script::{self, Answer, Fence, Verdict};
use super::server::{Server, confirmation, require_confirmed};
use super::socket::Socket;
use super::{Ack, Keys, describe};
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
    Connecting(BoxFuture<'static, Result<(Socket, Option<Marker>), String>>),
    /// A number for an epoch is being written to the disk.
    Numbering(BoxFuture<'static, Result<(Socket, u64), JournalError>>),
    /// A fence is on its way.
    Fencing(BoxFuture<'static, Result<(Socket, Fence), RedisError>>),
    /// The new numbers are being written to the disk.
    Noting(BoxFuture<'static, Result<Socket, JournalError>>),
    /// In step.
    Up(Up),
    /// Another process writes under this identity; nothing more is sent.
    Fenced,
}

/// A connection in step with the server.
pub struct Up {
    socket: Socket,
    /// What was sent and isn't answered yet, and when.
    expected: VecDeque<(Expected, Instant)>,
    /// Of a batch that is still to be confirmed.
    verdict: Option<Verdict>,
    probe_at: Instant,
}

/// What the server's next answers are about.
enum Expected {
    Batch(Answer),
    /// Of what came before.
    Confirmation,
    /// Does what the scripts do.
    Probe,
    /// Writes without a script.
    Touch,
    Policy,
}

/// What happened to the connection.
pub enum LinkEvent {
    /// The pause is over.
    Rested,
    /// The server answered, with its marker.
    Connected(Socket, Option<Marker>),
    /// An epoch has a number.
    Numbered(Socket, u64),
    /// The server answered a fence.
    Fenced(Socket, Fence),
    /// The numbers are on the disk.
    Noted(Socket),
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
            let mut connection: Socket =
                server.connect(&keys.stream, server.settings().ack.response_timeout()).await?;
            let facts = Facts::ask(&mut connection).await.map_err(|error| describe(&error))?;
            facts.require(server.settings().ack)?;
            let marker = greet(&mut connection, &keys, &producer, server.settings().may_split())
                .await
                .map_err(|error| describe(&error))?;
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
    pub fn fence(mut connection: Socket, fence: Cmd) -> Link {
        Link::Fencing(Box::pin(async move {
            let reply = connection.write(fence).await?;
            Ok((connection, script::fence_verdict(reply)?))
        }))
    }

    /// A connection in step.
    pub fn up(socket: Socket) -> Link {
        let probe_at = Instant::now() + PROBE_INTERVAL;
        Link::Up(Up { socket, expected: VecDeque::new(), verdict: None, probe_at })
    }

    /// What happens next. Dropping the future loses nothing.
    pub async fn next(&mut self, keys: &Keys, producer: &str) -> LinkEvent {
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
            Link::Numbering(numbering) => match numbering.await {
                Ok((connection, number)) => LinkEvent::Numbered(connection, number),
                Err(error) => broken(&error),
            },
            Link::Fencing(fencing) => match fencing.await {
                Ok((connection, fence)) => LinkEvent::Fenced(connection, fence),
                Err(error) => LinkEvent::Broken(describe(&error)),
            },
            Link::Noting(noting) => match noting.await {
                Ok(connection) => LinkEvent::Noted(connection),
                Err(error) => broken(&error),
            },
            Link::Up(up) => up.next(keys, producer).await,
            Link::Fenced => std::future::pending().await,
        }
    }
}

impl Up {
    /// Sends a batch, which is put behind what goes out next.
    pub fn send(&mut self, put: impl FnOnce(&mut BytesMut) -> Answer) {
        let now = Instant::now();
        let answer = put(self.socket.unsent());
        self.expected.push_back((Expected::Batch(answer), now));
        if let Some(confirmation) = confirmation(self.socket.ack()) {
            self.put(&confirmation, Expected::Confirmation);
        }
        self.probe_at = now + PROBE_INTERVAL;
    }

    fn put(&mut self, command: &Cmd, expected: Expected) {
        self.socket.unsent().extend_from_slice(&command.get_packed_command());
        self.expected.push_back((expected, Instant::now()));
    }

    async fn next(&mut self, keys: &Keys, producer: &str) -> LinkEvent {
        loop {
            let answer_until =
                self.expected.front().map(|(_, since)| *since + self.socket.response_timeout());
            let event = tokio::select! {
                reply = self.socket.next_reply() => match reply {
                    Ok(reply) => self.take(reply, keys),
                    Err(error) => Some(LinkEvent::Broken(describe(&error))),
                },
                () = tokio::time::sleep_until(answer_until.unwrap_or(self.probe_at)) => match answer_until {
                    Some(_) => Some(LinkEvent::Broken("timed out".to_owned())),
                    None => {
                        self.put(&script::probe(keys, producer), Expected::Probe);
                        self.put(&script::touch(keys), Expected::Touch);
                        self.put(&ask_policy(), Expected::Policy);
                        None
                    }
                },
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    /// What an answer means, if it is the last one that something waits for.
    fn take(&mut self, reply: Value, keys: &Keys) -> Option<LinkEvent> {
        let broken = |error: &RedisError| LinkEvent::Broken(describe(error));
        let Some((expected, _)) = self.expected.front_mut() else {
            return Some(match reply.extract_error() {
                Ok(_) => LinkEvent::Broken("an answer that nobody asked for".to_owned()),
                Err(error) => broken(&error),
            });
        };
        let event = match expected {
            Expected::Batch(answer) => match answer.take(reply)? {
                Err(error) => Some(broken(&error)),
                Ok(verdict) if self.socket.ack() == Ack::Redis => Some(LinkEvent::Answered(verdict)),
                Ok(verdict) => {
                    self.verdict = Some(verdict);
                    None
                }
            },
            Expected::Confirmation => match require_confirmed(self.socket.ack(), reply) {
                Err(error) => Some(broken(&error)),
                Ok(()) => self.verdict.take().map(LinkEvent::Answered),
            },
            Expected::Probe => match reply.extract_error().and_then(|kind| require_stream(keys, kind)) {
                Err(error) => Some(broken(&error)),
                Ok(Stream::Emptied) => Some(LinkEvent::Answered(Verdict::Emptied)),
                Ok(Stream::Sound) => None,
            },
            Expected::Touch => reply.extract_error().err().map(|error| broken(&error)),
            Expected::Policy => {
                self.probe_at = Instant::now() + PROBE_INTERVAL;
                Some(match check_policy(reply) {
                    Ok(()) => LinkEvent::Probed,
                    Err(trouble) => LinkEvent::Broken(trouble),
                })
            }
        };
        self.expected.pop_front();
        event
    }
}

/// Learns whether this user may do here what is needed, and how far the producer had come.
async fn greet(
    connection: &mut Socket,
    keys: &Keys,
    producer: &str,
    may_split: bool,
) -> Result<Option<Marker>, RedisError> {
    for load in script::load() {
        load.query_async::<()>(connection).await?;
    }
    let marker = script::marker(script::read_marker(keys, producer).query_async(connection).await?)?;
    // Written after the marker was read, so that the confirmation holds for what the marker speaks of.
    let stream = require_stream(keys, connection.write(script::probe(keys, producer)).await?)?;
    script::touch(keys).query_async::<()>(connection).await?;
    if may_split {
        for command in script::try_transaction(keys) {
            command.query_async::<Value>(connection).await?;
        }
        match script::close(keys).query_async::<Value>(connection).await {
            Err(error) if !error.to_string().contains("no such key") => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    // A marker that speaks of what isn't there says nothing: an epoch must begin.
    Ok(marker.filter(|_| stream == Stream::Sound))
}

/// Waits for what is going on, if anything is.
pub async fn finish<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// What the probe says of the stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Sound,
    /// It lost what the marker speaks of.
    Emptied,
}

/// Whatever else lies under the stream's name is in the way.
fn require_stream(keys: &Keys, kind: Value) -> Result<Stream, RedisError> {
    let kind: String = redis::from_redis_value(kind)?;
    match kind.as_str() {
        "stream" | "none" => return Ok(Stream::Sound),
        "emptied" => return Ok(Stream::Emptied),
        _ => {}
    }
    let what = format!("the key {} holds a {kind}, not a stream", keys.stream);
    Err((redis::ErrorKind::UnexpectedReturnType, "wrong type", what).into())
}
