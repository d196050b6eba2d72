//! The embedded queue: logs in one folder, one writer with group commit, an fsync before every receipt; read and
//! acknowledged through the private plane.
//!
//! On disk: `jobs-000001.log`, `jobs-000002.log`, … ([`files`](super::files) has their rules), `acknowledged`, and where
//! repeats are dropped `marks-000001.redb`, …. Jobs
//! have numbers, 1, 2, 3 … over all files; numbers may have gaps, and are never used twice. Jobs are appended to the
//! last file only; a new one is begun when it is large enough, and after any failure. An acknowledgement is durable
//! before it is answered; files in which everything is acknowledged are removed as a whole, which is all the compaction
//! that there is, and holds up nobody.

mod log;
mod marks;
mod position;
mod salvage;
mod store;
mod writer;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use self::store::Store;
use super::files::{Folder, OpenDisk, OpenError};
use super::lane::{Lane, lane};
use super::{AcknowledgeError, Backlog, Health, Page, ReadError, ReadRequest};

pub use writer::EmbeddedWriter;

/// The embedded queue.
#[derive(Debug)]
pub struct Embedded {
    lane: Lane,
    store: Arc<Store>,
    health: watch::Receiver<Health>,
}

impl Embedded {
    /// Opens the queue in a folder, which is made if it is missing (readable by its owner alone). Jobs are refused while
    /// those that aren't acknowledged have `limit_bytes` or more. On the disk a batch takes whole pages of 4 KiB: documents of
    /// 2.5 KB take 1.05 times their bytes where many come together, and 1.6 times where each comes alone (measured); up to
    /// two files come on top.
    ///
    /// # Errors
    /// Another gateway has the folder, or it can't be read or written.
    pub fn open(
        folder: &Path,
        open: OpenDisk,
        limit_bytes: u64,
    ) -> Result<(Embedded, EmbeddedWriter), OpenError> {
        let store = Arc::new(Store::open(Folder::open(folder)?, open)?);
        let (lane, waiting) = lane();
        let (health_sender, health) = watch::channel(Health::Up);
        let writer = EmbeddedWriter::new(waiting, Arc::clone(&store), health_sender, limit_bytes);
        Ok((Embedded { lane, store, health }, writer))
    }

    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Whether it takes jobs now.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    pub(super) async fn read(&self, request: ReadRequest) -> Result<Page, ReadError> {
        let mut last = self.store.last.subscribe();
        let after = match &request.after {
            Some(text) => number(text).ok_or_else(|| ReadError::Position(text.clone()))?,
            None => *last.borrow_and_update(),
        };
        let after = after.max(*self.store.acknowledged.borrow());
        // A time-out is no error: the page is empty then. Nor is the writer's end: what it wrote can be read.
        let _ = tokio::time::timeout(request.wait, last.wait_for(|last| *last > after)).await;
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.page(after, request.limit))
            .await
            .map_err(|error| ReadError::Unavailable(error.to_string()))?
    }

    pub(super) async fn acknowledge(&self, last: &str) -> Result<String, AcknowledgeError> {
        let position = number(last).ok_or_else(|| AcknowledgeError::Position(last.to_owned()))?;
        let store = Arc::clone(&self.store);
        let position = tokio::task::spawn_blocking(move || store.acknowledge(position))
            .await
            .map_err(|error| AcknowledgeError::Unavailable(error.to_string()))??;
        Ok(position.to_string())
    }

    pub(super) async fn backlog(&self) -> Backlog {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.backlog()).await.unwrap_or_default()
    }
}

/// What an embedded queue left in a folder that isn't its own any more.
#[derive(Clone, Debug)]
pub struct Leftover {
    store: Arc<Store>,
}

impl Leftover {
    /// Opens it, if there is something.
    ///
    /// # Errors
    /// It can't be read.
    pub fn open(folder: &Arc<Folder>, open: OpenDisk) -> Result<Option<Leftover>, OpenError> {
        if !Store::is_in(folder, Arc::clone(&open))? {
            return Ok(None);
        }
        Ok(Some(Leftover { store: Arc::new(Store::open(Arc::clone(folder), open)?) }))
    }

    /// How many jobs aren't acknowledged.
    pub async fn jobs(&self) -> u64 {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.backlog().jobs).await.unwrap_or_default()
    }

    /// A page of jobs behind a number, or behind the acknowledged one if that is further.
    ///
    /// # Errors
    /// It can't be read.
    pub async fn page(&self, after: u64, limit: usize) -> Result<Page, ReadError> {
        let store = Arc::clone(&self.store);
        let page = tokio::task::spawn_blocking(move || store.page(after, limit)).await;
        page.map_err(|error| ReadError::Unavailable(error.to_string()))?
    }

    /// Up to this number everything is elsewhere.
    ///
    /// # Errors
    /// It can't be written.
    pub async fn acknowledge(&self, number: u64) -> Result<u64, AcknowledgeError> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || store.acknowledge(number)).await;
        done.map_err(|error| AcknowledgeError::Unavailable(error.to_string()))?
    }
}

/// A position is a number as it was given out: digits alone.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
