//! The embedded queue's writer: takes what is waiting, commits it, and settles it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::table;
use crate::queue::files::Files;
use crate::queue::lane::{Append, Waiting, refuse};
use crate::queue::{Health, QueueError};

/// The pause between two attempts to begin a new file.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The writer: takes what is waiting, commits it, and settles it.
#[derive(Debug)]
pub struct EmbeddedWriter {
    pub(super) waiting: Waiting,
    pub(super) files: Arc<Files>,
    pub(super) last: watch::Sender<u64>,
    pub(super) health: watch::Sender<Health>,
}

impl EmbeddedWriter {
    /// Commits batches until the lane is closed and empty. Blocks its thread; `runtime` drives the waiting.
    pub fn run(mut self, runtime: &Handle) {
        let mut number = *self.last.borrow();
        while let Some(batch) = runtime.block_on(self.waiting.batch()) {
            let first = number + 1;
            number += batch.len() as u64;
            match self.commit(&batch, first) {
                Ok(()) => {
                    self.last.send_replace(number);
                    batch.into_iter().for_each(|append| append.settle(Ok(())));
                }
                Err(error) => {
                    self.fail(batch, &error);
                    if !self.recover(runtime, number + 1) {
                        return;
                    }
                }
            }
        }
    }

    fn commit(&self, batch: &[Append], first: u64) -> Result<(), redb::Error> {
        let (_, file) = self.files.active().ok_or(redb::Error::DatabaseClosed)?;
        table::commit(&file, batch, first)
    }

    /// The batch may or may not be in the file.
    fn fail(&self, batch: Vec<Append>, error: &redb::Error) {
        error!(%error, jobs = batch.len(), "the embedded queue couldn't commit; its jobs were answered 503");
        self.health.send_replace(Health::Down(error.to_string()));
        refuse(batch, &QueueError::Unconfirmed);
    }

    /// Begins a new file as soon as one can be written; refuses what comes meanwhile. False if the lane closed first.
    fn recover(&mut self, runtime: &Handle, first: u64) -> bool {
        self.files.retire_active();
        loop {
            match self.files.create(|file| table::prepare(file, first)) {
                Ok((generation, file)) => {
                    self.files.activate(generation, file);
                    info!(generation, "the embedded queue takes jobs again, in a new file");
                    self.health.send_replace(Health::Up);
                    return true;
                }
                Err(error) => {
                    warn!(%error, "a new file for the embedded queue can't be made yet");
                    self.health.send_replace(Health::Down(error.to_string()));
                }
            }
            if !self.refuse_for(runtime, RETRY_PAUSE) {
                return false;
            }
        }
    }

    fn refuse_for(&mut self, runtime: &Handle, pause: Duration) -> bool {
        let refusal = QueueError::Unavailable("the embedded queue can't write to its disk".to_owned());
        runtime.block_on(async {
            let rest = tokio::time::sleep(pause);
            tokio::pin!(rest);
            loop {
                tokio::select! {
                    () = &mut rest => return true,
                    batch = self.waiting.batch() => match batch {
                        Some(batch) => refuse(batch, &refusal),
                        None => return false,
                    },
                }
            }
        })
    }
}
