//! The outage journal: redb files in the data folder that keep what Redis hasn't confirmed in time, with its identity,
//! until Redis has it. And the identity itself: who this producer is, and how often it began anew.
//!
//! One thread writes; what is waiting for it is committed together, with one fsync. In the files: `batches` from a lane
//! (one for each stream) and a place (0, 1, 2 …) to a batch, and the `notes`, which say what of it is unresolved.
//! After a failed commit a new file is begun; its notes don't name what was refused, so whatever reached the disk of that
//! counts for nothing.
//!
//! The next file is made ahead: on a full disk the notes have a place in it. Without them Redis couldn't be given what
//! fills the disk. New jobs are taken again when there is room for another one.

mod batch;
mod notes;
mod tables;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::Database;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

pub use self::batch::{Batch, Document, size_bytes};
pub use self::writer::JournalWriter;
use super::Health;
use super::files::{Files, Folder, OpenDisk, OpenError};
use super::producer::{Position, Run};

/// How many bytes of batches one read takes from the disk at the most, besides the first batch.
const READ_LIMIT_BYTES: usize = 4 << 20;

/// What a lane finds in the journal at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// What isn't known to be confirmed.
    pub runs: Vec<Run>,
    /// The first place that was never given away.
    pub next_place: u64,
    /// What the server must have reached.
    pub promised: Position,
}

/// Who writes: the same over all starts with one folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// 128 random bits.
    pub producer: Uuid,
    /// The epoch that this start begins.
    pub epoch: u64,
}

/// A change of the journal. What is asked for together may be committed together, in order.
#[derive(Debug)]
pub(super) enum Change {
    /// Batches behind each other, from a run's place on.
    Append { lane: u32, run: Run, promised: Position, batches: Vec<Batch> },
    /// New numbers for everything of a lane: the places below are resolved.
    Renumber { lane: u32, runs: Vec<Run>, resolved_below: u64, promised: Position },
    /// The places below are resolved.
    Forget { lane: u32, resolved_below: u64, promised: Position },
    /// The next epoch's number.
    NextEpoch,
}

#[derive(Debug)]
pub(super) struct Order {
    change: Change,
    /// The number of an epoch, for [`Change::NextEpoch`].
    done: oneshot::Sender<Result<u64, JournalError>>,
}

/// Why the journal didn't take something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// It isn't on the disk, or it may be.
    #[error("the outage journal can't write: {0}")]
    Write(String),
    /// What is there can't be read.
    #[error("the outage journal can't be read: {0}")]
    Read(String),
    /// Its thread ended.
    #[error("the outage journal is closed")]
    Closed,
}

/// The lanes' end of the journal.
#[derive(Clone, Debug)]
pub struct Journal {
    orders: mpsc::Sender<Order>,
    files: Arc<Files<Database>>,
    usage: Arc<Usage>,
    limit_bytes: u64,
    health: watch::Receiver<Health>,
}

/// How much the journal holds.
#[derive(Debug, Default)]
pub struct Usage {
    jobs: AtomicU64,
    bytes: AtomicU64,
    /// Damaged batches by lane and place: one may be met several times.
    lost: Mutex<BTreeSet<(u32, u64)>>,
    /// Damaged batches that have no place, and files.
    lost_batches: AtomicU64,
    damaged_files: AtomicU64,
}

impl Usage {
    /// Jobs that Redis hasn't confirmed.
    pub fn jobs(&self) -> u64 {
        self.jobs.load(Ordering::Relaxed)
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Batches that damage took, at the most, since the start.
    pub fn lost_batches(&self) -> u64 {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.len() as u64 + self.lost_batches.load(Ordering::Relaxed)
    }

    /// Damaged files that were set aside since the start.
    pub fn damaged_files(&self) -> u64 {
        self.damaged_files.load(Ordering::Relaxed)
    }

    /// A batch is gone; false if that is known.
    fn note_lost(&self, lane: u32, place: u64) -> bool {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert((lane, place))
    }

    fn note_damage(&self, files: &Files<Database>) {
        self.damaged_files.store(u64::from(files.set_aside_count()), Ordering::Relaxed);
        self.lost_batches.store(files.loss().lost_at_most, Ordering::Relaxed);
    }

    fn add(&self, jobs: u64, bytes: u64) {
        self.jobs.fetch_add(jobs, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn subtract(&self, jobs: u64, bytes: u64) {
        self.jobs.fetch_sub(jobs, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Journal {
    /// Opens the journal of so many lanes, and of all that ever wrote to it, in a folder, and begins an epoch. It takes jobs
    /// while it holds fewer than `limit_bytes`.
    ///
    /// # Errors
    /// The folder can't be read or written.
    pub fn open(
        folder: Arc<Folder>,
        open: OpenDisk,
        lanes: u32,
        limit_bytes: u64,
    ) -> Result<(Journal, JournalWriter, Identity, Vec<Recovered>), OpenError> {
        let files = Arc::new(Files::find(folder, "journal", open, Arc::new(tables::salvage))?);
        let usage = Arc::new(Usage::default());
        let (orders, receiver) = mpsc::channel(256);
        let (health_sender, health) = watch::channel(Health::Up);
        let (writer, identity, recovered) =
            JournalWriter::open(Arc::clone(&files), Arc::clone(&usage), receiver, health_sender, lanes)?;
        Ok((Journal { orders, files, usage, limit_bytes, health }, writer, identity, recovered))
    }

    /// Whether it takes jobs now.
    pub fn takes_jobs(&self) -> bool {
        self.usage.bytes() < self.limit_bytes && *self.health.borrow() == Health::Up
    }

    /// Why it takes none.
    pub fn health(&self) -> Health {
        if self.usage.bytes() >= self.limit_bytes {
            return Health::Down("the outage journal is full".to_owned());
        }
        self.health.borrow().clone()
    }

    /// How much it holds.
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// Makes a change durable; the epoch's number for [`Change::NextEpoch`].
    pub(super) async fn change(&self, change: Change) -> Result<u64, JournalError> {
        let (done, outcome) = oneshot::channel();
        self.orders.send(Order { change, done }).await.map_err(|_| JournalError::Closed)?;
        outcome.await.map_err(|_| JournalError::Closed)?
    }

    /// Reads batches behind each other: as many as fit into one read, and one at least. A batch that is damaged is
    /// reported and comes out empty.
    pub(super) async fn read(&self, lane: u32, place: u64, len: u64) -> Result<Vec<Batch>, JournalError> {
        let (files, usage) = (Arc::clone(&self.files), Arc::clone(&self.usage));
        let read = move || {
            let batches = tables::read_batches(&files, &usage, lane, place, len, READ_LIMIT_BYTES);
            usage.note_damage(&files);
            batches
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|error| JournalError::Read(error.to_string()))?
    }
}
