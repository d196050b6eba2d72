//! The lane's worker: takes jobs, freezes batches, sends them, and moves to the journal what takes too long.
//!
//! One loop: [`RedisWriter::work`] does whatever the state allows, then one event is waited for and handled. While
//! batches of the journal have to be sent first, new ones go there at once; so the order is kept.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::link::{Link, LinkEvent, finish};
use super::script::{self, Fence, Verdict};
use super::server::Server;
use super::socket::Socket;
use super::{Keys, Outage};
use crate::queue::journal::{self, Batch, Change, Document, Journal, JournalError, Recovered};
use crate::queue::lane::{Append, ENOUGH_JOBS, Waiter, Waiting};
use crate::queue::producer::{BEGINNING, Epoch, Loss, Position, Producer, Standing, ToSend};
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

/// After so many notes without a change the tail is dropped: a server that lags behind by so much has lost it anyway.
const TAIL_NOTES: u32 = 10;

/// How often what the server confirmed is noted on the disk, and what it has of the journal is removed from there.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// A full stream is tried again after the pause of so many attempts.
const FULL_PAUSE_ATTEMPTS: u32 = 4;

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
    /// A job is there, or the lane is closed.
    Job(bool),
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
                Event::Job(is_there) => self.is_closed = !is_there,
                Event::Deadline => {}
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
        let may_follow = is_sending && self.producer.in_flight() < WINDOW;
        let awaits_job = self.waiting.first_arrival().is_none() && !self.is_closed && !is_sending;
        tokio::select! {
            event = self.link.next(&self.keys), if self.compared.is_none() => Event::Link(event),
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
            is_there = next_jobs(&mut self.waiting, may_follow), if may_follow || awaits_job => Event::Job(is_there),
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
        } else if self.producer.has_backlog() || self.waiting.first_arrival().is_some_and(is_late) {
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

    fn has_room(&self) -> bool {
        match self.producer.in_flight() + self.unsent() {
            0 => true,
            on_their_way => on_their_way < WINDOW && self.waiting.count() >= ENOUGH_JOBS,
        }
    }

    fn unsent(&self) -> usize {
        self.producer.memory_len().saturating_sub(self.producer.in_flight())
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
        let is_due = self.producer.has_backlog() || self.is_in_trouble() || Instant::now() >= oldest.deadline;
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

    fn handle(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Rested => self.link = Link::start(&self.server, &self.keys, &self.field),
            LinkEvent::Connected(connection, marker) => {
                let mut settled = Vec::new();
                match self.producer.resume(marker, |waiters| settled.push(waiters)) {
                    Standing::InStep => self.note_numbers(connection),
                    Standing::NeedsFence => self.begin_epoch(connection),
                    Standing::Fenced => self.give_up(),
                }
                settled.into_iter().for_each(accept);
            }
            LinkEvent::Numbered(connection, number) => self.send_fence(connection, number),
            LinkEvent::Fenced(connection, Fence::Begun { prior, is_stream_empty }) => {
                let mut settled = Vec::new();
                let loss = self.producer.fenced(prior, is_stream_empty, |waiters| settled.push(waiters));
                settled.into_iter().for_each(accept);
                loss.into_iter().for_each(|loss| self.report_loss(loss));
                self.has_new_numbers = true;
                self.note_numbers(connection);
            }
            LinkEvent::Noted(connection) => {
                self.has_new_numbers = false;
                self.go_up(connection);
            }
            LinkEvent::Answered(Verdict::Appended(repeats)) => {
                if std::mem::take(&mut self.is_full) {
                    self.trouble = None;
                }
                if let Some(waiters) = self.producer.appended() {
                    accept_with(waiters, &repeats);
                }
            }
            LinkEvent::Answered(Verdict::OutOfStep) => {
                self.go_down("Redis doesn't follow the numbers; comparing".to_owned());
            }
            LinkEvent::Answered(Verdict::Full) => {
                self.is_full = true;
                self.go_down("the stream holds as many entries as it may (RETRIEVE_STREAM_LIMIT)".to_owned());
                // The connection is sound, so the next one would be made at once, and end the same way.
                self.link = Link::rest(FULL_PAUSE_ATTEMPTS);
            }
            LinkEvent::Fenced(_, Fence::Fenced) | LinkEvent::Answered(Verdict::Fenced) => self.give_up(),
            LinkEvent::Probed => {}
            LinkEvent::Broken(why) => self.go_down(why),
        }
    }

    fn go_up(&mut self, connection: Socket) {
        self.attempts = 0;
        // Only a batch shows whether there is room again.
        self.trouble = self.trouble.take().filter(|_| self.is_full);
        self.link = Link::up(connection);
    }

    fn go_down(&mut self, why: String) {
        self.metrics.redis_broken_connections.inc();
        self.trouble = Some(why);
        self.compared = None;
        self.link = Link::rest(self.attempts);
        self.attempts += 1;
    }

    fn give_up(&mut self) {
        self.attempts = 2;
        let why = "another gateway writes with a copy of this data folder; give each its own and start again";
        self.trouble = Some(why.to_owned());
        self.link = Link::Fenced;
    }

    /// Begins the epoch of this start, or the next one if that has begun already.
    fn begin_epoch(&mut self, connection: Socket) {
        let number = self.producer.epoch().number;
        match (self.producer.is_live(), self.journal.clone()) {
            (false, _) => self.send_fence(connection, number),
            (true, None) => self.send_fence(connection, number + 1),
            (true, Some(journal)) => {
                self.link = Link::Numbering(Box::pin(async move {
                    journal.change(Change::NextEpoch).await.map(|number| (connection, number))
                }));
            }
        }
    }

    fn send_fence(&mut self, connection: Socket, number: u64) {
        let epoch = Epoch { number, nonce: self.nonce };
        self.producer.begin_epoch(epoch);
        self.link = Link::fence(connection, script::fence(&self.keys, &self.field, epoch));
    }

    /// Goes up, once the numbers are on the disk.
    fn note_numbers(&mut self, connection: Socket) {
        let Some(journal) = self.journal.clone().filter(|_| self.has_new_numbers) else {
            return self.go_up(connection);
        };
        let change = Change::Renumber {
            lane: self.keys.lane,
            runs: self.producer.runs().copied().collect(),
            resolved_below: self.producer.resolved_below(),
            promised: self.producer.promised(),
        };
        self.link = Link::Noting(Box::pin(async move { journal.change(change).await.map(|_| connection) }));
    }

    fn report_loss(&self, loss: Loss) {
        self.metrics.redis_losses.inc();
        let Loss { reached, confirmed, is_uncertain } = loss;
        let stream = &self.keys.stream;
        if is_uncertain {
            error!(%stream, "Redis lost its note of what this gateway had written, not the jobs; nothing is sent again");
        } else {
            error!(
                %stream, ?reached, ?confirmed,
                "Redis lost jobs that it had confirmed (a failover, or a restart from an older state)"
            );
        }
    }

    fn written(&mut self, result: Result<u64, JournalError>) {
        match result {
            Ok(_) => self.producer.written().into_iter().for_each(accept),
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
            self.quiet_notes += 1;
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

    fn measure(&mut self) {
        let Some(journal) = &self.journal else { return };
        self.metrics.journal_jobs.set(journal.usage().jobs());
        self.metrics.journal_bytes.set(journal.usage().bytes());
        self.metrics.journal_damaged_files.set(journal.usage().damaged_files());
        self.metrics.journal_lost_batches.set(journal.usage().lost_batches());
        self.backlog_since = match (journal.usage().jobs(), self.backlog_since) {
            (0, _) => None,
            (_, since) => since.or_else(|| Some(Instant::now())),
        };
        let age = self.backlog_since.map_or(0, |since| since.elapsed().as_secs());
        self.metrics.journal_age_seconds.set(age);
    }

    /// Tells readiness, and the log when something changes.
    fn report(&mut self) {
        self.measure();
        let health = match (&self.trouble, self.journal.as_ref().map(Journal::health)) {
            (None, _) if !self.producer.has_backlog() => Health::Up,
            (None, None) => Health::Up,
            (Some(why), None) => Health::Down(why.clone()),
            (Some(why), _) if matches!(self.link, Link::Fenced) => Health::Down(why.clone()),
            (why, Some(Health::Up)) => Health::Journaling(
                why.clone().unwrap_or_else(|| "Redis is back; the journal is being sent to it".to_owned()),
            ),
            (why, Some(Health::Down(journal) | Health::Journaling(journal))) => {
                Health::Down(format!("{}; {journal}", why.as_deref().unwrap_or("Redis is back")))
            }
        };
        self.health.send_if_modified(|current| {
            let changed = *current != health;
            if changed {
                let stream = &self.keys.stream;
                match &health {
                    Health::Up => info!(%stream, "Redis takes jobs"),
                    Health::Journaling(why) => warn!(%stream, %why, "jobs go to the outage journal"),
                    Health::Down(why) => warn!(%stream, %why, "webhooks are answered 503"),
                }
                *current = health;
            }
            changed
        });
    }
}

fn accept(waiters: Waiters) {
    accept_with(waiters, &[]);
}

/// Some jobs may be repeats: by their place in the batch, and the id of the first one.
fn accept_with(waiters: Waiters, repeats: &[(usize, Uuid)]) {
    for (place, path) in waiters.paths.into_iter().enumerate() {
        let first = repeats.iter().find(|(repeat, _)| *repeat == place).map(|(_, first)| *first);
        path.settle(Ok(first));
    }
}

/// Waits for any job, or for enough of them for a batch that follows another. False if the lane is closed.
async fn next_jobs(waiting: &mut Waiting, may_follow: bool) -> bool {
    if may_follow {
        waiting.enough().await;
        return true;
    }
    waiting.first().await.is_some()
}
