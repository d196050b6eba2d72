//! The scripts that run on the server, how they are called, and what their answers mean.

use std::sync::LazyLock;

use redis::{Cmd, ErrorKind, RedisError, Value};
use sha1::{Digest, Sha1};
use uuid::Uuid;

use super::{Keys, Trim};
use crate::queue::Entry;
use crate::queue::journal::Document;
use crate::queue::producer::{Epoch, Marker, Position};

/// A script and the name that the server knows it by.
struct Script {
    code: &'static str,
    sha1: LazyLock<String>,
}

macro_rules! script {
    ($file:literal) => {
        Script {
            code: include_str!($file),
            sha1: LazyLock::new(|| hex::encode(Sha1::digest(include_str!($file)))),
        }
    };
}

static APPEND: Script = script!("append.lua");
static FENCE: Script = script!("fence.lua");
static PROBE: Script = script!("probe.lua");
static MOVE: Script = script!("move.lua");
static TRIM: Script = script!("trim.lua");

impl Script {
    fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(self.code);
        command
    }

    fn call(&self, keys: usize) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.sha1.as_str()).arg(keys);
        command
    }
}

/// Loads the scripts: a server that restarted or was flushed doesn't know them.
pub fn load() -> impl Iterator<Item = Cmd> {
    [&APPEND, &FENCE, &PROBE, &MOVE].into_iter().map(Script::load)
}

/// Loads the script of [`trim`].
pub fn load_trim() -> Cmd {
    TRIM.load()
}

/// Removes entries that nobody needs any more, so many at once. The answer: how many; -1 if there is no stream.
pub fn trim(keys: &Keys, trim: Trim, limit: u64) -> Cmd {
    let age = trim.age_limit.map_or(0, |age| age.as_millis());
    let mut command = TRIM.call(1);
    command.arg(&keys.stream).arg(u8::from(trim.acknowledged));
    command.arg(u64::try_from(age).unwrap_or(u64::MAX)).arg(limit);
    command
}

/// What the server did with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is on the stream, now or already. Jobs that were repeats of earlier ones: their place in the batch, and the
    /// first job's id.
    Appended(Vec<(usize, Uuid)>),
    /// The stream holds as many entries as it may.
    Full,
    /// The marker isn't where it should be: it must be read again.
    OutOfStep,
    /// Another process writes under this identity.
    Fenced,
}

/// Appends a batch.
pub fn append(keys: &Keys, producer: &str, epoch: Epoch, seq: u64, limit: u64, batch: &[Document]) -> Cmd {
    let dedupes: Vec<_> = batch
        .iter()
        .enumerate()
        .filter_map(|(place, document)| Some((place, document.dedupe.as_ref()?)))
        .collect();
    let mut command = APPEND.call(2 + dedupes.len());
    command.arg(&keys.stream).arg(&keys.producers);
    for (_, (_, dedupe)) in &dedupes {
        command.arg(keys.seen(&dedupe.key));
    }
    command.arg(producer).arg(epoch.number).arg(nonce_of(epoch)).arg(seq).arg(now_seconds()).arg(limit);
    command.arg(dedupes.len());
    for (place, (job, dedupe)) in &dedupes {
        let within = u64::try_from(dedupe.within.as_millis()).unwrap_or(u64::MAX).max(1);
        command.arg(place).arg(job.to_string()).arg(within);
    }
    for document in batch {
        command.arg(document.bytes.as_ref());
    }
    command
}

/// Reads the answer to [`append`].
///
/// # Errors
/// It is none of the script's answers.
pub fn verdict(reply: Value) -> Result<Verdict, RedisError> {
    let Value::Array(parts) = reply else { return Err(unexpected()) };
    let mut parts = parts.into_iter().map(redis::from_redis_value::<String>);
    let word = parts.next().ok_or_else(unexpected)??;
    match word.as_str() {
        "appended" => {
            let mut repeats = Vec::new();
            while let Some(place) = parts.next() {
                let place = place?.parse().map_err(|_| unexpected())?;
                // The first job's mark may expire between the two commands that look at it: never within a script.
                let job = parts.next().ok_or_else(unexpected)??;
                repeats.push((place, job.parse().map_err(|_| unexpected())?));
            }
            Ok(Verdict::Appended(repeats))
        }
        "duplicate" => Ok(Verdict::Appended(Vec::new())),
        "full" => Ok(Verdict::Full),
        "fenced" => Ok(Verdict::Fenced),
        "gap" | "unknown" => Ok(Verdict::OutOfStep),
        _ => Err(unexpected()),
    }
}

/// What the server said to a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// The epoch has begun.
    Begun {
        /// The last batch before it.
        prior: Position,
        /// Whether there is nothing on the stream.
        is_stream_empty: bool,
    },
    /// A later epoch has begun, or this one with another nonce.
    Fenced,
}

/// Begins an epoch.
pub fn fence(keys: &Keys, producer: &str, epoch: Epoch) -> Cmd {
    let mut command = FENCE.call(2);
    command.arg(&keys.stream).arg(&keys.producers);
    command.arg(producer).arg(epoch.number).arg(nonce_of(epoch)).arg(now_seconds());
    command
}

/// Reads the answer to [`fence`].
///
/// # Errors
/// It is none of the script's answers.
pub fn fence_verdict(reply: Value) -> Result<Fence, RedisError> {
    let Value::Array(parts) = reply else { return Err(unexpected()) };
    let mut parts = parts.into_iter();
    let word: String = redis::from_redis_value(parts.next().ok_or_else(unexpected)?)?;
    match word.as_str() {
        "begun" => {
            let prior: String = redis::from_redis_value(parts.next().ok_or_else(unexpected)?)?;
            let is_stream_empty: bool = redis::from_redis_value(parts.next().ok_or_else(unexpected)?)?;
            let (epoch, seq) = prior.split_once(' ').ok_or_else(unexpected)?;
            let prior = Position { epoch: number(epoch)?, seq: number(seq)? };
            Ok(Fence::Begun { prior, is_stream_empty })
        }
        "fenced" => Ok(Fence::Fenced),
        _ => Err(unexpected()),
    }
}

/// Reads the marker.
pub fn read_marker(keys: &Keys, producer: &str) -> Cmd {
    let mut command = redis::cmd("HGET");
    command.arg(&keys.producers).arg(producer);
    command
}

/// Understands a marker. None if the server has none.
///
/// # Errors
/// It isn't one.
pub fn marker(reply: Value) -> Result<Option<Marker>, RedisError> {
    let text: Option<String> = redis::from_redis_value(reply)?;
    let Some(text) = text else { return Ok(None) };
    let words: Vec<&str> = text.split(' ').collect();
    let [epoch, seq, nonce, prior_epoch, prior_seq, ..] = words[..] else { return Err(unexpected()) };
    Ok(Some(Marker {
        position: Position { epoch: number(epoch)?, seq: number(seq)? },
        nonce: u64::from_str_radix(nonce, 16).map_err(|_| unexpected())?,
        prior: Position { epoch: number(prior_epoch)?, seq: number(prior_seq)? },
    }))
}

/// Tries what the scripts do.
pub fn probe(keys: &Keys) -> Cmd {
    let mut command = PROBE.call(4);
    command.arg(&keys.probe).arg(&keys.producers).arg(keys.seen("probe")).arg(&keys.stream);
    command.arg(now_seconds());
    command
}

/// A plain command that writes, on what [`probe`] left: Redis 6.2 doesn't hold scripts to `min-replicas-to-write`.
pub fn touch(keys: &Keys) -> Cmd {
    let mut command = redis::cmd("PEXPIRE");
    command.arg(&keys.probe).arg(60_000);
    command
}

/// Moves jobs of the embedded queue, if the server is at that number. It answers with the number that it is at then.
pub fn move_jobs(keys: &Keys, field: &str, at: u64, last: u64, jobs: &[Entry]) -> Cmd {
    let mut command = MOVE.call(2);
    command.arg(&keys.stream).arg(&keys.producers).arg(field).arg(at).arg(last);
    for job in jobs {
        command.arg(job.document.as_ref());
    }
    command
}

fn number(text: &str) -> Result<u64, RedisError> {
    text.parse().map_err(|_| unexpected())
}

fn nonce_of(epoch: Epoch) -> String {
    format!("{:016x}", epoch.nonce)
}

fn now_seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn unexpected() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "a script's answer isn't one of its own").into()
}

#[cfg(test)]
mod tests;
