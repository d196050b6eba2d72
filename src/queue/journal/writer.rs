//! The journal's thread: takes what is waiting, commits it together, and says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redb::Database;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::batch;
use super::tables::{self, BATCHES, IDENTITY, LANES, Notes, RENUMBERED, RUNS};
use super::{Change, Identity, JournalError, Order, Recovered, Usage};
use crate::queue::Health;
use crate::queue::files::{Files, OpenError};

/// The pause between attempts to make a new file on a disk that fails.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Everything waiting is one transaction up to so many orders.
const GROUP_LIMIT: usize = 64;

/// Owns the files.
#[derive(Debug)]
pub struct JournalWriter {
    files: Arc<Files>,
    usage: Arc<Usage>,
    orders: mpsc::Receiver<Order>,
    health: watch::Sender<Health>,
    notes: Notes,
    /// What the older files hold.
    older: Older,
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
        files: Arc<Files>,
        usage: Arc<Usage>,
        orders: mpsc::Receiver<Order>,
        health: watch::Sender<Health>,
        lanes: u32,
    ) -> Result<(JournalWriter, Identity, Vec<Recovered>), OpenError> {
        let active = files.open_last()?;
        let mut notes = match &active {
            Some((generation, file)) => {
                Notes::read(file).map_err(|error| files.file_error(*generation, &error))?
            }
            None => Notes::default(),
        };
        if notes.producer.is_nil() {
            notes.producer = Uuid::new_v4();
        }
        notes.epoch += 1;
        if files.set_aside_count() > 0 {
            // The damaged file may have held later epochs. They grow by one for each start, seconds grow faster.
            let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
            notes.epoch = notes.epoch.max(now);
        }
        if let Some((generation, file)) = &active {
            files.activate(*generation, Arc::clone(file));
        }
        let opened: Vec<_> = files.open_all()?.into_iter().map(|(_, file)| file).collect();
        let older = &opened[..opened.len() - usize::from(active.is_some())];
        // With fewer lanes than before, the others may still hold jobs.
        let lanes = lanes.max(notes.lanes.keys().next_back().map_or(0, |last| last + 1));
        let read_error =
            |error: redb::Error| files.file_error(active.as_ref().map_or(0, |active| active.0), &error);
        let mut recovered = Vec::new();
        let mut of_older = Older::default();
        for lane in 0..lanes {
            let found = tables::find_lane(&opened, lane, &notes).map_err(read_error)?;
            usage.add(found.jobs, found.bytes);
            if found.jobs > 0 {
                info!(lane, jobs = found.jobs, "the outage journal holds jobs that Redis hasn't confirmed");
            }
            let found_older = tables::find_lane(older, lane, &notes).map_err(read_error)?;
            of_older.jobs += found_older.jobs;
            of_older.bytes += found_older.bytes;
            of_older.ends.extend(found_older.runs.last().map(|run| (lane, run.place + run.len)));
            let start = tables::recover(&found, lane, &notes);
            notes.lanes.insert(lane, (start.promised, start.next_place));
            recovered.push(start);
        }
        let identity = Identity { producer: notes.producer, epoch: notes.epoch };
        let mut writer = JournalWriter { files, usage, orders, health, notes, older: of_older };
        match active {
            Some((generation, file)) => {
                writer.write_identity(&file).map_err(|error| writer.files.file_error(generation, &error))?;
            }
            None => writer.begin_file()?,
        }
        Ok((writer, identity, recovered))
    }

    fn write_identity(&mut self, file: &Database) -> Result<(), redb::Error> {
        let transaction = file.begin_write()?;
        transaction.open_table(IDENTITY)?.insert(0, (self.notes.producer.as_u128(), self.notes.epoch))?;
        transaction.commit()?;
        Ok(())
    }

    fn begin_file(&mut self) -> Result<(), OpenError> {
        let (generation, file) = self.files.create(|file| self.notes.prepare(file))?;
        self.files.activate(generation, file);
        Ok(())
    }

    /// Commits what is asked for until the last lane is gone. Blocks its thread; `runtime` drives the waiting.
    pub fn run(mut self, runtime: &Handle) {
        let mut group = Vec::new();
        while runtime.block_on(self.orders.recv_many(&mut group, GROUP_LIMIT)) > 0 {
            let orders = std::mem::take(&mut group);
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
                    self.fail(orders, &error.to_string());
                    if !self.recover(runtime) {
                        return;
                    }
                }
            }
        }
    }

    /// One transaction and one fsync for all orders.
    fn commit(&mut self, orders: &[Order]) -> Result<Vec<u64>, redb::Error> {
        let (_, file) = self.files.active().ok_or(redb::Error::DatabaseClosed)?;
        let mut notes = self.notes.clone();
        let (mut added, mut removed) = ((0, 0), (0, 0));
        let mut epochs = Vec::with_capacity(orders.len());
        let mut resolved = Vec::new();
        let transaction = file.begin_write()?;
        {
            let mut batches = transaction.open_table(BATCHES)?;
            let mut runs = transaction.open_table(RUNS)?;
            for order in orders {
                match &order.change {
                    Change::Append { lane, run, promised, batches: bodies } => {
                        runs.insert((*lane, run.place), (run.first.epoch, run.first.seq))?;
                        for (place, body) in (run.place..).zip(bodies) {
                            let encoded = batch::encode(body);
                            added = (added.0 + body.len() as u64, added.1 + encoded.len() as u64);
                            batches.insert((*lane, place), encoded.as_slice())?;
                        }
                        notes.lanes.insert(*lane, (*promised, run.place + run.len));
                    }
                    Change::Renumber { lane, runs: anew, resolved_below, promised } => {
                        let gone = tables::remove_below(&mut batches, *lane, *resolved_below)?;
                        removed = (removed.0 + gone.0, removed.1 + gone.1);
                        resolved.push((*lane, *resolved_below));
                        transaction.open_table(RENUMBERED)?.insert(lane, resolved_below)?;
                        runs.retain_in((*lane, 0)..=(*lane, u64::MAX), |_, _| false)?;
                        for run in anew {
                            runs.insert((*lane, run.place), (run.first.epoch, run.first.seq))?;
                        }
                        note_promised(&mut notes, *lane, *promised);
                    }
                    Change::Forget { lane, resolved_below, promised } => {
                        let gone = tables::remove_below(&mut batches, *lane, *resolved_below)?;
                        removed = (removed.0 + gone.0, removed.1 + gone.1);
                        resolved.push((*lane, *resolved_below));
                        note_promised(&mut notes, *lane, *promised);
                    }
                    Change::NextEpoch => notes.epoch += 1,
                }
                epochs.push(notes.epoch);
            }
            transaction.open_table(IDENTITY)?.insert(0, (notes.producer.as_u128(), notes.epoch))?;
            let mut lanes = transaction.open_table(LANES)?;
            for (lane, (promised, next_place)) in &notes.lanes {
                lanes.insert(lane, (promised.epoch, promised.seq, *next_place))?;
            }
        }
        transaction.commit()?;
        self.notes = notes;
        self.usage.add(added.0, added.1);
        self.usage.subtract(removed.0, removed.1);
        for (lane, below) in resolved {
            if self.older.ends.get(&lane).is_some_and(|end| *end <= below) {
                self.older.ends.remove(&lane);
            }
        }
        Ok(epochs)
    }

    /// The orders may or may not be in the file. Their batches are refused, so their places are void.
    fn fail(&mut self, orders: Vec<Order>, why: &str) {
        self.health.send_replace(Health::Down(format!("the outage journal can't write: {why}")));
        if self.files.active().is_some() {
            self.files.retire_active();
            let ends = self.notes.lanes.iter().map(|(lane, (_, next_place))| (*lane, *next_place)).collect();
            self.older = Older { ends, jobs: self.usage.jobs(), bytes: self.usage.bytes() };
        }
        for order in orders {
            match &order.change {
                Change::Append { lane, run, .. } => {
                    self.notes.voids.insert((*lane, run.place), run.len);
                    let promised = self.notes.lanes.get(lane).map_or(Default::default(), |lane| lane.0);
                    self.notes.lanes.insert(*lane, (promised, run.place + run.len));
                }
                // A number may be on the disk already: it is given to nobody.
                Change::NextEpoch => self.notes.epoch += 1,
                Change::Renumber { .. } | Change::Forget { .. } => {}
            }
            let _ = order.done.send(Err(JournalError::Write(why.to_owned())));
        }
    }

    /// Begins a new file as soon as one can be written; refuses what comes meanwhile. False if the lanes went first.
    fn recover(&mut self, runtime: &Handle) -> bool {
        loop {
            match self.begin_file() {
                Ok(()) => {
                    info!("the outage journal writes again, in a new file");
                    self.health.send_replace(Health::Up);
                    return true;
                }
                Err(error) => {
                    warn!(%error, "a new file for the outage journal can't be made yet");
                    self.health.send_replace(Health::Down(error.to_string()));
                }
            }
            let until = tokio::time::Instant::now() + RETRY_PAUSE;
            loop {
                match runtime.block_on(tokio::time::timeout_at(until, self.orders.recv())) {
                    Ok(Some(order)) => self.fail(vec![order], "a new file can't be made yet"),
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
        self.usage.subtract(self.older.jobs, self.older.bytes);
        self.older = Older::default();
        let active = self.files.active().map(|(generation, _)| generation);
        for (generation, _) in self.files.opened().into_iter().filter(|(other, _)| Some(*other) != active) {
            match self.files.remove(generation) {
                Ok(()) => info!(generation, "an older file of the outage journal is empty and was removed"),
                Err(error) => warn!(%error, "an older file of the outage journal can't be removed"),
            }
        }
    }
}

fn note_promised(notes: &mut Notes, lane: u32, promised: crate::queue::producer::Position) {
    let next_place = notes.lanes.get(&lane).map_or(0, |lane| lane.1);
    notes.lanes.insert(lane, (promised, next_place));
}
