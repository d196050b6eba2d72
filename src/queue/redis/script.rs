//! The scripts that run on the server, how they are called, and what their answers mean.

use std::sync::LazyLock;

use bytes::BytesMut;
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
    ($($file:literal),+) => {
        Script {
            code: concat!($(include_str!($file)),+),
            sha1: LazyLock::new(|| hex::encode(Sha1::digest(concat!($(include_str!($file)),+)))),
        }
    };
}

static APPEND: Script = script!("stream.lua", "append.lua");
static FENCE: Script = script!("stream.lua", "fence.lua");
static PROBE: Script = script!("stream.lua", "probe.lua");
static MOVE: Script = script!("stream.lua", "move.lua");
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
    /// It is on the stream now. Jobs that were repeats of earlier ones: their place in the batch, and the first job's id.
    Appended(Vec<(usize, Uuid)>),
    /// It was on the stream already.
    Duplicate,
    /// The stream holds as many entries as it may.
    Full,
    /// The marker isn't where it should be: it must be read again.
    OutOfStep,
    /// The stream lost what the marker speaks of: an epoch must begin.
    Emptied,
    /// Another process writes under this identity.
    Fenced,
}

/// What has come of the server's answers to a batch.
#[derive(Debug)]
pub struct Answer {
    /// How many answers are still to come.
    left: usize,
    /// How many jobs have a command of their own. Without any, the script's answer is the only one.
    commands: usize,
    trouble: Option<RedisError>,
}

/// A batch to append.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The producer's field among the markers.
    pub producer: &'a str,
    /// The epoch of its number.
    pub epoch: Epoch,
    /// Its number.
    pub seq: u64,
    /// How many entries the stream may hold; 0 for any number.
    pub limit: u64,
    /// Its jobs; none for one that was refused after it had its number.
    pub jobs: &'a [Document],
    /// Whether jobs may get commands of their own, see `append.lua`.
    pub may_split: bool,
}

/// Puts a batch behind what is to be sent. The library's [`Cmd`] would hold a copy of every job.
pub fn append(out: &mut BytesMut, keys: &Keys, batch: &Batch<'_>) -> Answer {
    let Batch { producer, epoch, seq, limit, jobs: batch, may_split } = *batch;
    let dedupes: Vec<_> = batch
        .iter()
        .enumerate()
        .filter_map(|(place, document)| Some((place, document.dedupe.as_ref()?)))
        .collect();
    let of_script = if may_split && dedupes.is_empty() { batch.len().min(1) } else { batch.len() };
    let (of_script, commands) = batch.split_at(of_script);
    out.reserve(
        batch.iter().map(|document| document.bytes.len() + COMMAND_BYTES).sum::<usize>() + HEAD_BYTES,
    );
    if !commands.is_empty() {
        put(out, &["MULTI"]);
    }
    put_head(out, 3 + 3 + dedupes.len() + 8 + 3 * dedupes.len() + of_script.len());
    put_args(out, &["EVALSHA", APPEND.sha1.as_str()]);
    put_number(out, 3 + dedupes.len() as u64);
    put_args(out, &[&keys.stream, &keys.producers, &keys.open]);
    dedupes.iter().for_each(|(_, (_, dedupe))| put_arg(out, keys.seen(&dedupe.key).as_bytes()));
    put_arg(out, producer.as_bytes());
    put_number(out, epoch.number);
    put_arg(out, nonce_of(epoch).as_bytes());
    put_number(out, seq);
    put_number(out, now_seconds().unsigned_abs());
    put_number(out, limit);
    put_number(out, u64::from(!commands.is_empty()));
    put_number(out, dedupes.len() as u64);
    for (place, (job, dedupe)) in &dedupes {
        let within = u64::try_from(dedupe.within.as_millis()).unwrap_or(u64::MAX).max(1);
        put_number(out, *place as u64);
        put_arg(out, job.to_string().as_bytes());
        put_number(out, within);
    }
    of_script.iter().for_each(|document| put_arg(out, &document.bytes));
    if commands.is_empty() {
        return Answer { left: 1, commands: 0, trouble: None };
    }
    for document in commands {
        put_head(out, 6);
        put_args(out, &["XADD", &keys.open, "NOMKSTREAM", "*", super::JOB_FIELD]);
        put_arg(out, &document.bytes);
    }
    put(out, &["RENAMENX", &keys.open, &keys.stream]);
    put(out, &["EXEC"]);
    // MULTI, what is queued (the script, the commands, RENAMENX), EXEC.
    Answer { left: commands.len() + 4, commands: commands.len(), trouble: None }
}

/// What a job's command needs besides the job, and a batch besides its jobs and marks, at the most.
const COMMAND_BYTES: usize = 128;
const HEAD_BYTES: usize = 1024;

fn put_head(out: &mut BytesMut, args: usize) {
    put_length(out, b'*', args as u64);
}

fn put_arg(out: &mut BytesMut, arg: &[u8]) {
    put_length(out, b'$', arg.len() as u64);
    out.extend_from_slice(arg);
    out.extend_from_slice(b"\r\n");
}

fn put_args(out: &mut BytesMut, args: &[&str]) {
    args.iter().for_each(|arg| put_arg(out, arg.as_bytes()));
}

fn put(out: &mut BytesMut, command: &[&str]) {
    put_head(out, command.len());
    put_args(out, command);
}

fn put_number(out: &mut BytesMut, number: u64) {
    put_arg(out, itoa::Buffer::new().format(number).as_bytes());
}

fn put_length(out: &mut BytesMut, kind: u8, length: u64) {
    out.extend_from_slice(&[kind]);
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

impl Answer {
    /// Takes the next answer. None as long as there are more to come.
    pub fn take(&mut self, reply: Value) -> Option<Result<Verdict, RedisError>> {
        self.left = self.left.saturating_sub(1);
        // A transaction's answers may hold errors that are as they should be.
        let reply = match reply {
            Value::ServerError(error) => Err(RedisError::from(error)),
            reply => Ok(reply),
        };
        if self.left > 0 {
            if let Err(error) = reply {
                self.trouble.get_or_insert(error);
            }
            return None;
        }
        Some(match (self.trouble.take(), reply) {
            // EXEC says no more than that there was an error.
            (Some(error), _) | (None, Err(error)) => Err(error),
            (None, Ok(reply)) if self.commands == 0 => verdict(reply),
            (None, Ok(reply)) => self.verdict_of_transaction(reply),
        })
    }

    /// What EXEC returned: the script's answer, the entry's id for each command, and 1 because the name was free. Where
    /// the script didn't append, the commands did nothing.
    fn verdict_of_transaction(&self, reply: Value) -> Result<Verdict, RedisError> {
        let Value::Array(replies) = reply else { return Err(unexpected()) };
        let mut replies = replies.into_iter();
        let verdict = verdict(replies.next().unwrap_or_default().extract_error()?)?;
        if let Verdict::Appended(_) = verdict {
            for _ in 0..self.commands {
                let Value::BulkString(_) = replies.next().unwrap_or_default().extract_error()? else {
                    return Err(unexpected());
                };
            }
            if replies.next().unwrap_or_default().extract_error()? != Value::Int(1) {
                return Err(unexpected());
            }
        }
        Ok(verdict)
    }
}

/// Reads the script's answer.
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
        "duplicate" => Ok(Verdict::Duplicate),
        "full" => Ok(Verdict::Full),
        "emptied" => Ok(Verdict::Emptied),
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
        /// Whether the stream lost all, or never held anything.
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

/// Tries what the scripts do, and looks at the stream.
pub fn probe(keys: &Keys, producer: &str) -> Cmd {
    let mut command = PROBE.call(5);
    command.arg(&keys.probe).arg(&keys.producers).arg(keys.seen("probe")).arg(&keys.stream);
    command.arg(format!("{}:open", keys.probe)).arg(now_seconds()).arg(producer);
    command
}

/// Tries what a transaction does besides the scripts.
pub fn try_transaction(keys: &Keys) -> [Cmd; 3] {
    let mut add = redis::cmd("XADD");
    add.arg(&keys.probe).arg("NOMKSTREAM").arg("MAXLEN").arg(1).arg("*").arg("at").arg(now_seconds());
    [redis::cmd("MULTI"), add, redis::cmd("EXEC")]
}

/// Takes back the stream's name, should a transaction have been torn: by a server without transactions.
pub fn close(keys: &Keys) -> Cmd {
    let mut command = redis::cmd("RENAMENX");
    command.arg(&keys.open).arg(&keys.stream);
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
