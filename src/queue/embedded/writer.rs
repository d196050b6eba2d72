//! The embedded queue's writer: takes what is waiting, commits it, and settles it.

use std::sync::Arc;
use std::time::Duration;

use redb::Database;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::marks;
use super::store::{Store, now};
use super::table::{self, Total};
use crate::queue::files::{Moment, OpenError, guarded};
use crate::queue::lane::{Append, Waiting, refuse};
use crate::queue::{Health, QueueError};

/// The pause between two attempts to begin a new file.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A new file is begun when the active one holds a sixteenth of the limit, within these bounds: small enough that what
/// is acknowledged is soon removed with its file, large enough that a file is seldom made.
const FILE_SHARE: u64 = 16;
const FILE_BYTES: (u64, u64) = (256 << 10, 32 << 20);

type NextFile = JoinHandle<Result<(u32, Arc<Database>), OpenError>>;

/// The writer.
#[derive(Debug)]
pub struct EmbeddedWriter {
    waiting: Waiting,
    store: Arc<Store>,
    health: watch::Sender<Health>,
    acknowledged: watch::Receiver<u64>,
    limit_bytes: u64,
    /// What the active file holds.
    active: Total,
    /// What isn't acknowledged, in bytes.
    backlog_bytes: u64,
    /// The next file, made ahead on another thread: making one takes several fsyncs, which no job should wait for.
    next: Option<NextFile>,
    /// An older file that is there for its marks alone, and the last key that was carried over.
    carrying: Option<(u32, Arc<Database>, String)>,
}

/// How many marks are carried over at a time: a batch waits for no more.
const CARRIED_MARKS: usize = 500;

enum Event {
    Batch(Vec<Append>),
    Acknowledged,
    Idle,
    Closed,
}

impl EmbeddedWriter {
    pub(super) fn new(
        waiting: Waiting,
        store: Arc<Store>,
        health: watch::Sender<Health>,
        limit_bytes: u64,
    ) -> EmbeddedWriter {
        let mut writer = EmbeddedWriter {
            waiting,
            acknowledged: store.acknowledged.subscribe(),
            active: store.active_total(),
            backlog_bytes: store.backlog().bytes,
            store,
            health,
            limit_bytes,
            next: None,
            carrying: None,
        };
        writer.report_fullness();
        writer.find_marks();
        writer
    }

    /// Commits batches until the lane is closed and empty. Blocks its thread; `runtime` drives the waiting.
    pub fn run(mut self, runtime: &Handle) {
        let mut number = *self.store.last.borrow();
        loop {
            match runtime.block_on(self.wait()) {
                Event::Closed => break,
                Event::Acknowledged => {
                    self.backlog_bytes = self.store.backlog().bytes;
                    self.report_fullness();
                    self.find_marks();
                }
                Event::Idle => {
                    if let Err(error) = self.carry_marks()
                        && !self.recover(runtime, 0, Vec::new(), &error)
                    {
                        break;
                    }
                }
                Event::Batch(batch) if self.is_full() => refuse(batch, &QueueError::Unavailable(self.full())),
                Event::Batch(batch) => {
                    let first = number + 1;
                    match self.commit(&batch, first) {
                        Ok(repeats) => {
                            number += repeats.iter().filter(|repeat| repeat.is_none()).count() as u64;
                            self.store.last.send_replace(number);
                            // By a task of the runtime: from here each path would have to be woken across threads.
                            runtime.spawn(async move {
                                for (append, repeat) in batch.into_iter().zip(repeats) {
                                    append.settle(Ok(repeat));
                                }
                            });
                            self.report_fullness();
                            self.rotate(runtime);
                        }
                        Err(error) => {
                            // What may be on the disk has these numbers.
                            number += batch.len() as u64;
                            if !self.recover(runtime, first, batch, &error) {
                                break;
                            }
                        }
                    }
                }
            }
        }
        // Nothing of the folder is touched once the writer has ended.
        if let Some(next) = self.next.take() {
            let _ = runtime.block_on(next);
        }
    }

    async fn wait(&mut self) -> Event {
        tokio::select! {
            biased;
            // The store has the sender, so this ends with a change only.
            _ = self.acknowledged.changed() => Event::Acknowledged,
            batch = self.waiting.batch() => batch.map_or(Event::Closed, Event::Batch),
            () = std::future::ready(()), if self.carrying.is_some() => Event::Idle,
        }
    }

    /// Looks for a file that is there for its marks alone.
    fn find_marks(&mut self) {
        if self.carrying.is_none() {
            self.carrying =
                self.store.file_of_marks().map(|(generation, file)| (generation, file, String::new()));
        }
    }

    /// Carries some marks over to the active file; the older one goes when none is left.
    fn carry_marks(&mut self) -> Result<(), redb::Error> {
        let Some((generation, file, behind)) = self.carrying.take() else { return Ok(()) };
        let (_, active) = self.store.files.active().ok_or(redb::Error::DatabaseClosed)?;
        match marks::carry_marks(&file, &active, &behind, CARRIED_MARKS, now())? {
            Some(last) => self.carrying = Some((generation, file, last)),
            None => match self.store.files.remove(generation) {
                Ok(()) => {
                    info!(generation, "a file of the queue was removed; its marks were carried over");
                    self.find_marks();
                }
                Err(error) => warn!(%error, generation, "an acknowledged file can't be removed"),
            },
        }
        Ok(())
    }

    /// Stores a batch; for each job the first one's id, if it is a repeat.
    fn commit(&mut self, batch: &[Append], first: u64) -> Result<Vec<Option<Uuid>>, redb::Error> {
        let (generation, file) = self.store.files.active().ok_or(redb::Error::DatabaseClosed)?;
        let older = match batch.iter().any(|append| append.dedupe().is_some()) {
            true => self.store.files.open_all(Moment::Running).unwrap_or_else(|_| self.store.files.opened()),
            false => Vec::new(),
        };
        let older: Vec<_> =
            older.into_iter().filter(|(other, _)| *other != generation).map(|(_, file)| file).collect();
        let before = self.active;
        let stored = guarded(|| table::commit(&file, &older, batch, first, before, now()))?;
        self.active = stored.total;
        self.backlog_bytes += self.active.bytes - before.bytes;
        Ok(stored.repeats)
    }

    /// Jobs are refused from the limit on, so what is stored may be over it by one batch.
    fn is_full(&self) -> bool {
        self.backlog_bytes >= self.limit_bytes
    }

    fn full(&self) -> String {
        format!(
            "the embedded queue is full: jobs of {} bytes aren't acknowledged (POST /api/jobs/ack), which is \
             RETRIEVE_EMBEDDED_LIMIT",
            self.limit_bytes
        )
    }

    fn report_fullness(&mut self) {
        let health = if self.is_full() { Health::Down(self.full()) } else { Health::Up };
        let is_new = self.health.send_if_modified(|before| {
            let is_new = *before != health;
            before.clone_from(&health);
            is_new
        });
        match health {
            Health::Down(why) if is_new => error!("{why}"),
            Health::Up if is_new => info!("the embedded queue takes jobs again"),
            _ => {}
        }
    }

    /// Has a new file made when the active one is half full, so that it is there before what the active one has room for
    /// is written, and goes over to it when that is full. Until it is there, and if it can't be made, the active one grows
    /// on.
    fn rotate(&mut self, runtime: &Handle) {
        let file_bytes = (self.limit_bytes / FILE_SHARE).clamp(FILE_BYTES.0, FILE_BYTES.1);
        if self.next.is_none() && self.active.bytes >= file_bytes / 2 {
            let store = Arc::clone(&self.store);
            // redb gives values pages to the next power of two, so a file takes about half as much again.
            let room_bytes = file_bytes + file_bytes / 2;
            let create = move || store.files.create_ahead(room_bytes, table::prepare);
            self.next = Some(runtime.spawn_blocking(create));
        }
        if self.active.bytes < file_bytes {
            return;
        }
        let Some(next) = self.next.take_if(|next| next.is_finished()) else { return };
        match runtime.block_on(next) {
            Ok(Ok((generation, file))) => self.begin(generation, file),
            Ok(Err(error)) => warn!(%error, "the next file of the embedded queue can't be made yet"),
            Err(error) => error!(%error, "the next file of the embedded queue wasn't made"),
        }
    }

    fn begin(&mut self, generation: u32, file: Arc<Database>) {
        self.store.files.activate(generation, file);
        self.active = Total::default();
    }

    /// The batch may or may not be in the file. Begins a new one as soon as one can be written, which says that the
    /// batch's numbers are void; refuses the batch, and what comes meanwhile. False if the lane closed first.
    fn recover(&mut self, runtime: &Handle, first: u64, batch: Vec<Append>, error: &redb::Error) -> bool {
        error!(%error, jobs = batch.len(), "the embedded queue couldn't commit; its jobs are answered 503");
        self.health.send_replace(Health::Down(error.to_string()));
        self.store.files.retire_active();
        let voids = [(first, batch.len() as u64)];
        let voids = if batch.is_empty() { &[][..] } else { &voids[..] };
        voids.iter().for_each(|(first, len)| self.store.add_void(*first, *len));
        let mut refused = Some(batch);
        loop {
            // Those who wait are told once it is on the disk that their jobs don't count, if that can be done at once.
            let next = self.next_file(runtime, voids);
            refuse(refused.take().unwrap_or_default(), &QueueError::Unconfirmed);
            match next {
                Ok((generation, file)) => {
                    self.begin(generation, file);
                    info!(generation, "the embedded queue takes jobs again, in a new file");
                    self.health.send_replace(Health::Up);
                    self.report_fullness();
                    return true;
                }
                Err(error) => {
                    warn!(%error, "a new file for the embedded queue can't be made yet");
                    self.health.send_replace(Health::Down(error.to_string()));
                    // What was acknowledged while the last file was still empty is there yet.
                    self.store.remove_acknowledged();
                }
            }
            if !self.refuse_for(runtime, RETRY_PAUSE) {
                return false;
            }
        }
    }

    /// The file that was made ahead, or one that is made now, with a note of void numbers.
    fn next_file(
        &mut self,
        runtime: &Handle,
        voids: &[(u64, u64)],
    ) -> Result<(u32, Arc<Database>), OpenError> {
        let files = &self.store.files;
        if let Some(Ok(Ok((generation, file)))) = self.next.take().map(|next| runtime.block_on(next)) {
            table::note_voids(&file, voids).map_err(|error| files.file_error(generation, &error))?;
            return Ok((generation, file));
        }
        files.create(|file| {
            table::prepare(file)?;
            table::note_voids(file, voids)
        })
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
