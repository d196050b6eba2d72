//! The embedded queue: redb files in one folder, one writer with group commit, an fsync before every receipt.
//!
//! On disk: `jobs-000001.redb`, `jobs-000002.redb`, … ([`files`](super::files) has their rules). Each holds jobs by
//! their numbers, 1, 2, 3 … over all files. Jobs are appended to the last file only; after any failure a new file is
//! begun, and the old one is still read. Numbers may have gaps, and are never used twice.

mod table;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::info;

use super::files::{Files, Folder, OpenError, OpenFile};
use super::lane::{Lane, lane};
use super::{Health, Page, ReadError, ReadRequest};

pub use writer::EmbeddedWriter;

/// The files' names begin with it.
const PREFIX: &str = "jobs";

/// The embedded queue.
#[derive(Debug)]
pub struct Embedded {
    lane: Lane,
    files: Arc<Files>,
    last: watch::Receiver<u64>,
    health: watch::Receiver<Health>,
}

impl Embedded {
    /// Opens the queue in a folder, which is made if it is missing (readable by its owner alone).
    ///
    /// # Errors
    /// Another gateway has the folder, or it can't be read or written.
    pub fn open(folder: &Path, open: OpenFile) -> Result<(Embedded, EmbeddedWriter), OpenError> {
        let files = Files::find(Folder::open(folder)?, PREFIX, open)?;
        let (generation, active) = match files.open_last()? {
            Some(last) => last,
            None => files.create(|file| table::prepare(file, 1))?,
        };
        let last = table::last_number(&active).map_err(|error| files.file_error(generation, &error))?;
        files.activate(generation, active);
        info!(folder = %folder.display(), jobs = last, "embedded queue open");
        let (lane, waiting) = lane();
        let (last_sender, last) = watch::channel(last);
        let (health_sender, health) = watch::channel(Health::Up);
        let files = Arc::new(files);
        let writer =
            EmbeddedWriter { waiting, files: Arc::clone(&files), last: last_sender, health: health_sender };
        Ok((Embedded { lane, files, last, health }, writer))
    }

    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Whether it takes jobs now.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    pub(super) async fn read(&self, request: ReadRequest) -> Result<Page, ReadError> {
        let mut last = self.last.clone();
        let after = match &request.after {
            Some(text) => text.parse().map_err(|_| ReadError::Position(text.clone()))?,
            None => *last.borrow_and_update(),
        };
        // A time-out is no error: the page is empty then. Nor is the writer's end: what it wrote can be read.
        let _ = tokio::time::timeout(request.wait, last.wait_for(|last| *last > after)).await;
        let files = Arc::clone(&self.files);
        tokio::task::spawn_blocking(move || page(&files, after, request.limit))
            .await
            .map_err(|error| ReadError::Unavailable(error.to_string()))?
    }
}

fn page(files: &Files, after: u64, limit: usize) -> Result<Page, ReadError> {
    let unavailable = |error: &dyn fmt::Display| ReadError::Unavailable(error.to_string());
    let older = files.open_older().map_err(|error| unavailable(&error))?;
    let active = files.active().ok_or_else(|| unavailable(&"no file can be written at the moment"))?;
    let mut page = Page { entries: Vec::new(), last: after.to_string() };
    let mut bytes = 0;
    for (_, file) in older.into_iter().chain([active]) {
        table::add_jobs(&file, after, limit, &mut bytes, &mut page).map_err(|error| unavailable(&error))?;
    }
    if let Some(entry) = page.entries.last() {
        page.last.clone_from(&entry.position);
    }
    Ok(page)
}
