//! The journal's batches in one file, and what is read from all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, Table, TableDefinition};
use tracing::error;
use uuid::Uuid;

use super::batch::{self, Batch, Label};
use super::notes::{LaneNotes, Notes};
use super::{JournalError, Usage};
use crate::queue::files::{Files, Loss, Moment, prepare_with};
use crate::queue::frame::{self, Found as FoundFrame, Frames, Kind};
use crate::queue::producer::{BEGINNING, Run};

/// From lane and place to a batch.
pub const BATCHES: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("batches");

/// The notes' room in a new file.
const SPARE_BYTES: usize = 256 << 10;

/// Makes the tables of a new file, with room for notes.
///
/// # Errors
/// The file can't be written.
pub fn prepare(file: &Database) -> Result<(), redb::Error> {
    prepare_with(file, SPARE_BYTES, |transaction| Ok(transaction.open_table(BATCHES).map(drop)?))
}

/// What files hold of a lane, oldest file first.
#[derive(Debug, Default)]
pub struct Found {
    /// What is unresolved and there.
    pub runs: Vec<Run>,
    /// How many jobs.
    pub jobs: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Found {
    /// Adds what the next file holds. A place that the notes don't know yet is taken with the number that it was written
    /// with: the notes that named it were damaged.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn add(&mut self, file: &Database, lane: u32, notes: &LaneNotes) -> Result<(), redb::Error> {
        for row in file.begin_read()?.open_table(BATCHES)?.range((lane, 0)..=(lane, u64::MAX))? {
            let (place, value) = row?;
            let place = place.value().1;
            let label = || {
                let header = frame::header(value.value())?;
                batch::label(&header, &value.value()[frame::HEADER_BYTES..])
            };
            let position = match notes.position_at(place) {
                None if place >= notes.next_place => label().map(|label| label.position),
                position => position,
            };
            // A batch lies in one file.
            let Some(position) = position.filter(|_| place >= self.end()) else { continue };
            match self.runs.last_mut() {
                Some(run) if run.is_followed_by(position, place) => run.len += 1,
                _ => self.runs.push(Run { first: position, place, len: 1 }),
            }
            self.bytes += value.value().len() as u64;
            self.jobs += jobs_of(value.value());
        }
        Ok(())
    }

    /// The place behind the last one that was found.
    pub fn end(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.place + run.len)
    }
}

/// How many jobs a batch has, by its header.
fn jobs_of(encoded: &[u8]) -> u64 {
    frame::header(encoded).map_or(0, |header| u64::from(batch::place_of(&header).2))
}

/// Removes the batches of a lane that lie below a place; how many jobs and bytes there were, of those that count: what was
/// salvaged may hold batches that were resolved long ago.
///
/// # Errors
/// The file can't be written.
pub fn remove_below(
    batches: &mut Table<'_, (u32, u64), &[u8]>,
    lane: u32,
    below: u64,
    counts: impl Fn(u64) -> bool,
) -> Result<(u64, u64), redb::Error> {
    let (mut jobs, mut bytes) = (0, 0);
    for row in batches.extract_from_if((lane, 0)..(lane, below), |_, _| true)? {
        let (place, value) = row?;
        if counts(place.value().1) {
            bytes += value.value().len() as u64;
            jobs += jobs_of(value.value());
        }
    }
    Ok((jobs, bytes))
}

/// Reads batches behind each other, from whichever file holds them. One that is damaged, or gone with a damaged file, comes
/// out empty: its number is used up.
///
/// # Errors
/// A file can't be read.
pub fn read_batches(
    files: &Files<Database>,
    usage: &Usage,
    lane: u32,
    place: u64,
    len: u64,
    limit_bytes: usize,
) -> Result<Vec<Batch>, JournalError> {
    let failed = |error: &dyn std::fmt::Display| JournalError::Read(error.to_string());
    let opened = files.open_all(Moment::Running).map_err(|error| failed(&error))?;
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
        let found = found.unwrap_or_default();
        bytes += found.len();
        if bytes > limit_bytes && !batches.is_empty() {
            break;
        }
        batches.push(batch::decode(&found, lane, place).unwrap_or_else(|| {
            if usage.note_lost(lane, place) {
                error!(lane, place, "a batch of the outage journal is damaged; its jobs are lost");
            }
            Batch::from([])
        }));
    }
    Ok(batches)
}

/// Writes what a damaged file still has into a new one: all whole batches, also those that were resolved, for the notes
/// decide, and the newest notes. The number of a batch keeps one from being sent twice: the server knows what it has.
///
/// # Errors
/// The new file can't be written.
pub fn salvage(frames: &Frames, newer: &[Arc<Database>], file: &Database) -> Result<Loss, redb::Error> {
    let (batches, producer) = whole_batches(frames);
    let notes =
        frames.of(Kind::Notes).filter_map(|found| Notes::decode(found.header.numbers, &frames.read(found)?));
    let mut notes = notes.max_by_key(Notes::age);
    let has_notes = notes.is_some();
    if let Some((producer, epoch)) = producer {
        // The epoch of a batch was noted before the batch was numbered.
        let notes = notes.get_or_insert_with(|| Notes { producer, ..Notes::default() });
        notes.epoch = notes.epoch.max(epoch);
    }
    prepare(file)?;
    let transaction = file.begin_write()?;
    {
        let mut table = transaction.open_table(BATCHES)?;
        for ((lane, place), (found, _)) in &batches {
            let Some(content) = frames.read(found) else { continue };
            let encoded = frame::encode(Kind::Batch, found.header.numbers, &content);
            table.insert((*lane, *place), encoded.as_slice())?;
        }
    }
    if let Some(notes) = &notes {
        notes.write(&transaction)?;
    }
    transaction.commit()?;
    // What the notes name is counted where all files are looked at. Here: what no notes name.
    let notes = notes.unwrap_or_default();
    let mut unknown: Vec<_> = frames.damaged.iter().filter(|header| header.kind == Kind::Batch).collect();
    unknown.retain(|header| {
        let (lane, place, _) = batch::place_of(header);
        let next_place = notes.lanes.get(&lane).map_or(0, |lane| lane.next_place);
        place >= next_place && !batches.contains_key(&(lane, place))
    });
    unknown.sort_unstable_by_key(|header| batch::place_of(header));
    unknown.dedup_by_key(|header| batch::place_of(header));
    // Older batches may lie in older files.
    let has_gaps = notes.lanes.iter().any(|(lane, notes)| {
        let begin = batches.range((*lane, 0)..).next().map_or((*lane, 0), |(first, _)| *first).1;
        let places = notes.runs.iter().flat_map(|run| run.place..run.place + run.len);
        places.filter(|place| *place >= begin).any(|place| !batches.contains_key(&(*lane, place)))
    });
    Ok(Loss {
        has_gaps,
        kept: batches.len() as u64,
        lost_at_most: unknown.len() as u64,
        is_end_unknown: newer.is_empty() && !has_notes,
    })
}

type WholeBatches<'a> = BTreeMap<(u32, u64), (&'a FoundFrame, Label)>;

/// The batches that count by lane and place, and who wrote them last. What a crash cut off may lie at a place that was
/// given to another batch after it, or behind one: numbers grow with places, so what doesn't fit was never answered.
fn whole_batches(frames: &Frames) -> (WholeBatches<'_>, Option<(Uuid, u64)>) {
    let mut batches: WholeBatches<'_> = BTreeMap::new();
    for found in frames.of(Kind::Batch) {
        let label = frames.read(found).and_then(|content| batch::label(&found.header, &content));
        let Some(label) = label else { continue };
        let other = batches.get(&(label.lane, label.place));
        if other.is_none_or(|(_, other)| other.position < label.position) {
            batches.insert((label.lane, label.place), (found, label));
        }
    }
    let mut highest = BTreeMap::new();
    batches.retain(|(lane, _), (_, label)| {
        let highest = highest.entry(*lane).or_insert(BEGINNING);
        let fits = label.position > *highest;
        *highest = label.position.max(*highest);
        fits
    });
    let last = batches.values().max_by_key(|(_, label)| label.position.epoch);
    let producer = last.map(|(_, label)| (label.producer, label.position.epoch));
    (batches, producer)
}
