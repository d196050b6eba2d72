//! The journal's thread: takes what is waiting, commits it together, and says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redb::Database;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::batch;
use super::notes::Notes;
use super::tables::{self, BATCHES, Found};
use super::{Change, Identity, JournalError, Order, Recovered, Usage};
use crate::queue::Health;
use crate::queue::files::{Files, Moment, OpenError, Unfinished, guarded};
use crate::queue::producer::Position;

/// The pause between attempts to make a new file on a disk that fails.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Everything waiting is one transaction up to so many orders.
const GROUP_LIMIT: usize = 64;

/// Owns the files.
#[derive(Debug)]
pub struct JournalWriter {
    files: Arc<Files<Database>>,
    usage: Arc<Usage>,
    orders: mpsc::Receiver<Order>,
    health: watch::Sender<Health>,
    notes: Notes,
    /// What the older files hold.
    older: Older,
    /// The next file, made ahead. Without one there is room for notes alone.
    next: Option<Unfinished<Database>>,
    /// When it is next tried to make one.
    try_at: Instant,
}

/// Files that aren't written any more go when every lane is through with them.
#[derive(Debug, Default)]
struct Older {
    /// By lane: the first place behind them.
    ends: BTreeMap<u32, u64>,
    jobs: u64,
    bytes: u64,
}

impl JournalWriter {
    pub(super) fn open(
        files: Arc<Files<Database>>,
        usage: Arc<Usage>,
        orders: mpsc::Receiver<Order>,
        health: watch::Sender<Health>,
        lanes: u32,
    ) -> Result<(JournalWriter, Identity, Vec<Recovered>), OpenError> {
        let active = files.open_last()?;
        if let Some((generation, file)) = &active {
            files.activate(*generation, Arc::clone(file));
        }
        let opened: Vec<_> = files.open_all(Moment::Start)?.into_iter().map(|(_, file)| file).collect();
        let read_error =
            |error: redb::Error| files.file_error(active.as_ref().map_or(0, |active| active.0), &error);
        // The newest are in the last file, unless that is damaged.
        let mut notes: Option<Notes> = None;
        for file in &opened {
            let found = Notes::read(file).map_err(read_error)?;
            notes = notes.into_iter().chain(found).max_by_key(Notes::age);
        }
        let mut notes = notes.unwrap_or_default();
        if notes.producer.is_nil() {
            notes.producer = Uuid::new_v4();
        }
        notes.epoch += 1;
        if files.set_aside_count() > 0 {
            // The damaged file may have held later epochs. They grow by one for each start, seconds grow faster.
            let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
            notes.epoch = notes.epoch.max(now);
        }
        usage.note_damage(&files);
        let (older, last) = opened.split_at(opened.len() - usize::from(active.is_some()));
        // With fewer lanes than before, the others may still hold jobs.
        let lanes = lanes.max(notes.lanes.keys().next_back().map_or(0, |last| last + 1));
        let mut recovered = Vec::new();
        let mut of_older = Older::default();
        for lane in 0..lanes {
            let mut of_lane = notes.lanes.remove(&lane).unwrap_or_default();
            let mut found = Found::default();
            older.iter().try_for_each(|file| found.add(file, lane, &of_lane)).map_err(read_error)?;
            of_older.jobs += found.jobs;
            of_older.bytes += found.bytes;
            of_older.ends.extend((found.end() > 0).then(|| (lane, found.end())));
            last.iter().try_for_each(|file| found.add(file, lane, &of_lane)).map_err(read_error)?;
            usage.add(found.jobs, found.bytes);
            if found.jobs > 0 {
                info!(lane, jobs = found.jobs, "the outage journal holds jobs that Redis hasn't confirmed");
            }
            of_lane.runs.iter().flat_map(|run| run.place..run.place + run.len).for_each(|place| {
                let is_there = found.runs.iter().any(|run| (run.place..run.place + run.len).contains(&place));
                if !is_there && usage.note_lost(lane, place) {
                    error!(lane, place, "a batch of the outage journal is gone with a damaged file");
                }
            });
            of_lane.next_place = of_lane.next_place.max(found.end());
            of_lane.runs = found.runs;
            let (runs, next_place) = (of_lane.runs.clone(), of_lane.next_place);
            recovered.push(Recovered { runs, next_place, promised: of_lane.promised });
            notes.lanes.insert(lane, of_lane);
        }
        let identity = Identity { producer: notes.producer, epoch: notes.epoch };
        let (older, try_at) = (of_older, Instant::now());
        let mut writer = JournalWriter { files, usage, orders, health, notes, older, next: None, try_at };
        match active {
            Some((generation, file)) => {
                writer.write_notes(&file).map_err(|error| writer.files.file_error(generation, &error))?;
            }
            None => writer.begin_file()?,
        }
        writer.make_next();
        Ok((writer, identity, recovered))
    }

    fn write_notes(&mut self, file: &Database) -> Result<(), redb::Error> {
        self.notes.serial += 1;
        guarded(|| {
            let transaction = file.begin_write()?;
            self.notes.write(&transaction)?;
            transaction.commit()?;
            Ok(())
        })
    }

    fn begin_file(&mut self) -> Result<(), OpenError> {
        let next = match self.next.take() {
            Some(next) => next,
            None => self.files.make(tables::prepare)?,
        };
        // One that can't be written is of no use any more: the next attempt makes another one.
        let file = Arc::clone(&next.file);
        self.write_notes(&file).map_err(|error| self.files.file_error(next.generation, &error))?;
        let (generation, file) = self.files.finish(next)?;
        self.files.activate(generation, file);
        Ok(())
    }

    /// Makes a file ahead. New jobs are refused while there is none.
    fn make_next(&mut self) {
        match self.files.make(tables::prepare) {
            Ok(next) => {
                self.next = Some(next);
                if self.health.send_replace(Health::Up) != Health::Up {
                    info!("the outage journal takes jobs again");
                }
            }
            Err(error) => {
                warn!(%error, "the outage journal has no room for another file yet; it takes no jobs");
                self.health.send_replace(Health::Down(format!("the outage journal has no room: {error}")));
                self.try_at = Instant::now() + RETRY_PAUSE;
            }
        }
    }

    /// Commits what is asked for until the last lane is gone. Blocks its thread; `runtime` drives the waiting.
    pub fn run(mut self, runtime: &Handle) {
        while let Some(orders) = self.wait(runtime) {
            if orders.is_empty() {
                self.make_next();
                continue;
            }
            let (orders, refused) = orders.into_iter().partition(|order| self.takes(order));
            self.refuse(refused, "its disk is full");
            match self.commit(&orders) {
                Ok(epochs) => {
                    for (order, epoch) in orders.into_iter().zip(epochs) {
                        // A lane that ended no longer listens.
                        let _ = order.done.send(Ok(epoch));
                    }
                    self.remove_emptied();
                }
                Err(error) => {
                    error!(%error, "the outage journal couldn't commit");
                    if !self.recover(runtime, orders, &error.to_string()) {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for orders. None of them if it is time to make a file ahead; nothing when the last lane is gone.
    fn wait(&mut self, runtime: &Handle) -> Option<Vec<Order>> {
        let mut orders = Vec::new();
        let received = runtime.block_on(async {
            let receive = self.orders.recv_many(&mut orders, GROUP_LIMIT);
            match self.next {
                Some(_) => Ok(receive.await),
                None => tokio::time::timeout_at(self.try_at, receive).await,
            }
        });
        (received != Ok(0)).then_some(orders)
    }

    /// Whether there is room for it.
    fn takes(&self, order: &Order) -> bool {
        self.next.is_some() || !matches!(order.change, Change::Append { .. })
    }

    /// One transaction and one fsync for all orders.
    fn commit(&mut self, orders: &[Order]) -> Result<Vec<u64>, redb::Error> {
        if orders.is_empty() {
            return Ok(Vec::new());
        }
        let (_, file) = self.files.active().ok_or(redb::Error::DatabaseClosed)?;
        let mut notes = self.notes.clone();
        notes.serial += 1;
        let mut change = Outcome::default();
        let outcome = guarded(|| {
            let transaction = file.begin_write()?;
            {
                let mut batches = transaction.open_table(BATCHES)?;
                for order in orders {
                    change.apply(&order.change, &mut notes, &mut batches)?;
                }
            }
            notes.write(&transaction)?;
            transaction.commit()?;
            Ok(())
        });
        if let Err(error) = outcome {
            // The notes that may be on the disk are older than the next ones.
            self.notes.serial = notes.serial;
            return Err(error);
        }
        self.notes = notes;
        self.usage.add(change.added.0, change.added.1);
        self.usage.subtract(change.removed.0, change.removed.1);
        for (lane, below) in change.resolved {
            if self.older.ends.get(&lane).is_some_and(|end| *end <= below) {
                self.older.ends.remove(&lane);
            }
        }
        Ok(change.epochs)
    }

    fn refuse(&mut self, orders: Vec<Order>, why: &str) {
        self.note_refused(&orders);
        for order in orders {
            let _ = order.done.send(Err(JournalError::Write(why.to_owned())));
        }
    }

    /// These orders may or may not be in a file. The next notes don't name their batches, and are newer than any that do.
    fn note_refused(&mut self, orders: &[Order]) {
        for order in orders {
            match &order.change {
                Change::Append { lane, run, .. } => {
                    self.notes.lanes.entry(*lane).or_default().next_place = run.place + run.len;
                }
                // A number may be on the disk already: it is given to nobody.
                Change::NextEpoch => self.notes.epoch += 1,
                Change::Renumber { .. } | Change::Forget { .. } => {}
            }
        }
    }

    /// Takes the active file out of use.
    fn retire_active(&mut self) {
        if self.files.active().is_some() {
            self.files.retire_active();
            let lanes = self.notes.lanes.iter();
            let ends = lanes.filter_map(|(lane, notes)| Some((*lane, notes.runs.last()?)));
            let ends = ends.map(|(lane, run)| (lane, run.place + run.len)).collect();
            self.older = Older { ends, jobs: self.usage.jobs(), bytes: self.usage.bytes() };
        }
    }

    /// Goes over to the next file, as soon as there is one; refuses the orders, and what comes meanwhile. False if the
    /// lanes went first.
    fn recover(&mut self, runtime: &Handle, orders: Vec<Order>, why: &str) -> bool {
        self.health.send_replace(Health::Down(format!("the outage journal can't write: {why}")));
        self.retire_active();
        // Those who wait are told once the notes without their jobs are on the disk, if that can be done at once.
        self.note_refused(&orders);
        let mut waiting = orders;
        loop {
            let begun = self.begin_file();
            for order in waiting.drain(..) {
                let _ = order.done.send(Err(JournalError::Write(why.to_owned())));
            }
            match begun {
                Ok(()) => {
                    info!("the outage journal writes again, in a new file");
                    self.make_next();
                    return true;
                }
                Err(error) => {
                    warn!(%error, "a new file for the outage journal can't be made yet");
                    self.health.send_replace(Health::Down(error.to_string()));
                }
            }
            let until = Instant::now() + RETRY_PAUSE;
            loop {
                match runtime.block_on(async { tokio::time::timeout_at(until, self.orders.recv()).await }) {
                    Ok(Some(order)) => self.refuse(vec![order], "a new file can't be made yet"),
                    Ok(None) => return false,
                    Err(_) => break,
                }
            }
        }
    }

    /// Removes older files that hold nothing unresolved: every lane's batches lie in later ones.
    fn remove_emptied(&mut self) {
        if !self.older.ends.is_empty() {
            return;
        }
        if self.files.older_generations().is_empty() {
            return;
        }
        self.usage.subtract(self.older.jobs, self.older.bytes);
        self.older = Older::default();
        for generation in self.files.older_generations() {
            match self.files.remove(generation) {
                Ok(()) => info!(generation, "an older file of the outage journal is empty and was removed"),
                Err(error) => warn!(%error, "an older file of the outage journal can't be removed"),
            }
        }
    }
}

/// What a commit changes.
#[derive(Debug, Default)]
struct Outcome {
    epochs: Vec<u64>,
    /// Jobs and bytes.
    added: (u64, u64),
    removed: (u64, u64),
    /// By lane: below which place everything is resolved.
    resolved: Vec<(u32, u64)>,
}

impl Outcome {
    fn apply(
        &mut self,
        change: &Change,
        notes: &mut Notes,
        batches: &mut redb::Table<'_, (u32, u64), &[u8]>,
    ) -> Result<(), redb::Error> {
        match change {
            Change::Append { lane, run, promised, batches: bodies } => {
                for (behind, body) in (0..).zip(bodies) {
                    let position = Position { seq: run.first.seq + behind, ..run.first };
                    let place = run.place + behind;
                    let encoded = batch::encode(*lane, place, notes.producer, position, body);
                    self.added = (self.added.0 + body.len() as u64, self.added.1 + encoded.len() as u64);
                    batches.insert((*lane, place), encoded.as_slice())?;
                }
                let notes = notes.lanes.entry(*lane).or_default();
                notes.append(*run);
                notes.promised = *promised;
            }
            Change::Renumber { lane, runs, resolved_below, promised } => {
                self.resolve(*lane, *resolved_below, *promised, notes, batches)?;
                notes.lanes.entry(*lane).or_default().runs.clone_from(runs);
            }
            Change::Forget { lane, resolved_below, promised } => {
                self.resolve(*lane, *resolved_below, *promised, notes, batches)?;
            }
            Change::NextEpoch => notes.epoch += 1,
        }
        self.epochs.push(notes.epoch);
        Ok(())
    }

    fn resolve(
        &mut self,
        lane: u32,
        below: u64,
        promised: Position,
        notes: &mut Notes,
        batches: &mut redb::Table<'_, (u32, u64), &[u8]>,
    ) -> Result<(), redb::Error> {
        let notes = notes.lanes.entry(lane).or_default();
        let is_unresolved = |place| notes.position_at(place).is_some();
        let (jobs, bytes) = tables::remove_below(batches, lane, below, is_unresolved)?;
        self.removed = (self.removed.0 + jobs, self.removed.1 + bytes);
        self.resolved.push((lane, below));
        notes.resolve_below(below);
        notes.promised = promised;
        Ok(())
    }
}
