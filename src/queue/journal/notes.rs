//! What the journal knows of itself: who this producer is, and of each lane what lies where. It is one record, written
//! with every commit, twice, in tables that share no page; and each new file begins with it.
//!
//! So the newest notes of all files say everything: a batch that lies in a file and that they don't name is resolved, or
//! it was refused because its commit failed.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};
use uuid::Uuid;

use crate::queue::files::open_if_there;
use crate::queue::frame::{self, Kind};
use crate::queue::producer::{Position, Run};

/// The one row of each table.
const NOTES: [TableDefinition<'_, u8, &[u8]>; 2] =
    [TableDefinition::new("notes"), TableDefinition::new("notes again")];

/// The version of the encoding.
const VERSION: u8 = 1;

/// Everything that is carried from file to file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The producer's id; nil before the first start.
    pub producer: Uuid,
    /// Its last epoch.
    pub epoch: u64,
    /// Grows with each commit.
    pub serial: u64,
    /// By number.
    pub lanes: BTreeMap<u32, LaneNotes>,
}

/// What is known of a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneNotes {
    /// What the server must have reached.
    pub promised: Position,
    /// The first place that was never given away.
    pub next_place: u64,
    /// What isn't known to be resolved, in order.
    pub runs: Vec<Run>,
}

impl LaneNotes {
    /// Batches behind each other were written.
    pub fn append(&mut self, run: Run) {
        match self.runs.last_mut() {
            Some(last) if last.is_followed_by(run.first, run.place) => last.len += run.len,
            _ => self.runs.push(run),
        }
        self.next_place = run.place + run.len;
    }

    /// The places below are resolved.
    pub fn resolve_below(&mut self, place: u64) {
        self.runs.retain_mut(|run| {
            let gone = place.saturating_sub(run.place).min(run.len);
            run.place += gone;
            run.first.seq += gone;
            run.len -= gone;
            run.len > 0
        });
    }

    /// The number of the batch at a place. None if there is nothing unresolved.
    pub fn position_at(&self, place: u64) -> Option<Position> {
        let run = self.runs.iter().find(|run| (run.place..run.place + run.len).contains(&place))?;
        Some(Position { seq: run.first.seq + (place - run.place), ..run.first })
    }
}

impl Notes {
    /// What a file's notes say; None if it has none, or both copies are damaged.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(file: &Database) -> Result<Option<Notes>, redb::Error> {
        let transaction = file.begin_read()?;
        let mut newest: Option<Notes> = None;
        for table in NOTES {
            let Some(table) = open_if_there(&transaction, table)? else { continue };
            let row = table.get(0)?;
            let found = row.and_then(|row| {
                let (numbers, content) = frame::decode(row.value(), Kind::Notes)?;
                Notes::decode(numbers, content)
            });
            newest = newest.into_iter().chain(found).max_by_key(Notes::age);
        }
        Ok(newest)
    }

    /// Writes them.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let encoded = frame::encode(Kind::Notes, self.age(), &self.encode());
        for table in NOTES {
            transaction.open_table(table)?.insert(0, encoded.as_slice())?;
        }
        Ok(())
    }

    /// The larger, the newer.
    pub fn age(&self) -> (u64, u64) {
        (self.epoch, self.serial)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(self.producer.as_bytes());
        let mut push = |number: u64| out.extend_from_slice(&number.to_le_bytes());
        push(self.lanes.len() as u64);
        for (lane, notes) in &self.lanes {
            push(u64::from(*lane));
            push(notes.promised.epoch);
            push(notes.promised.seq);
            push(notes.next_place);
            push(notes.runs.len() as u64);
            for run in &notes.runs {
                push(run.first.epoch);
                push(run.first.seq);
                push(run.place);
                push(run.len);
            }
        }
        out
    }

    /// Reads what [`Notes::write`] wrote.
    pub fn decode((epoch, serial): (u64, u64), content: &[u8]) -> Option<Notes> {
        let (version, rest) = content.split_first()?;
        let (producer, rest) = rest.split_at_checked(16)?;
        if *version != VERSION || rest.len() % 8 != 0 {
            return None;
        }
        let producer = Uuid::from_slice(producer).ok()?;
        let mut numbers = rest.chunks_exact(8).map(|bytes| bytes.try_into().map_or(0, u64::from_le_bytes));
        let mut lanes = BTreeMap::new();
        for _ in 0..numbers.next()? {
            let lane = u32::try_from(numbers.next()?).ok()?;
            let promised = Position { epoch: numbers.next()?, seq: numbers.next()? };
            let next_place = numbers.next()?;
            let mut runs = Vec::new();
            for _ in 0..numbers.next()? {
                let first = Position { epoch: numbers.next()?, seq: numbers.next()? };
                runs.push(Run { first, place: numbers.next()?, len: numbers.next()? });
            }
            lanes.insert(lane, LaneNotes { promised, next_place, runs });
        }
        Some(Notes { producer, epoch, serial, lanes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, seq: u64) -> Position {
        Position { epoch, seq }
    }

    #[test]
    fn notes_come_back_as_they_were() {
        let mut notes = Notes { producer: Uuid::new_v4(), epoch: 7, serial: 9, lanes: BTreeMap::new() };
        assert_eq!(Notes::decode(notes.age(), &notes.encode()), Some(notes.clone()));
        let runs = vec![Run { first: at(6, 2), place: 3, len: 4 }, Run { first: at(7, 2), place: 9, len: 1 }];
        notes.lanes.insert(0, LaneNotes { promised: at(6, 1), next_place: 12, runs });
        notes.lanes.insert(5, LaneNotes::default());
        assert_eq!(Notes::decode(notes.age(), &notes.encode()), Some(notes.clone()));
        assert_eq!(Notes::decode(notes.age(), &notes.encode()[1..]), None);
    }

    #[test]
    fn runs_grow_at_their_end_and_are_resolved_from_the_begin() {
        let mut lane = LaneNotes::default();
        lane.append(Run { first: at(1, 2), place: 0, len: 2 });
        lane.append(Run { first: at(1, 4), place: 2, len: 3 });
        // A place was refused in between, and numbers go on without it.
        lane.append(Run { first: at(1, 8), place: 6, len: 2 });
        assert_eq!((lane.runs.len(), lane.next_place), (2, 8));
        assert_eq!([4, 5, 6].map(|place| lane.position_at(place)), [Some(at(1, 6)), None, Some(at(1, 8))]);
        lane.resolve_below(3);
        assert_eq!(lane.runs[0], Run { first: at(1, 5), place: 3, len: 2 });
        assert_eq!(lane.position_at(2), None);
        lane.resolve_below(7);
        assert_eq!(lane.runs, [Run { first: at(1, 9), place: 7, len: 1 }]);
        lane.resolve_below(8);
        assert_eq!(lane.runs, []);
    }
}
