//! A log in memory, and every state in which a crash can leave it.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::queue::frame::Kind;

/// A disk in memory that can be looked at, and put back to what it was.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn of(bytes: &[u8]) -> Memory {
        Memory(Arc::new(Mutex::new(bytes.to_vec())))
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().unwrap();
        let found = bytes.get(index(offset)..index(offset) + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(index(length), 0);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap()[index(offset)..][..data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn open(disk: &Memory, last_commit: LastCommit) -> Result<Log, DatabaseError> {
    Log::open(Box::new(disk.clone()), last_commit)
}

fn reopen(disk: &Memory) -> Log {
    open(disk, LastCommit::Counts).unwrap()
}

fn put(log: &Log, lengths: &[usize], first: u64, now: u64) {
    let mut records = Records::default();
    for ((number, content), length) in (first..).zip(b'a'..).zip(lengths) {
        records.job(Kind::Job, number, now, &vec![content; *length]);
    }
    log.append(records).unwrap();
}

/// Numbers and documents of all jobs.
fn jobs(log: &Log) -> Vec<(u64, Vec<u8>)> {
    let (page, damaged) = read_page(log, 1..=u64::MAX, |_| false, usize::MAX);
    assert!(damaged.is_empty(), "{damaged:?}");
    let entries = page.entries.iter();
    entries.map(|entry| (entry.position.parse().unwrap(), entry.document.to_vec())).collect()
}

fn read_page(
    log: &Log,
    numbers: RangeInclusive<u64>,
    is_void: impl Fn(u64) -> bool,
    limit: usize,
) -> (Page, Vec<u64>) {
    let mut page = Page { entries: Vec::new(), last: String::new() };
    let damaged = log.add_jobs(numbers, is_void, limit, &mut 0, &mut page).unwrap();
    (page, damaged)
}

fn numbers(page: &Page) -> Vec<u64> {
    page.entries.iter().map(|entry| entry.position.parse().unwrap()).collect()
}

const LENGTHS: [usize; 7] = [100, 30_000, 30_000, 30_000, 200_000, 10, 10];

/// The index holds groups of jobs, and a page may begin and end within one.
#[test]
fn jobs_are_read_from_any_number_to_any_other() {
    let disk = Memory::default();
    let written = reopen(&disk);
    for first in [1, 8, 40] {
        put(&written, &LENGTHS, first, 7);
    }
    let all: Vec<u64> = (1..=14).chain(40..=46).collect();
    for log in [written, reopen(&disk)] {
        let groups: Vec<_> = log.content().groups.iter().map(|group| (group.first, group.jobs)).collect();
        assert_eq!(groups, [(1, 4), (5, 1), (6, 6), (12, 1), (13, 2), (40, 4), (44, 1), (45, 2)]);
        for begin in 1..=47 {
            for end in begin..=47 {
                let (page, damaged) = read_page(&log, begin..=end, |number| number == 9, 1000);
                assert!(damaged.is_empty());
                let expect =
                    all.iter().copied().filter(|number| (begin..=end).contains(number) && *number != 9);
                assert_eq!(numbers(&page), expect.collect::<Vec<_>>(), "{begin} to {end}");
            }
        }
        let (page, _) = read_page(&log, 3..=46, |_| false, 4);
        assert_eq!(numbers(&page), [3, 4, 5, 6]);
        assert_eq!(page.entries[2].document, vec![b'e'; 200_000]);
        assert_eq!((log.first_number(), log.last_number()), (Some(1), 46));
        assert_eq!(log.last_number_but(|number| number > 12), 12);
    }
}

/// An acknowledgement may end within a group, in a gap, or beyond the end.
#[test]
fn what_lies_behind_any_number_is_counted() {
    let disk = Memory::default();
    let written = reopen(&disk);
    assert_eq!(written.rest(0).unwrap(), Rest::default());
    let mut stored: Vec<(u64, usize, u64)> = Vec::new();
    for (first, now) in [(1, 7), (8, 9), (40, 5)] {
        put(&written, &LENGTHS, first, now);
        stored.extend((first..).zip(LENGTHS).map(|(number, length)| (number, length, now)));
    }
    for log in [written, reopen(&disk)] {
        for acknowledged in 0..50 {
            let left = stored.iter().filter(|(number, ..)| *number > acknowledged);
            let mut expect = Rest { since: left.clone().next().map(|(.., now)| *now), ..Rest::default() };
            left.for_each(|(_, length, _)| expect.total.add(*length as u64));
            assert_eq!(log.rest(acknowledged).unwrap(), expect, "behind {acknowledged}");
        }
    }
}

#[test]
fn marks_and_numbers_that_hold_nothing_are_kept_with_their_jobs() {
    let disk = Memory::default();
    let log = reopen(&disk);
    log.note_voids(&[(3, 2), (9, 1)]).unwrap();
    assert_eq!((log.first_number(), log.last_number()), (None, 0));
    let mut records = Records::default();
    for (number, until, mark) in [(10, 50, &b"ten"[..]), (11, 40, b"eleven")] {
        records.job(Kind::MarkedJob, number, 7, &encode_marked(until, mark, b"{}"));
    }
    log.append(records).unwrap();
    for log in [log, reopen(&disk)] {
        let voids: std::collections::BTreeSet<_> = log.voids().into_iter().collect();
        assert_eq!(voids.into_iter().collect::<Vec<_>>(), [(3, 2), (9, 1)]);
        assert_eq!((log.first_number(), log.last_number(), log.marks_until()), (Some(10), 11, 50));
        let mut marks = Vec::new();
        log.marks(10, |number, until, content| marks.push((number, until, content.to_vec()))).unwrap();
        assert_eq!(marks, [(11, 40, b"eleven".to_vec())], "those behind a number");
        assert_eq!(jobs(&log), [(10, b"{}".to_vec()), (11, b"{}".to_vec())]);
    }
}

/// A damaged file's successor gives away no number again, whether its last jobs are there or not.
#[test]
fn numbers_that_were_given_away_are_noted_without_their_jobs() {
    let disk = Memory::default();
    let log = reopen(&disk);
    let mut records = Records::default();
    records.reach(7, 0);
    log.append(records).unwrap();
    assert_eq!((log.first_number(), log.last_number()), (Some(7), 6));
    assert_eq!(reopen(&disk).first_number(), Some(7), "although its end is where it was");
    let mut records = Records::default();
    records.job(Kind::Job, 8, 7, b"{}");
    records.reach(7, 20);
    log.append(records).unwrap();
    for log in [log, reopen(&disk)] {
        assert_eq!((log.first_number(), log.last_number(), jobs(&log).len()), (Some(7), 20, 1));
        assert_eq!(log.last_number_but(|_| false), 8);
    }
}

/// What was taken over of a batch that nobody noted is noted then: if the disk loses it later, it is missed.
#[test]
fn what_is_taken_over_counts_from_then_on() {
    let disk = Memory::default();
    let log = reopen(&disk);
    put(&log, &[10], 1, 7);
    let notes = disk.bytes()[..index(BEGIN)].to_vec();
    put(&log, &[10], 2, 7);
    disk.0.lock().unwrap()[..notes.len()].copy_from_slice(&notes);
    assert_eq!(jobs(&reopen(&disk)).len(), 2, "the second one wasn't noted");
    let end = index(log.len());
    disk.0.lock().unwrap()[end - PAGE_LEN..end].fill(0);
    assert!(matches!(open(&disk, LastCommit::Counts), Err(DatabaseError::RepairAborted)));
    let log = open(&disk, LastCommit::Failed).unwrap();
    assert_eq!((jobs(&log).len(), log.last_number()), (1, 2), "its number isn't given away again");
}

/// What happens to the disk after the file was opened is seen when it is read.
#[test]
fn what_is_damaged_in_a_group_is_known_by_its_number() {
    let disk = Memory::default();
    let log = reopen(&disk);
    let documents: Vec<&[u8]> = vec![b"one", b"two", b"three"];
    let mut records = Records::default();
    let mut begins = Vec::new();
    for (number, document) in (5..).zip(&documents) {
        begins.push(index(BEGIN) + records.len());
        records.job(Kind::Job, number, 7, document);
    }
    log.append(records).unwrap();
    let whole = disk.bytes();
    for (job, begin) in begins.iter().enumerate() {
        for at in [*begin, begin + frame::HEADER_BYTES] {
            disk.0.lock().unwrap()[at] ^= 1;
            let (page, damaged) = read_page(&log, 1..=100, |_| false, 1000);
            let mut expect = vec![5, 6, 7];
            assert_eq!(damaged, [expect.remove(job)], "byte {at}");
            assert_eq!(numbers(&page), expect, "byte {at}");
            *disk.0.lock().unwrap() = whole.clone();
        }
    }
}

/// The disk may hold any of the pages of a batch and of the note of its end, and lack the others. What was there before
/// is there in any case; of the batch nothing, or all, or what fills whole pages. Only where the note is there and the batch
/// isn't, that is said.
#[test]
fn whatever_a_crash_leaves_of_a_batch_costs_no_job_that_was_answered_for() {
    let disk = Memory::default();
    let log = reopen(&disk);
    for (first, lengths) in [(1, &[100, 5000][..]), (3, &[10]), (4, &[9000, 1, 4096 - 2 * 32 - 1])] {
        let before = disk.bytes();
        let expect = jobs(&log);
        put(&log, lengths, first, 7);
        let after = disk.bytes();
        let all = jobs(&log);
        let pages: Vec<_> =
            (0..after.len() / PAGE_LEN).map(|page| page * PAGE_LEN..(page + 1) * PAGE_LEN).collect();
        let changed: Vec<_> =
            pages.into_iter().filter(|page| before.get(page.clone()) != after.get(page.clone())).collect();
        assert!(changed.len() > 1, "the batch and the note");
        for there in 0..1_u32 << changed.len() {
            let mut left = before.clone();
            left.resize(after.len(), 0);
            for (_, page) in changed.iter().enumerate().filter(|(bit, _)| there & (1 << bit) != 0) {
                left[page.clone()].copy_from_slice(&after[page.clone()]);
            }
            // The note's page is the first one.
            let (has_note, is_whole) = (there & 1 != 0, there >> 1 == (1 << (changed.len() - 1)) - 1);
            for last_commit in [LastCommit::Counts, LastCommit::Failed] {
                let disk = Memory::of(&left);
                let opened = open(&disk, last_commit);
                if has_note && !is_whole && last_commit == LastCommit::Counts {
                    assert!(matches!(opened, Err(DatabaseError::RepairAborted)), "{there:b}: {opened:?}");
                    continue;
                }
                let log = opened.unwrap_or_else(|error| panic!("{there:b}: {error}"));
                let found = jobs(&log);
                assert!(
                    found == expect || all.starts_with(&found) && found.len() > expect.len(),
                    "{there:b}"
                );
                if is_whole && (has_note || last_commit == LastCommit::Counts) {
                    assert_eq!(found, all, "{there:b}");
                }
                // It goes on from there, and nothing of the rest comes back.
                let next = found.last().map_or(1, |(number, _)| number + 1);
                put(&log, &[20_000], next, 9);
                let expect = [found, vec![(next, vec![b'a'; 20_000])]].concat();
                assert_eq!(jobs(&log), expect, "{there:b}");
                assert_eq!(jobs(&reopen(&disk)), expect, "{there:b}, opened again");
            }
        }
    }
}

#[test]
fn a_file_that_lost_what_was_answered_for_does_not_open() {
    let disk = Memory::default();
    let log = reopen(&disk);
    for first in [1, 2, 3] {
        put(&log, &[5000], first, 7);
    }
    let whole = disk.bytes();
    let end = index(log.len());
    for page in (0..end).step_by(PAGE_LEN) {
        let mut left = whole.clone();
        left[page..page + PAGE_LEN].fill(0);
        let opened = open(&Memory::of(&left), LastCommit::Counts);
        assert!(opened.is_err(), "zeros at {page}");
        for len in [page, page + 1, page + PAGE_LEN - 1] {
            // An empty file is a new one; the files' rules keep one from getting here.
            let opened = open(&Memory::of(&whole[..len]), LastCommit::Counts);
            assert!(len == 0 || opened.is_err(), "cut off at {len}");
        }
    }
    assert_eq!(jobs(&reopen(&Memory::of(&whole[..end]))).len(), 3, "without its room it is whole");
}

proptest! {
    /// A bit that flips is noticed when the file is opened, and behind its end it is overwritten.
    #[test]
    fn a_flipped_bit_is_noticed(
        lengths in proptest::collection::vec(0_usize..9000, 1..12),
        at in any::<prop::sample::Index>(),
        in_use in any::<bool>(),
        bit in 0..8,
    ) {
        let disk = Memory::default();
        let log = reopen(&disk);
        for (first, length) in (1..).zip(&lengths) {
            put(&log, &[*length], first, 7);
        }
        let expect = jobs(&log);
        let mut bytes = disk.bytes();
        // Most of the file is room.
        let at = at.index(if in_use { index(log.len()) } else { bytes.len() });
        bytes[at] ^= 1_u8 << bit;
        let disk = Memory::of(&bytes);
        let opened = open(&disk, LastCommit::Counts);
        prop_assert_eq!(opened.is_err(), at < index(log.len()));
        if let Ok(log) = opened {
            prop_assert_eq!(jobs(&log), expect);
            put(&log, &[10], 100, 9);
            prop_assert_eq!(jobs(&reopen(&disk)).len(), lengths.len() + 1);
        }
    }
}
