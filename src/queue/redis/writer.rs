//! The lane's worker: takes jobs, freezes batches, sends them, and moves to the journal what takes too long.
//!
//! One loop: [`RedisWriter::work`] does whatever the state allows, then one event is waited for and handled. While
//! batches of the journal have to be sent first, new ones go there at once; so the order is kept.

mod linking;
mod report;

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::link::{Link, LinkEvent, finish};
use super::script;
use super::server::Server;
use super::{Keys, Outage};
use crate::queue::journal::{self, Batch, Change, Document, Journal, JournalError, Recovered};
use crate::queue::lane::{Append, ENOUGH_JOBS, Waiter, Waiting};
use crate::queue::producer::{BEGINNING, Epoch, Position, Producer, ToSend};
use crate::queue::{Health, QueueError, time_for};
use crate::telemetry::queue::QueueMetrics;

/// How many batches are on their way at the most.
const WINDOW: usize = 2;

/// How many batches one write to the journal takes at the most.
const WRITE_LIMIT_BATCHES: usize = 16;

/// How many batches one read from the journal asks for.
const READ_AHEAD: u64 = 8;

/// Confirmed batches are kept up to so many bytes, for a server that comes back without them.
const TAIL_LIMIT_BYTES: usize = 8 << 20;

/// After so many notes without a change, from a server that is there, the tail is dropped: a server that lags behind by so
/// much has lost it anyway.
const TAIL_NOTES: u32 = 10;

/// How often what the server confirmed is noted on the disk, and what it has of the journal is removed from there.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// A change of the journal that is on its way.
type Changing = BoxFuture<'static, Result<u64, JournalError>>;

/// Batches that are read from the journal, and the place of the first.
type Reading = BoxFuture<'static, (u64, Result<Vec<Batch>, JournalError>)>;

/// Those who wait for a batch.
struct Waiters {
    paths: Vec<Waiter>,
    /// When they have waited too long.
    deadline: Instant,
}

impl Waiters {
    fn accept(self) {
        self.accept_with(&[]);
    }

    /// Some jobs may be repeats: by their place in the batch, and the id of the first one.
    fn accept_with(self, repeats: &[(usize, Uuid)]) {
        for (place, path) in self.paths.into_iter().enumerate() {
            let first = repeats.iter().find(|(repeat, _)| *repeat == place).map(|(_, first)| *first);
            path.settle(Ok(first));
        }
    }
}

/// The worker of one lane.
pub struct RedisWriter {
    server: Server,
    keys: Keys,
    waiting: Waiting,
    is_closed: bool,
    producer: Producer<Batch, Waiters>,
    /// The producer's field among the markers.
    field: String,
    nonce: u64,
    settle_after: Duration,
    link: Link,
    /// What the server answered about its numbers while batches were being written to the journal, until that is done.
    compared: Option<LinkEvent>,
    /// Attempts to connect that failed in a row.
    attempts: u32,
    /// Why nothing can be sent. None when it can.
    trouble: Option<String>,
    /// The stream was full when it was last written to.
    is_full: bool,
    journal: Option<Journal>,
    writing: Option<Changing>,
    reading: Option<Reading>,
    noting: Option<Changing>,
    note_at: Instant,
    /// What was noted last, and how often nothing had changed since.
    noted: (u64, Position),
    quiet_notes: u32,
    /// Everything was numbered anew, and that isn't on the disk yet: nothing may be sent.
    has_new_numbers: bool,
    backlog_since: Option<Instant>,
    health: watch::Sender<Health>,
    metrics: QueueMetrics,
}

impl fmt::Debug for RedisWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisWriter").field("stream", &self.keys.stream).finish_non_exhaustive()
    }
}

/// What the loop waits for.
enum Event {
    Link(LinkEvent),
    /// A job is there, or enough of them for a batch that follows another.
    Jobs,
    /// The lane is closed, and no job is left in it.
    Closed,
    /// Somebody has waited too long.
    Deadline,
    Written(Result<u64, JournalError>),
    Read(u64, Result<Vec<Batch>, JournalError>),
    Noted(Result<u64, JournalError>),
}

impl RedisWriter {
    pub(super) fn new(
        waiting: Waiting,
        server: Server,
        keys: Keys,
        settle_after: Duration,
        outage: Option<&Outage>,
        health: watch::Sender<Health>,
        metrics: QueueMetrics,
    ) -> RedisWriter {
        let nonce = Uuid::new_v4().as_u64_pair().1;
        let (journal, identity, recovered) = match outage {
            Some(outage) => (Some(outage.journal.clone()), Some(outage.identity), &outage.recovered[..]),
            None => (None, None, &[][..]),
        };
        // Without a folder to remember it, each start is a producer of its own.
        let producer_id = identity.map_or_else(Uuid::new_v4, |identity| identity.producer);
        let epoch = Epoch { number: identity.map_or(1, |identity| identity.epoch), nonce };
        let field = format!("{}.{}", producer_id.simple(), keys.lane);
        let of_lane = usize::try_from(keys.lane).ok().and_then(|lane| recovered.get(lane));
        let recovered: Recovered = of_lane.cloned().unwrap_or_default();
        let link = Link::start(&server, &keys, &field);
        RedisWriter {
            producer: Producer::new(
                epoch,
                recovered.promised,
                recovered.runs,
                recovered.next_place,
                TAIL_LIMIT_BYTES,
            ),
            server,
            keys,
            waiting,
            is_closed: false,
            field,
            nonce,
            settle_after,
            link,
            compared: None,
            attempts: 0,
            trouble: Some("not connected yet".to_owned()),
            is_full: false,
            journal,
            writing: None,
            reading: None,
            noting: None,
            note_at: Instant::now() + NOTE_INTERVAL,
            noted: (0, BEGINNING),
            quiet_notes: 0,
            has_new_numbers: false,
            backlog_since: None,
            health,
            metrics,
        }
    }

    /// Works until the lane is closed and every path has its answer. What the journal holds stays there for the next
    /// start.
    pub async fn run(mut self) {
        self.report();
        loop {
            self.work();
            if self.is_done() {
                break;
            }
            match self.next_event().await {
                // Numbers aren't compared while some are on their way to the disk.
                Event::Link(event) if event.compares() && self.producer.is_writing() => {
                    self.compared = Some(event)
                }
                Event::Link(event) => self.handle(event),
                Event::Closed => self.is_closed = true,
                Event::Jobs | Event::Deadline => {}
                Event::Written(result) => {
                    self.written(result);
                    self.compared.take().into_iter().for_each(|event| self.handle(event));
                }
                Event::Read(place, result) => self.read(place, result),
                Event::Noted(result) => self.after_note(result),
            }
            self.report();
        }
        if let Some(change) = self.note() {
            let _ = change.await;
        }
    }

    fn is_done(&self) -> bool {
        self.is_closed
            && self.waiting.first_arrival().is_none()
            && self.producer.oldest_waiters().is_none()
            && self.noting.is_none()
    }

    async fn next_event(&mut self) -> Event {
        let deadline = self.deadline();
        // While a batch is on its way, a few jobs can wait unseen: the batch's own deadline comes first.
        let is_sending = self.can_send() && self.producer.in_flight() > 0 && !self.producer.has_backlog();
        let may_follow = is_sending && !self.must_wait() && self.on_their_way() < WINDOW;
        let awaits_job = self.waiting.first_arrival().is_none() && !self.is_closed && !is_sending;
        tokio::select! {
            event = self.link.next(&self.keys, &self.field), if self.compared.is_none() => Event::Link(event),
            result = finish(&mut self.writing) => {
                self.writing = None;
                Event::Written(result)
            }
            (place, result) = finish(&mut self.reading) => {
                self.reading = None;
                Event::Read(place, result)
            }
            result = finish(&mut self.noting) => {
                self.noting = None;
                Event::Noted(result)
            }
            event = next_jobs(&mut self.waiting, may_follow), if may_follow || awaits_job => event,
            () = tokio::time::sleep_until(deadline) => Event::Deadline,
        }
    }

    /// When there is something to do though nothing happens.
    fn deadline(&self) -> Instant {
        let first = self.waiting.first_arrival().map(|arrived| arrived + self.settle_after);
        let oldest = self.producer.oldest_waiters().map(|waiters| waiters.deadline);
        let waiters = first.into_iter().chain(oldest).min().filter(|_| !self.must_wait());
        let note = self.note_at.max(Instant::now() + Duration::from_millis(1));
        waiters.map_or(note, |waiters| waiters.min(note))
    }

    /// Does what the state allows.
    fn work(&mut self) {
        self.take_jobs();
        self.move_to_journal();
        self.send();
        if Instant::now() >= self.note_at {
            self.note_at = Instant::now() + NOTE_INTERVAL;
            if self.noting.is_none() {
                self.noting = self.note();
            }
        }
    }

    /// Takes waiting jobs where they can be sent at once, or have to go to the journal, or have waited too long.
    fn take_jobs(&mut self) {
        if self.must_wait() {
            return;
        }
        let is_late = |first: Instant| self.is_in_trouble() || Instant::now() >= first + self.settle_after;
        if self.can_send() && !self.producer.has_backlog() {
            while self.has_room() {
                let Some(batch) = self.waiting.take_batch() else { return };
                self.freeze(batch);
            }
        } else if self.must_follow_backlog() || self.waiting.first_arrival().is_some_and(is_late) {
            for _ in 0..WRITE_LIMIT_BATCHES {
                let Some(batch) = self.waiting.take_batch() else { return };
                if self.open_journal().is_some() {
                    self.freeze(batch);
                } else {
                    self.refuse(batch);
                }
            }
        }
    }

    /// One write at a time; and none while new numbers are on their way to the disk, which must be there first. What the
    /// server answered comes before the next write, or a load without a pause would keep the gateway from reconnecting.
    fn must_wait(&self) -> bool {
        self.producer.is_writing()
            || self.compared.is_some()
            || matches!(self.link, Link::Numbering(..) | Link::Noting(..))
    }

    /// Whether there is no hope to send anything before a deadline: more than one attempt has failed.
    fn is_in_trouble(&self) -> bool {
        self.attempts > 1
    }

    /// The journal, if it takes jobs now.
    fn open_journal(&self) -> Option<&Journal> {
        let is_fenced = matches!(self.link, Link::Fenced);
        self.journal.as_ref().filter(|journal| !is_fenced && journal.takes_jobs())
    }

    fn can_send(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// Whether what comes now has to go behind older batches, into the journal. Where none takes it, it can wait while those
    /// are being sent.
    fn must_follow_backlog(&self) -> bool {
        self.producer.has_backlog() && (self.open_journal().is_some() || !self.can_send())
    }

    fn has_room(&self) -> bool {
        match self.on_their_way() {
            0 => true,
            on_their_way => on_their_way < WINDOW && self.waiting.count() >= ENOUGH_JOBS,
        }
    }

    /// How many batches are numbered and not resolved.
    fn on_their_way(&self) -> usize {
        self.producer.memory_len().max(self.producer.in_flight())
    }

    fn freeze(&mut self, batch: Vec<Append>) {
        let mut documents = Vec::with_capacity(batch.len());
        let mut paths = Vec::with_capacity(batch.len());
        let mut size_bytes = 0;
        let mut oldest = Instant::now();
        for append in batch {
            let (bytes, dedupe, waiter) = append.into_parts();
            size_bytes += bytes.len();
            oldest = oldest.min(waiter.arrived());
            documents.push(Document { bytes, dedupe: dedupe.map(|dedupe| (waiter.id(), dedupe)) });
            paths.push(waiter);
        }
        let deadline = oldest + time_for(self.settle_after, size_bytes);
        self.producer.freeze(documents.into(), size_bytes, Waiters { paths, deadline });
    }

    fn refuse(&self, batch: Vec<Append>) {
        let error = self.refusal();
        batch.into_iter().for_each(|append| append.settle(Err(error.clone())));
    }

    fn refusal(&self) -> QueueError {
        let trouble = self.trouble.as_deref().unwrap_or("Redis didn't confirm in time");
        QueueError::Unavailable(match self.journal.as_ref().map(Journal::health) {
            None | Some(Health::Up) => trouble.to_owned(),
            Some(Health::Journaling(why) | Health::Down(why)) => format!("{trouble}; {why}"),
        })
    }

    /// Batches that wait too long, or stand behind others in the journal, go there as well.
    fn move_to_journal(&mut self) {
        let Some(oldest) = self.producer.oldest_waiters() else { return };
        let is_due = self.must_follow_backlog() || self.is_in_trouble() || Instant::now() >= oldest.deadline;
        if self.must_wait() || !is_due {
            return;
        }
        match self.open_journal().cloned() {
            Some(journal) => {
                let Some((run, batches)) = self.producer.begin_writing() else { return };
                let change =
                    Change::Append { lane: self.keys.lane, run, promised: self.producer.promised(), batches };
                self.writing = Some(Box::pin(async move { journal.change(change).await }));
            }
            None => self.refuse_unresolved(),
        }
    }

    fn refuse_unresolved(&mut self) {
        let refusal = self.refusal();
        for (waiters, was_sent) in self.producer.refuse(&Batch::from([])) {
            // What was sent before may have been executed, or may be still.
            let error = if was_sent { &QueueError::Unconfirmed } else { &refusal };
            waiters.paths.into_iter().for_each(|path| path.settle(Err(error.clone())));
        }
    }

    /// Sends what is next, up to the window.
    fn send(&mut self) {
        let Link::Up(up) = &mut self.link else { return };
        while self.producer.in_flight() < WINDOW {
            match self.producer.to_send() {
                ToSend::Nothing => return,
                ToSend::Fetch { place, len } => {
                    if let (Some(journal), None) = (self.journal.clone(), &self.reading) {
                        let (lane, len) = (self.keys.lane, len.min(READ_AHEAD));
                        self.reading =
                            Some(Box::pin(async move { (place, journal.read(lane, place, len).await) }));
                    }
                    return;
                }
                ToSend::Batch { seq, body } => {
                    let settings = self.server.settings();
                    let batch = script::Batch {
                        producer: &self.field,
                        epoch: self.producer.epoch(),
                        seq,
                        limit: settings.stream_limit,
                        jobs: body,
                        may_split: settings.may_split(),
                    };
                    up.send(|out| script::append(out, &self.keys, &batch));
                    self.producer.sent();
                }
            }
        }
    }

    fn written(&mut self, result: Result<u64, JournalError>) {
        match result {
            Ok(_) => self.producer.written().into_iter().for_each(Waiters::accept),
            Err(error) => {
                self.refuse_unresolved();
                warn!(%error, "jobs were answered 503");
            }
        }
    }

    fn read(&mut self, place: u64, result: Result<Vec<Batch>, JournalError>) {
        match result {
            Ok(batches) => {
                let sized = batches.into_iter().map(|batch| {
                    let size_bytes = journal::size_bytes(&batch);
                    (batch, size_bytes)
                });
                self.producer.supply(place, sized);
            }
            Err(error) => self.go_down(error.to_string()),
        }
    }

    /// Notes what the server confirmed, if that changed.
    fn note(&mut self) -> Option<Changing> {
        let (resolved_below, promised) = (self.producer.resolved_below(), self.producer.promised());
        if self.noted == (resolved_below, promised) {
            // While a server is away it doesn't replicate what it confirmed last; what comes back may lack it.
            self.quiet_notes = if self.can_send() { self.quiet_notes + 1 } else { 0 };
            if self.quiet_notes == TAIL_NOTES {
                self.producer.forget_tail();
            }
            return None;
        }
        self.quiet_notes = 0;
        let journal = self.journal.clone().filter(|_| self.producer.is_live())?;
        self.noted = (resolved_below, promised);
        let change = Change::Forget { lane: self.keys.lane, resolved_below, promised };
        Some(Box::pin(async move { journal.change(change).await }))
    }

    fn after_note(&self, result: Result<u64, JournalError>) {
        if let Err(error) = result {
            warn!(%error, "what Redis confirmed couldn't be noted");
        }
    }
}

/// Waits for any job, or for enough of them for a batch that follows another.
async fn next_jobs(waiting: &mut Waiting, may_follow: bool) -> Event {
    if may_follow {
        waiting.enough().await;
        return Event::Jobs;
    }
    waiting.first().await.map_or(Event::Closed, |_| Event::Jobs)
}
