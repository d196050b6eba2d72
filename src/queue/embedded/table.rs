//! What lies in a file of the embedded queue.
//!
//! | table | key | value |
//! |---|---|---|
//! | `jobs` | the number of the first of some jobs; how many jobs the file holds before it, and their bytes | their records ([`frame`]) behind each other: number, time in Unix milliseconds, document |
//! | `meta` | `first` | the number that the file begins with, written with its first batch |
//! | `notes` | 0 | a record: the number that the file begins with |
//! | `notes`, `notes again` | a number | a record: how many numbers from there on hold nothing, whatever an older file says |
//!
//! The [`marks`] of deliveries lie in the same file. A file without `first` was made ahead and never used. Records can be read without the tables, where a file is damaged.

use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use uuid::Uuid;

use super::marks;
use crate::queue::files::{open_if_there, prepare_with};
use crate::queue::frame::{self, Header, Kind};
use crate::queue::lane::{Append, BATCH_LIMIT_BYTES};
use crate::queue::{Entry, PAGE_LIMIT_BYTES, Page};

/// What lies behind each other is one value up to so many bytes, or one job: redb writes every value of this size with one
/// call, and gives it pages to the next power of two.
const GROUP_LIMIT_BYTES: usize = (64 << 10) - 256;

pub(super) const JOBS: TableDefinition<'_, JobsKey, &[u8]> = TableDefinition::new("jobs");
/// The totals lie in the key because a table of their own would cost each commit two more pages, elsewhere on the disk.
type JobsKey = (u64, u64, u64);
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FIRST: &str = "first";
const NOTES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("notes");
/// Another copy of the void numbers, on a page of its own: without them what was refused would be delivered.
const NOTES_AGAIN: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("notes again");

/// How many jobs lie in a file, or in a part of it, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) jobs: u64,
    pub(super) bytes: u64,
}

impl Total {
    pub(super) fn add(&mut self, bytes: usize) {
        self.jobs += 1;
        self.bytes += bytes as u64;
    }

    /// The key of jobs that come behind these, by the number of the first one.
    pub(super) fn key_of(self, number: u64) -> JobsKey {
        (number, self.jobs, self.bytes)
    }
}

/// No key of this number, or a lower one, lies behind it.
fn end_of(number: u64) -> JobsKey {
    (number, u64::MAX, u64::MAX)
}

/// What of a file isn't acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rest {
    pub(super) total: Total,
    /// When the oldest of them was stored, in Unix milliseconds.
    pub(super) since: Option<u64>,
}

/// Makes the tables of a new file, with room for a batch.
pub(super) fn prepare(file: &Database) -> Result<(), redb::Error> {
    prepare_with(file, BATCH_LIMIT_BYTES, |transaction| {
        transaction.open_table(JOBS)?;
        transaction.open_table(META)?;
        Ok(())
    })
}

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Committed {
    /// What the file holds then.
    pub(super) total: Total,
    /// For each job: the first one's id, if it is a repeat and wasn't stored.
    pub(super) repeats: Vec<Option<Uuid>>,
}

/// Stores a batch behind what the file holds already, in one transaction; redb returns from `commit` after its fsync
/// (`Durability::Immediate`, its default). Repeats of what this file or the older ones have seen are left out.
pub(super) fn commit(
    file: &Database,
    older: &[Arc<Database>],
    batch: &[Append],
    first: u64,
    before: Total,
    now: u64,
) -> Result<Committed, redb::Error> {
    let transaction = file.begin_write()?;
    let repeats = marks::mark(&transaction, older, batch, now)?;
    let stored = batch.iter().zip(&repeats).filter(|(_, repeat)| repeat.is_none());
    let stored: Vec<&[u8]> = stored.map(|(append, _)| append.document().as_ref()).collect();
    if stored.is_empty() {
        return Ok(Committed { total: before, repeats });
    }
    if before.jobs == 0 {
        note_first(&transaction, first)?;
    }
    let total = insert(&transaction, &stored, first, before, now)?;
    transaction.commit()?;
    Ok(Committed { total, repeats })
}

/// Notes which number the file begins with.
pub(super) fn note_first(transaction: &WriteTransaction, first: u64) -> Result<(), redb::Error> {
    transaction.open_table(META)?.insert(FIRST, first)?;
    let record = frame::encode(Kind::First, (first, 0), &[]);
    transaction.open_table(NOTES)?.insert(0, record.as_slice())?;
    Ok(())
}

/// Notes that these numbers hold nothing, whatever an older file says.
pub(super) fn note_voids(file: &Database, voids: &[(u64, u64)]) -> Result<(), redb::Error> {
    let transaction = file.begin_write()?;
    for table in [NOTES, NOTES_AGAIN] {
        let mut notes = transaction.open_table(table)?;
        for (first, len) in voids {
            notes.insert(first, frame::encode(Kind::Void, (*first, *len), &[]).as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// The numbers that hold nothing: the first, and how many.
pub(super) fn voids(file: &Database) -> Result<Vec<(u64, u64)>, redb::Error> {
    let transaction = file.begin_read()?;
    let mut voids = Vec::new();
    for table in [NOTES, NOTES_AGAIN] {
        let Some(notes) = open_if_there(&transaction, table)? else { continue };
        for note in notes.iter()? {
            let (_, record) = note?;
            voids.extend(frame::decode(record.value(), Kind::Void).map(|(numbers, _)| numbers));
        }
    }
    Ok(voids)
}

fn insert(
    transaction: &WriteTransaction,
    documents: &[&[u8]],
    first: u64,
    mut total: Total,
    now: u64,
) -> Result<Total, redb::Error> {
    let mut table = transaction.open_table(JOBS)?;
    let mut number = first;
    let mut rest = documents;
    while !rest.is_empty() {
        let (group, behind) = rest.split_at(group_len(rest));
        let bytes = group.iter().map(|document| frame::HEADER_BYTES + document.len()).sum();
        let mut value = table.insert_reserve(total.key_of(number), bytes)?;
        let mut free = value.as_mut();
        for document in group {
            free = frame::put(free, Kind::Job, (number, now), document);
            number += 1;
            total.add(document.len());
        }
        rest = behind;
    }
    Ok(total)
}

/// How many of these documents are one value: one at the least.
fn group_len(documents: &[&[u8]]) -> usize {
    let mut bytes = 0;
    let fitting = documents.iter().take_while(|document| {
        bytes += frame::HEADER_BYTES + document.len();
        bytes <= GROUP_LIMIT_BYTES
    });
    fitting.count().max(1)
}

/// A job in a value.
struct Stored<'a> {
    number: u64,
    /// None if its header is damaged.
    record: Option<(Header, &'a [u8])>,
}

impl<'a> Stored<'a> {
    /// The document. None if it is damaged.
    fn document(&self) -> Option<&'a [u8]> {
        let (header, content) = self.record?;
        (header.kind == Kind::Job && header.is_of(content)).then_some(content)
    }
}

/// The jobs of a value.
fn jobs_of(first: u64, group: &[u8]) -> Vec<Stored<'_>> {
    let mut jobs = Vec::new();
    let (mut next, mut ends_in_damage) = (first, false);
    for (header, content) in frame::split(group) {
        ends_in_damage = header.is_none();
        let Some(header) = header else { continue };
        // Numbers have no gaps here but where headers are damaged.
        let number = header.numbers.0;
        jobs.extend((next..number).map(|number| Stored { number, record: None }));
        jobs.push(Stored { number, record: Some((header, content)) });
        next = number + 1;
    }
    // One job at the least.
    jobs.extend(ends_in_damage.then_some(Stored { number: next, record: None }));
    jobs
}

/// Adds the jobs with these numbers, as far as the page has room. Those that are damaged are left
/// out, and their numbers returned.
pub(super) fn add_jobs(
    file: &Database,
    numbers: RangeInclusive<u64>,
    is_void: impl Fn(u64) -> bool,
    limit: usize,
    bytes: &mut usize,
    page: &mut Page,
) -> Result<Vec<u64>, redb::Error> {
    let mut damaged = Vec::new();
    if numbers.is_empty() {
        return Ok(damaged);
    }
    let table = file.begin_read()?.open_table(JOBS)?;
    let around = table.range(..=end_of(*numbers.start()))?.next_back().transpose()?;
    let begin = around.map_or((*numbers.start(), 0, 0), |(key, _)| key.value());
    for group in table.range(begin..=end_of(*numbers.end()))? {
        let (key, records) = group?;
        for job in jobs_of(key.value().0, records.value()) {
            if page.entries.len() >= limit || *bytes >= PAGE_LIMIT_BYTES {
                return Ok(damaged);
            }
            if !numbers.contains(&job.number) || is_void(job.number) {
                continue;
            }
            match job.document() {
                Some(document) => {
                    *bytes += document.len();
                    let document = Bytes::copy_from_slice(document);
                    page.entries.push(Entry { position: job.number.to_string(), document });
                }
                None => damaged.push(job.number),
            }
        }
    }
    Ok(damaged)
}

/// The number that the file begins with; None if it was never used.
pub(super) fn first_number(file: &Database) -> Result<Option<u64>, redb::Error> {
    Ok(file.begin_read()?.open_table(META)?.get(FIRST)?.map(|first| first.value()))
}

/// The last number that is taken, as far as this file knows. The one that it begins with counts as well: the numbers
/// below it were given away in older files.
pub(super) fn last_number(file: &Database) -> Result<u64, redb::Error> {
    let first = first_number(file)?.unwrap_or(0);
    let last = last_number_but(file, |_| false)?;
    Ok(last.max(first.saturating_sub(1)))
}

/// The last number that holds something.
pub(super) fn last_number_but(file: &Database, is_void: impl Fn(u64) -> bool) -> Result<u64, redb::Error> {
    let jobs = file.begin_read()?.open_table(JOBS)?;
    for group in jobs.iter()?.rev() {
        let (key, records) = group?;
        let jobs = jobs_of(key.value().0, records.value());
        if let Some(last) = jobs.iter().rev().find(|job| !is_void(job.number)) {
            return Ok(last.number);
        }
    }
    Ok(0)
}

/// All that the file holds.
pub(super) fn total(file: &Database) -> Result<Total, redb::Error> {
    Ok(rest(file, 0)?.total)
}

/// What the file holds behind a number.
pub(super) fn rest(file: &Database, acknowledged: u64) -> Result<Rest, redb::Error> {
    let table = file.begin_read()?.open_table(JOBS)?;
    let Some((key, records)) = table.last()? else { return Ok(Rest::default()) };
    let (all, _) = through(key.value(), records.value(), u64::MAX);
    let (done, mut since) = match table.range(..=end_of(acknowledged))?.next_back().transpose()? {
        Some((key, records)) => through(key.value(), records.value(), acknowledged),
        None => (Total::default(), None),
    };
    let behind = (Bound::Excluded(end_of(acknowledged)), Bound::Unbounded);
    if since.is_none()
        && let Some((key, records)) = table.range::<JobsKey>(behind)?.next().transpose()?
    {
        since = through(key.value(), records.value(), acknowledged).1;
    }
    let total = Total { jobs: all.jobs - done.jobs, bytes: all.bytes - done.bytes };
    Ok(Rest { total, since })
}

/// What the file holds up to a number, where the value with this key is the last that has some of it; and when the first
/// job of that value which lies behind the number was stored.
fn through((first, jobs, bytes): JobsKey, records: &[u8], last: u64) -> (Total, Option<u64>) {
    let mut total = Total { jobs, bytes };
    for job in jobs_of(first, records) {
        let record = job.record.map(|(header, content)| (header.numbers.1, content.len()));
        if job.number > last {
            return (total, record.map(|(time, _)| time));
        }
        total.add(record.map_or(0, |(_, bytes)| bytes));
    }
    (total, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(page: &Page) -> Vec<u64> {
        page.entries.iter().map(|entry| entry.position.parse().unwrap()).collect()
    }

    fn file() -> Database {
        let file = Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
        prepare(&file).unwrap();
        file
    }

    fn put(file: &Database, lengths: &[usize], first: u64, before: Total, now: u64) -> Total {
        let documents: Vec<Vec<u8>> =
            (b'a'..).zip(lengths).map(|(content, length)| vec![content; *length]).collect();
        let documents: Vec<&[u8]> = documents.iter().map(Vec::as_slice).collect();
        let transaction = file.begin_write().unwrap();
        let total = insert(&transaction, &documents, first, before, now).unwrap();
        transaction.commit().unwrap();
        total
    }

    const LENGTHS: [usize; 7] = [100, 30_000, 30_000, 30_000, 200_000, 10, 10];

    /// Values hold several jobs, and a page may begin and end within one.
    #[test]
    fn jobs_are_read_from_any_number_to_any_other() {
        let file = file();
        let mut total = Total::default();
        for first in [1, 8, 40] {
            total = put(&file, &LENGTHS, first, total, 7);
        }
        let values: Vec<u64> = {
            let jobs = file.begin_read().unwrap().open_table(JOBS).unwrap();
            jobs.range(..=end_of(39)).unwrap().map(|group| group.unwrap().0.value().0).collect()
        };
        assert_eq!(values, [1, 4, 5, 6, 8, 11, 12, 13], "two batches in values of up to 64 KiB");
        let all: Vec<u64> = (1..=14).chain(40..=46).collect();
        for begin in 1..=47 {
            for end in begin..=47 {
                let mut page = Page { entries: Vec::new(), last: String::new() };
                let damaged =
                    add_jobs(&file, begin..=end, |number| number == 9, 1000, &mut 0, &mut page).unwrap();
                assert!(damaged.is_empty());
                let expect =
                    all.iter().copied().filter(|number| (begin..=end).contains(number) && *number != 9);
                assert_eq!(numbers(&page), expect.collect::<Vec<_>>(), "{begin} to {end}");
            }
        }
        let mut page = Page { entries: Vec::new(), last: String::new() };
        add_jobs(&file, 3..=46, |_| false, 4, &mut 0, &mut page).unwrap();
        assert_eq!(numbers(&page), [3, 4, 5, 6]);
        assert_eq!(page.entries[2].document, vec![b'e'; 200_000]);
        assert_eq!(last_number(&file).unwrap(), 46);
        assert_eq!(last_number_but(&file, |number| number > 12).unwrap(), 12);
    }

    /// An acknowledgement may end within a value, in a gap, or beyond the end.
    #[test]
    fn what_lies_behind_any_number_is_counted() {
        let file = file();
        assert_eq!(rest(&file, 0).unwrap(), Rest::default());
        let mut total = Total::default();
        let mut stored: Vec<(u64, usize, u64)> = Vec::new();
        for (first, now) in [(1, 7), (8, 9), (40, 5)] {
            total = put(&file, &LENGTHS, first, total, now);
            stored.extend((first..).zip(LENGTHS).map(|(number, length)| (number, length, now)));
        }
        for acknowledged in 0..50 {
            let left = stored.iter().filter(|(number, ..)| *number > acknowledged);
            let mut expect = Rest { since: left.clone().next().map(|(.., now)| *now), ..Rest::default() };
            left.for_each(|(_, length, _)| expect.total.add(*length));
            assert_eq!(rest(&file, acknowledged).unwrap(), expect, "behind {acknowledged}");
        }
    }

    #[test]
    fn what_is_damaged_in_a_value_is_known_by_its_number() {
        let documents: Vec<&[u8]> = vec![b"one", b"two", b"three"];
        let mut group = Vec::new();
        let mut begins = Vec::new();
        for (number, document) in (5..).zip(&documents) {
            begins.push(group.len());
            group.extend(frame::encode(Kind::Job, (number, 7), document));
        }
        for (damaged, begin) in begins.iter().enumerate() {
            for at in [*begin, begin + frame::HEADER_BYTES] {
                let mut group = group.clone();
                group[at] ^= 1;
                let jobs = jobs_of(5, &group);
                let found: Vec<_> = jobs.iter().map(|job| (job.number, job.document())).collect();
                let mut expect: Vec<_> =
                    (5..).zip(&documents).map(|(number, document)| (number, Some(*document))).collect();
                expect[damaged].1 = None;
                assert_eq!(found, expect, "byte {at}");
            }
        }
    }
}
