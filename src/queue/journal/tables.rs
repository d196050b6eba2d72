//! The journal's tables in one file, and what is read from all of them.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};
use tracing::error;
use uuid::Uuid;

use super::batch::{self, Batch};
use super::{JournalError, Recovered};
use crate::queue::files::Files;
use crate::queue::producer::{Position, Run};

/// From lane and place to a batch.
pub const BATCHES: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("batches");
/// From lane and place of a first batch to its position: epoch and number.
pub const RUNS: TableDefinition<'_, (u32, u64), (u64, u64)> = TableDefinition::new("runs");
/// From lane to what the server must have reached (epoch and number) and the first place that wasn't given away.
pub const LANES: TableDefinition<'_, u32, (u64, u64, u64)> = TableDefinition::new("lanes");
/// From lane to the place below which everything was resolved when all of it was numbered anew; what older files say of
/// numbers doesn't count any more.
pub const RENUMBERED: TableDefinition<'_, u32, u64> = TableDefinition::new("renumbered");
/// From lane and place to how many places from there on hold nothing, whatever an older file says.
pub const VOIDS: TableDefinition<'_, (u32, u64), u64> = TableDefinition::new("voids");
/// The producer's id and its last epoch, under the key 0.
pub const IDENTITY: TableDefinition<'_, u8, (u128, u64)> = TableDefinition::new("identity");

/// What is carried from file to file.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// The producer's id; nil before the first start.
    pub producer: Uuid,
    /// Its last epoch.
    pub epoch: u64,
    /// By lane: what the server must have reached, and the next place.
    pub lanes: BTreeMap<u32, (Position, u64)>,
    /// By lane and place: how many places hold nothing.
    pub voids: BTreeMap<(u32, u64), u64>,
}

impl Notes {
    /// Reads what a file says.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(file: &Database) -> Result<Notes, redb::Error> {
        let transaction = file.begin_read()?;
        let mut notes = Notes::default();
        if let Some(identity) = transaction.open_table(IDENTITY)?.get(0)? {
            let (producer, epoch) = identity.value();
            notes.producer = Uuid::from_u128(producer);
            notes.epoch = epoch;
        }
        for lane in transaction.open_table(LANES)?.iter()? {
            let (lane, value) = lane?;
            let (epoch, seq, next_place) = value.value();
            notes.lanes.insert(lane.value(), (Position { epoch, seq }, next_place));
        }
        for void in transaction.open_table(VOIDS)?.iter()? {
            let (place, len) = void?;
            notes.voids.insert(place.value(), len.value());
        }
        Ok(notes)
    }

    /// Makes the tables of a new file, and writes everything into it.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn prepare(&self, file: &Database) -> Result<(), redb::Error> {
        let transaction = file.begin_write()?;
        transaction.open_table(BATCHES)?;
        transaction.open_table(RUNS)?;
        transaction.open_table(RENUMBERED)?;
        transaction.open_table(IDENTITY)?.insert(0, (self.producer.as_u128(), self.epoch))?;
        let mut lanes = transaction.open_table(LANES)?;
        for (lane, (promised, next_place)) in &self.lanes {
            lanes.insert(lane, (promised.epoch, promised.seq, *next_place))?;
        }
        drop(lanes);
        let mut voids = transaction.open_table(VOIDS)?;
        for (place, len) in &self.voids {
            voids.insert(place, len)?;
        }
        drop(voids);
        transaction.commit()?;
        Ok(())
    }

    fn is_void(&self, lane: u32, place: u64) -> bool {
        let before = self.voids.range((lane, 0)..=(lane, place)).next_back();
        before.is_some_and(|((_, first), len)| place - first < *len)
    }
}

/// What a file holds of a lane.
#[derive(Debug, Default)]
pub struct Found {
    /// What is recovered, without notes.
    pub runs: Vec<Run>,
    /// How many jobs.
    pub jobs: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Reads what all files hold of a lane, oldest file first.
///
/// # Errors
/// A file can't be read.
pub fn find_lane(files: &[std::sync::Arc<Database>], lane: u32, notes: &Notes) -> Result<Found, redb::Error> {
    let mut found = Found::default();
    let mut starts: BTreeMap<u64, Position> = BTreeMap::new();
    let mut resolved_below = 0;
    for file in files {
        let transaction = file.begin_read()?;
        if let Some(below) = transaction.open_table(RENUMBERED)?.get(lane)? {
            starts.clear();
            resolved_below = below.value();
        }
        for row in transaction.open_table(RUNS)?.range((lane, 0)..=(lane, u64::MAX))? {
            let (place, position) = row?;
            let (epoch, seq) = position.value();
            starts.insert(place.value().1, Position { epoch, seq });
        }
    }
    for file in files {
        for row in file.begin_read()?.open_table(BATCHES)?.range((lane, 0)..=(lane, u64::MAX))? {
            let (place, value) = row?;
            let place = place.value().1;
            // A place under no run was resolved when everything was numbered anew.
            let Some((start, first)) = starts.range(..=place).next_back() else { continue };
            if place < resolved_below || notes.is_void(lane, place) {
                continue;
            }
            let position = Position { epoch: first.epoch, seq: first.seq + (place - start) };
            match found.runs.last_mut() {
                Some(run) if run.is_followed_by(position, place) => run.len += 1,
                _ => found.runs.push(Run { first: position, place, len: 1 }),
            }
            found.bytes += value.value().len() as u64;
            found.jobs += batch::decode(value.value()).map_or(0, |batch| batch.len() as u64);
        }
    }
    Ok(found)
}

/// What a lane starts from.
pub fn recover(found: &Found, lane: u32, notes: &Notes) -> Recovered {
    let (promised, next_place) = notes.lanes.get(&lane).copied().unwrap_or_default();
    let end = found.runs.last().map_or(0, |run| run.place + run.len);
    Recovered { runs: found.runs.clone(), next_place: next_place.max(end), promised }
}

/// Removes the batches and runs of a lane that lie below a place; how many jobs and bytes there were.
///
/// # Errors
/// The file can't be written.
pub fn remove_below(
    batches: &mut Table<'_, (u32, u64), &[u8]>,
    lane: u32,
    below: u64,
) -> Result<(u64, u64), redb::Error> {
    let (mut jobs, mut bytes) = (0, 0);
    for row in batches.extract_from_if((lane, 0)..(lane, below), |_, _| true)? {
        let (_, value) = row?;
        bytes += value.value().len() as u64;
        jobs += batch::decode(value.value()).map_or(0, |batch| batch.len() as u64);
    }
    Ok((jobs, bytes))
}

/// Reads batches behind each other, from whichever file holds them.
///
/// # Errors
/// A file can't be read, or a batch is nowhere.
pub fn read_batches(
    files: &Files,
    lane: u32,
    place: u64,
    len: u64,
    limit_bytes: usize,
) -> Result<Vec<Batch>, JournalError> {
    let failed = |error: &dyn std::fmt::Display| JournalError::Read(error.to_string());
    let opened = files.open_all().map_err(|error| failed(&error))?;
    let mut batches = Vec::new();
    let mut bytes = 0;
    for place in place..place + len {
        let mut found = None;
        for (_, file) in opened.iter().rev() {
            let read = || -> Result<Option<Vec<u8>>, redb::Error> {
                let table = file.begin_read()?.open_table(BATCHES)?;
                Ok(table.get((lane, place))?.map(|value| value.value().to_vec()))
            };
            found = read().map_err(|error| failed(&error))?;
            if found.is_some() {
                break;
            }
        }
        let Some(found) = found else {
            return Err(JournalError::Read(format!("the batch at {place} is missing")));
        };
        bytes += found.len();
        if bytes > limit_bytes && !batches.is_empty() {
            break;
        }
        batches.push(batch::decode(&found).unwrap_or_else(|| {
            error!(lane, place, "a batch of the outage journal is damaged; its jobs are lost");
            Batch::from([])
        }));
    }
    Ok(batches)
}
