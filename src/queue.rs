//! The queue: where jobs become durable.
//!
//! The contract of a [`Receipt`]: it exists only after the store confirmed the job as durable, and only a receipt
//! lets the path answer 200. Every store commits in groups: what is waiting when the store is free goes out together.

#[cfg(test)]
#[path = "../tests/it/support/bad_disk.rs"]
mod bad_disk;
pub mod embedded;
pub mod files;
pub mod frame;
pub mod journal;
pub mod lane;
pub mod producer;
pub mod redis;

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::job::Job;
use crate::memory::Reservation;
use crate::queue::embedded::Embedded;
use crate::queue::redis::Redis;

/// Proof that a job is durable.
#[derive(Debug)]
pub struct Receipt {
    /// The job; of a repeat the first one's.
    pub job: Uuid,
    /// Whether the job was a repeat of an earlier one, and so isn't stored again.
    pub is_repeat: bool,
}

/// Why a job has no receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The store can't be used now; the job wasn't stored.
    #[error("{0}")]
    Unavailable(String),
    /// More jobs are waiting than the queue takes; the job wasn't stored.
    #[error("too many jobs are waiting")]
    Full,
    /// The store didn't come to it in time; the job wasn't stored.
    #[error("the store didn't take the job within the time for it")]
    Busy,
    /// The store didn't confirm, because it took too long or its disk failed. The job may have been stored.
    #[error("the store didn't confirm the job, which may be stored all the same")]
    Unconfirmed,
}

/// Whether the store takes jobs now, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Up,
    /// They go to the outage journal, and why.
    Journaling(String),
    /// It doesn't, and why.
    Down(String),
}

/// The position before the first job.
pub const START: &str = "0";

/// One job as it lies in the queue.
#[derive(Debug)]
pub struct Entry {
    /// Its position: a number in the embedded queue, an entry id in Redis.
    pub position: String,
    /// The job's document.
    pub document: Bytes,
}

/// Some jobs, in the order of the queue.
#[derive(Debug)]
pub struct Page {
    /// The jobs.
    pub entries: Vec<Entry>,
    /// The position to read on from.
    pub last: String,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Only jobs behind this position; none stands for the end of the queue as it is now.
    pub after: Option<String>,
    /// How many jobs at the most.
    pub limit: usize,
    /// How long to wait for the first one.
    pub wait: Duration,
}

/// Why the queue can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The position isn't one of this queue's.
    #[error("`{0}` isn't a position in this queue")]
    Position(String),
    /// The store can't be read now.
    #[error("the queue can't be read: {0}")]
    Unavailable(String),
}

/// Why a position can't be acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum AcknowledgeError {
    /// The position isn't one of this queue's.
    #[error("`{0}` isn't a position in this queue")]
    Position(String),
    /// No job has this position yet.
    #[error("no job has the position `{0}` yet")]
    BeyondEnd(String),
    /// This queue's readers acknowledge elsewhere.
    #[error("jobs on Redis are acknowledged there, by their consumer groups (XACK)")]
    Elsewhere,
    /// The store can't remember it now.
    #[error("the position can't be stored: {0}")]
    Unavailable(String),
}

/// What waits to be handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many jobs.
    pub jobs: u64,
    /// Their documents' bytes.
    pub bytes: u64,
    /// How long ago the oldest was stored.
    pub age: Duration,
    /// Damaged files that were set aside since the start.
    pub damaged_files: u32,
    /// Jobs that damage took since the start, at the most.
    pub lost_jobs: u64,
}

/// A page ends at this many bytes, so that reading holds a bounded part of the queue in memory.
pub const PAGE_LIMIT_BYTES: usize = 1 << 20;

/// How long a store may take for so many bytes: the setting's time, and 20 ms for each further MiB, so that the largest
/// body a user allows can be stored at all (a disk or a network writes 50 MiB/s).
pub fn time_for(timeout: Duration, bytes: usize) -> Duration {
    const NANOS_PER_BYTE: u64 = 20;
    timeout.saturating_add(Duration::from_nanos((bytes as u64).saturating_mul(NANOS_PER_BYTE)))
}

/// Where an app's jobs go.
#[derive(Debug)]
pub enum Queue {
    /// A file on this machine.
    Embedded(Embedded),
    /// A Redis stream.
    Redis(Box<Redis>),
}

impl Queue {
    /// Makes a job durable within [`time_for`] its length. Jobs of one `order_key` are stored in their order; without one the
    /// order may be any, where the queue is spread over several streams. The reservation is given back when the store has let go of
    /// the job.
    ///
    /// # Errors
    /// Why there is no receipt.
    pub fn append(
        &self,
        job: Job,
        order_key: Option<&str>,
        reservation: Reservation,
        timeout: Duration,
    ) -> impl Future<Output = Result<Receipt, QueueError>> {
        let lane = match self {
            Queue::Embedded(embedded) => embedded.lane(),
            Queue::Redis(redis) => redis.lane(&job, order_key),
        };
        lane.append(job, reservation, timeout)
    }

    /// Reads jobs in order; does not remove them.
    ///
    /// # Errors
    /// A position that isn't one, or a store that can't be read.
    pub async fn read(&self, request: ReadRequest) -> Result<Page, ReadError> {
        match self {
            Queue::Embedded(embedded) => embedded.read(request).await,
            Queue::Redis(redis) => redis.read(request).await,
        }
    }

    /// Takes note that everything up to a position has been handled: it isn't read again, and its space is given back.
    ///
    /// # Errors
    /// A position that isn't one, or a store that can't remember it. Jobs on Redis are acknowledged there.
    pub async fn acknowledge(&self, last: &str) -> Result<String, AcknowledgeError> {
        match self {
            Queue::Embedded(embedded) => embedded.acknowledge(last).await,
            Queue::Redis(_) => Err(AcknowledgeError::Elsewhere),
        }
    }

    /// What waits in the embedded queue; None on Redis.
    pub async fn embedded_backlog(&self) -> Option<Backlog> {
        match self {
            Queue::Embedded(embedded) => Some(embedded.backlog().await),
            Queue::Redis(_) => None,
        }
    }

    /// Whether the store takes jobs now.
    pub fn health(&self) -> Health {
        match self {
            Queue::Embedded(embedded) => embedded.health().borrow().clone(),
            Queue::Redis(redis) => redis.health(),
        }
    }

    /// Takes no more jobs: the worker confirms what is waiting and ends.
    pub fn close(&self) {
        match self {
            Queue::Embedded(embedded) => embedded.lane().close(),
            Queue::Redis(redis) => redis.close(),
        }
    }
}
