//! The embedded queue's writer: takes what is waiting, commits it, and settles it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::log::{Log, Records, encode_marked};
use super::marks::Mark;
use super::store::{Store, now};
use crate::queue::files::OpenError;
use crate::queue::frame::{self, Kind};
use crate::queue::lane::{Append, BATCH_LIMIT_BYTES, Waiting, refuse};
use crate::queue::{Health, QueueError};

/// The pause between two attempts to begin a new file.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A new file is begun when the active one holds a sixteenth of the limit, within these bounds: small enough that what
/// is acknowledged is soon removed with its file, large enough that a file is seldom made.
const FILE_SHARE: u64 = 16;
const FILE_BYTES: (u64, u64) = (256 << 10, 32 << 20);

type NextFile = JoinHandle<Result<(u32, Arc<Log>), OpenError>>;

/// The writer.
#[derive(Debug)]
pub struct EmbeddedWriter {
    waiting: Waiting,
    store: Arc<Store>,
    health: watch::Sender<Health>,
    acknowledged: watch::Receiver<u64>,
    limit_bytes: u64,
    /// What isn't acknowledged, in bytes.
    backlog_bytes: u64,
    /// The next file, made ahead on another thread: making one takes several fsyncs, which no job should wait for.
    next: Option<NextFile>,
}

enum Event {
    Batch(Vec<Append>),
    Acknowledged,
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
            backlog_bytes: store.backlog().bytes,
            store,
            health,
            limit_bytes,
            next: None,
        };
        writer.report_fullness();
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
                }
                Event::Batch(batch) if self.is_full() => refuse(batch, &QueueError::Unavailable(self.full())),
                Event::Batch(batch) => {
                    let (batch, repeats) = self.find_repeats(batch);
                    let has_marks = batch.iter().any(|append| append.dedupe().is_some());
                    let first = number + 1;
                    match self.commit(&batch, &repeats, first) {
                        Ok(()) => {
                            number += repeats.iter().filter(|repeat| repeat.is_none()).count() as u64;
                            self.store.last.send_replace(number);
                            // By a task of the runtime: from here each path would have to be woken across threads.
                            runtime.spawn(async move {
                                for (append, repeat) in batch.into_iter().zip(repeats) {
                                    append.settle(Ok(repeat));
                                }
                            });
                            if has_marks {
                                self.store.marks().flush_if_many(now());
                            }
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
        }
    }

    /// For each job the first one's id, if it is a repeat. Jobs of which that can't be told are refused.
    fn find_repeats(&self, batch: Vec<Append>) -> (Vec<Append>, Vec<Option<Uuid>>) {
        if batch.iter().all(|append| append.dedupe().is_none()) {
            let none = vec![None; batch.len()];
            return (batch, none);
        }
        let now = now();
        let marks: Vec<_> = batch.iter().map(|append| Mark::of(append, now)).collect();
        let found = self.store.marks().find(&marks, now);
        match found {
            Ok(repeats) => (batch, repeats),
            Err(why) => {
                error!("{why}; jobs whose repeats are dropped are answered 503");
                let (marked, rest): (Vec<_>, Vec<_>) =
                    batch.into_iter().partition(|append| append.dedupe().is_some());
                refuse(marked, &QueueError::Unavailable(why));
                let none = vec![None; rest.len()];
                (rest, none)
            }
        }
    }

    /// Stores what of a batch is no repeat.
    fn commit(&mut self, batch: &[Append], repeats: &[Option<Uuid>], first: u64) -> io::Result<()> {
        let new =
            || batch.iter().zip(repeats).filter(|(_, repeat)| repeat.is_none()).map(|(append, _)| append);
        let bytes: usize = new().map(|append| append.document().len()).sum();
        let now = now();
        let mut records = Records::with_capacity(bytes + batch.len() * frame::HEADER_BYTES);
        let mut marked = Vec::new();
        for (number, append) in (first..).zip(new()) {
            match Mark::of(append, now) {
                None => records.job(Kind::Job, number, now, append.document()),
                Some((key, mark)) => {
                    let content = encode_marked(mark.until, &mark.content(key), append.document());
                    records.job(Kind::MarkedJob, number, now, &content);
                    marked.push((number, key, mark));
                }
            }
        }
        if records.len() > 0 {
            let (_, file) = self.store.files.active().ok_or(io::ErrorKind::NotFound)?;
            file.append(records)?;
            self.backlog_bytes += bytes as u64;
        }
        if !marked.is_empty() {
            let mut marks = self.store.marks();
            marked.into_iter().for_each(|(number, key, mark)| marks.add(number, key, mark));
        }
        Ok(())
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
        let Some((_, active)) = self.store.files.active() else { return };
        if self.next.is_none() && active.len() >= file_bytes / 2 {
            let store = Arc::clone(&self.store);
            // The last batch may begin just before the file is full.
            let room_bytes = file_bytes + BATCH_LIMIT_BYTES as u64;
            let create = move || store.files.create_ahead(room_bytes, |_| Ok(()));
            self.next = Some(runtime.spawn_blocking(create));
        }
        if active.len() < file_bytes {
            return;
        }
        let Some(next) = self.next.take_if(|next| next.is_finished()) else { return };
        match runtime.block_on(next) {
            Ok(Ok((generation, file))) => self.store.files.activate(generation, file),
            Ok(Err(error)) => warn!(%error, "the next file of the embedded queue can't be made yet"),
            Err(error) => error!(%error, "the next file of the embedded queue wasn't made"),
        }
    }

    /// The batch may or may not be in the file. Begins a new one as soon as one can be written, which says that the
    /// batch's numbers are void; refuses the batch, and what comes meanwhile. False if the lane closed first.
    fn recover(&mut self, runtime: &Handle, first: u64, batch: Vec<Append>, error: &io::Error) -> bool {
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
                    self.store.files.activate(generation, file);
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
    fn next_file(&mut self, runtime: &Handle, voids: &[(u64, u64)]) -> Result<(u32, Arc<Log>), OpenError> {
        let files = &self.store.files;
        if let Some(Ok(Ok((generation, file)))) = self.next.take().map(|next| runtime.block_on(next)) {
            file.note_voids(voids).map_err(|error| files.file_error(generation, &error))?;
            return Ok((generation, file));
        }
        files.create(|file| Ok(file.note_voids(voids)?))
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
