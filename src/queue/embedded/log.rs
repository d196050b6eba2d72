//! A file of the embedded queue: records ([`frame`]) behind each other, and two notes of where they end.
//!
//! | page | |
//! |---|---|
//! | 0 and 1 | written in turn: where what counts ends, the last number, the number that the file begins with |
//! | from 2 on | batches, each in pages of its own: jobs (number, time in Unix milliseconds, the mark by which repeats are known, document), numbers that hold nothing; then zeros to the page's end |
//!
//! A batch and the note of its end are written, and one fsync is waited for. So a page that was answered for is never
//! written again, and each file says how far it must go: jobs that the disk lost are missed, also the last ones. Behind that end lies what
//! a crash left of a batch that nobody was answered for: whole records up to the end of a page count, and the rest is
//! overwritten. Records can be read without the notes, where a file is damaged.

use std::io;
use std::ops::RangeInclusive;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use redb::{DatabaseError, StorageBackend};

use crate::queue::files::{Generation, LastCommit};
use crate::queue::frame::{self, Header, Kind};
use crate::queue::lane::{BATCH_LIMIT_BYTES, BATCH_LIMIT_JOBS};
use crate::queue::{Entry, PAGE_LIMIT_BYTES, Page};

/// What a disk reads and writes as a whole. A batch begins with one: a part of a page that isn't in the page cache would
/// have to be read before it is written.
const PAGE_BYTES: u64 = 4096;
const PAGE_LEN: usize = 4096;

/// Behind the two notes.
const BEGIN: u64 = 2 * PAGE_BYTES;

/// A file without room grows by so much.
const GROWTH_BYTES: u64 = 64 << 10;

/// How much is read of it at a time when it is opened: pieces of 1 MiB take three times as long.
const CHUNK_BYTES: usize = 4 << 20;

/// So many bytes of records are found by one entry of the index.
const GROUP_BYTES: u64 = 64 << 10;

/// How many jobs lie in a file, or in a part of it, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) jobs: u64,
    pub(super) bytes: u64,
}

impl Total {
    fn add(&mut self, bytes: u64) {
        self.jobs += 1;
        self.bytes += bytes;
    }
}

/// What of a file isn't acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rest {
    pub(super) total: Total,
    /// When the oldest of them was stored, in Unix milliseconds.
    pub(super) since: Option<u64>,
}

/// The records of a batch.
#[derive(Debug, Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    /// The number that the file begins with, if it is empty.
    first: Option<u64>,
    /// The last number that is given away.
    last: Option<u64>,
}

impl Records {
    /// With room for so many bytes, and for the zeros behind them.
    pub(super) fn with_capacity(bytes: usize) -> Records {
        Records { bytes: Vec::with_capacity(bytes + PAGE_LEN), ..Records::default() }
    }

    /// A job, by the content of its record.
    pub(super) fn job(&mut self, kind: Kind, number: u64, time: u64, content: &[u8]) {
        frame::push(&mut self.bytes, kind, (number, time), content);
        self.reach(number, number);
    }

    /// Numbers up to the last one are given away, and an empty file begins with the first one, although no job may be there.
    pub(super) fn reach(&mut self, first: u64, last: u64) {
        self.first.get_or_insert(first);
        self.last = self.last.max(Some(last));
    }

    /// Notes that so many numbers from there on hold nothing, whatever an older file says: twice, on pages of their own,
    /// because without them what was refused would be delivered.
    fn void(&mut self, first: u64, len: u64) {
        for _ in 0..2 {
            self.end_page();
            frame::push(&mut self.bytes, Kind::Void, (first, len), &[]);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn end_page(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(PAGE_LEN), 0);
    }
}

/// Where a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    offset: u64,
    /// 0 if it holds no job.
    first: u64,
    last: u64,
}

impl End {
    fn encode(self) -> Vec<u8> {
        let mut page = frame::encode(Kind::End, (self.last, self.offset), &self.first.to_le_bytes());
        page.resize(PAGE_LEN, 0);
        page
    }

    /// None if it is damaged.
    fn decode(page: &[u8]) -> Option<End> {
        let (record, rest) = page.split_at_checked(frame::HEADER_BYTES + 8)?;
        let ((last, offset), first) = frame::decode(record, Kind::End)?;
        let first = first_number(first)?;
        is_zero(rest).then_some(End { offset, first, last })
    }
}

/// The number that a file begins with, by what a note of its end holds.
pub(super) fn first_number(content: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(content.try_into().ok()?))
}

/// Until when a mark holds in Unix milliseconds, its content, and the document, by the content of a record.
type Marked<'a> = (u64, &'a [u8], &'a [u8]);

/// The content of a job's record that holds its mark, so that neither is there without the other.
pub(super) fn encode_marked(until: u64, mark: &[u8], document: &[u8]) -> Vec<u8> {
    let len = u32::try_from(mark.len()).unwrap_or(u32::MAX);
    [&until.to_le_bytes()[..], &len.to_le_bytes(), mark, document].concat()
}

fn decode_marked(content: &[u8]) -> Option<Marked<'_>> {
    let (until, rest) = content.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let (mark, document) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    Some((u64::from_le_bytes(*until), mark, document))
}

/// Until when the mark of a record holds; 0 if it has none.
fn marked_until(header: &Header, content: &[u8]) -> u64 {
    match header.kind {
        Kind::MarkedJob => decode_marked(content).map_or(0, |(until, ..)| until),
        _ => 0,
    }
}

/// Whether a record is a job.
pub(super) fn is_job(kind: Kind) -> bool {
    matches!(kind, Kind::Job | Kind::MarkedJob)
}

/// Jobs with numbers behind each other, and where their records begin.
#[derive(Clone, Copy, Debug)]
struct Group {
    offset: u64,
    first: u64,
    /// When the first one was stored.
    time: u64,
    jobs: u64,
    /// What the file holds before them.
    before: Total,
}

impl Group {
    fn last(&self) -> u64 {
        self.first + self.jobs - 1
    }
}

/// What is known of a file's content.
#[derive(Clone, Debug)]
struct Content {
    end: End,
    /// Which of the two notes is written next.
    slot: u64,
    /// Up to here the pages behind the end may hold something.
    used_end: u64,
    total: Total,
    groups: Vec<Group>,
    voids: Vec<(u64, u64)>,
    /// When the last of its marks ends, in Unix milliseconds; 0 if there is none.
    marks_until: u64,
}

impl Content {
    fn empty(slot: u64) -> Content {
        let end = End { offset: BEGIN, first: 0, last: 0 };
        let (total, groups, voids) = (Total::default(), Vec::new(), Vec::new());
        Content { end, slot, used_end: BEGIN, total, groups, voids, marks_until: 0 }
    }

    /// Takes note of a batch's records, which begin there.
    fn add_all(&mut self, begin: u64, records: &[u8]) {
        let mut at = 0;
        while let Some(header) = records.get(at..).and_then(frame::header) {
            let end = at + frame::HEADER_BYTES + usize::try_from(header.len).unwrap_or(0);
            let content = records.get(at + frame::HEADER_BYTES..end).unwrap_or_default();
            self.add(&header, marked_until(&header, content), begin + at as u64);
            at = if records.get(end) == Some(&0) { end.next_multiple_of(PAGE_LEN) } else { end };
        }
    }

    /// A group, and where its records end.
    fn place(&self, index: usize) -> (Group, u64) {
        (self.groups[index], self.groups.get(index + 1).map_or(self.end.offset, |next| next.offset))
    }

    /// Takes note of the next record, whose mark holds so long.
    fn add(&mut self, header: &Header, until: u64, offset: u64) {
        match (header.kind, header.numbers) {
            (Kind::Job | Kind::MarkedJob, (number, time)) => {
                let follows = |group: &&mut Group| {
                    group.first + group.jobs == number && offset - group.offset < GROUP_BYTES
                };
                match self.groups.last_mut().filter(follows) {
                    Some(group) => group.jobs += 1,
                    None => {
                        self.groups.push(Group { offset, first: number, time, jobs: 1, before: self.total })
                    }
                }
                self.total.add(u64::from(header.len));
                if self.end.first == 0 {
                    self.end.first = number;
                }
                self.end.last = number;
                self.marks_until = self.marks_until.max(until);
            }
            (Kind::Void, void) => self.voids.push(void),
            _ => {}
        }
    }
}

/// A file. One writer appends to it, and any number read.
pub(super) struct Log {
    disk: Box<dyn StorageBackend>,
    content: RwLock<Content>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("end", &self.content().end).finish_non_exhaustive()
    }
}

impl Generation for Log {
    const EXTENSION: &'static str = "log";
    const COMMIT_LIMIT: u64 = BATCH_LIMIT_JOBS as u64;

    fn open(disk: Box<dyn StorageBackend>, last_commit: LastCommit) -> Result<Log, DatabaseError> {
        if disk.len()? == 0 {
            return Ok(Log::begin(disk)?);
        }
        let noted = read_content(disk.as_ref(), last_commit)?.ok_or(DatabaseError::RepairAborted)?;
        let mut content = noted.clone();
        if last_commit == LastCommit::Counts {
            adopt_tail(disk.as_ref(), &mut content)?;
        }
        content.used_end = used_end(disk.as_ref(), content.end.offset)?;
        let log = Log { disk, content: RwLock::new(content) };
        if log.len() > noted.end.offset {
            // From now on it counts. Where that can't be written, the next batch says it.
            let _ = log.note_end();
        }
        Ok(log)
    }
}

impl Log {
    /// Makes an empty file, with room for a batch.
    fn begin(disk: Box<dyn StorageBackend>) -> io::Result<Log> {
        let content = Content::empty(0);
        disk.set_len((BEGIN + BATCH_LIMIT_BYTES as u64).next_multiple_of(GROWTH_BYTES))?;
        for slot in [0, 1] {
            disk.write(slot * PAGE_BYTES, &content.end.encode())?;
        }
        disk.sync_data()?;
        Ok(Log { disk, content: RwLock::new(content) })
    }

    fn content(&self) -> std::sync::RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a batch, and returns when it is on the disk. After an error nothing may be appended any more: what of it is
    /// on the disk isn't known.
    pub(super) fn append(&self, mut records: Records) -> io::Result<()> {
        records.end_page();
        let Content { mut end, slot, used_end, .. } = *self.content();
        let begin = end.offset;
        if used_end > begin {
            // Nothing that a crash left may lie behind this batch and pass for a part of it.
            self.disk.write(begin, &vec![0; usize::try_from(used_end - begin).unwrap_or(0)])?;
            self.disk.sync_data()?;
        }
        end.offset += records.len() as u64;
        if end.first == 0 {
            end.first = records.first.unwrap_or(0);
        }
        end.last = records.last.unwrap_or(0).max(end.last);
        if end.offset > self.disk.len()? {
            self.disk.set_len(end.offset.next_multiple_of(GROWTH_BYTES))?;
        }
        self.disk.write(begin, &records.bytes)?;
        self.write_note(slot, end)?;
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        content.add_all(begin, &records.bytes);
        content.end = end;
        content.used_end = end.offset;
        content.slot = 1 - slot;
        Ok(())
    }

    fn write_note(&self, slot: u64, end: End) -> io::Result<()> {
        self.disk.write(slot * PAGE_BYTES, &end.encode())?;
        self.disk.sync_data()
    }

    /// Notes durably where the file ends.
    fn note_end(&self) -> io::Result<()> {
        let Content { end, slot, .. } = *self.content();
        self.write_note(slot, end)?;
        self.content.write().unwrap_or_else(PoisonError::into_inner).slot = 1 - slot;
        Ok(())
    }

    /// Notes durably that these numbers hold nothing, whatever an older file says: the first, and how many.
    pub(super) fn note_voids(&self, voids: &[(u64, u64)]) -> io::Result<()> {
        let mut records = Records::default();
        voids.iter().for_each(|(first, len)| records.void(*first, *len));
        if voids.is_empty() { Ok(()) } else { self.append(records) }
    }

    /// The numbers that hold nothing: the first, and how many.
    pub(super) fn voids(&self) -> Vec<(u64, u64)> {
        self.content().voids.clone()
    }

    /// The number that the file begins with; None if it was never used.
    pub(super) fn first_number(&self) -> Option<u64> {
        Some(self.content().end.first).filter(|first| *first > 0)
    }

    /// The last number that is taken, as far as this file knows. The one that it begins with counts as well: the numbers
    /// below it were given away in older files.
    pub(super) fn last_number(&self) -> u64 {
        let end = self.content().end;
        end.last.max(end.first.saturating_sub(1))
    }

    /// The last number that holds something.
    pub(super) fn last_number_but(&self, is_void: impl Fn(u64) -> bool) -> u64 {
        let content = self.content();
        let mut numbers = content.groups.iter().rev().flat_map(|group| (group.first..=group.last()).rev());
        numbers.find(|number| !is_void(*number)).unwrap_or(0)
    }

    /// When the last of its marks ends, in Unix milliseconds; 0 if there is none.
    pub(super) fn marks_until(&self) -> u64 {
        self.content().marks_until
    }

    /// How many bytes of the disk it fills.
    pub(super) fn len(&self) -> u64 {
        self.content().end.offset
    }

    /// What the file holds behind a number.
    pub(super) fn rest(&self, acknowledged: u64) -> io::Result<Rest> {
        let (all, group, next) = {
            let content = self.content();
            let behind = content.groups.partition_point(|group| group.first <= acknowledged);
            let group = behind.checked_sub(1).map(|index| content.place(index));
            (content.total, group, content.groups.get(behind).map(|group| group.time))
        };
        let (mut done, mut since) = (Total::default(), next);
        if let Some((group, end)) = group {
            done = group.before;
            let records = self.read(group.offset, end)?;
            for job in jobs_of(&group, &records) {
                let bytes = job.record.map_or(0, |(header, _)| u64::from(header.len));
                if job.number > acknowledged {
                    since = job.record.map(|(header, _)| header.numbers.1).or(since);
                    break;
                }
                done.add(bytes);
            }
        }
        let total = Total { jobs: all.jobs - done.jobs, bytes: all.bytes.saturating_sub(done.bytes) };
        Ok(Rest { total, since: since.filter(|_| total.jobs > 0) })
    }

    /// Adds the jobs with these numbers, as far as the page has room. Those that are damaged are left
    /// out, and their numbers returned.
    pub(super) fn add_jobs(
        &self,
        numbers: RangeInclusive<u64>,
        is_void: impl Fn(u64) -> bool,
        limit: usize,
        bytes: &mut usize,
        page: &mut Page,
    ) -> io::Result<Vec<u64>> {
        let mut damaged = Vec::new();
        let (mut index, len) = {
            let groups = &self.content().groups;
            (groups.partition_point(|group| group.last() < *numbers.start()), groups.len())
        };
        while index < len {
            let (group, end) = self.content().place(index);
            if group.first > *numbers.end() {
                break;
            }
            let records = self.read(group.offset, end)?;
            for job in jobs_of(&group, &records) {
                if !numbers.contains(&job.number) || is_void(job.number) {
                    continue;
                }
                if page.entries.len() >= limit || *bytes >= PAGE_LIMIT_BYTES {
                    return Ok(damaged);
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
            index += 1;
        }
        Ok(damaged)
    }

    /// Hands out the marks of jobs behind a number: the job's number, until when the mark holds, and its content.
    pub(super) fn marks(&self, behind: u64, mut take: impl FnMut(u64, u64, &[u8])) -> io::Result<()> {
        let end = self.content().end.offset;
        walk(self.disk.as_ref(), BEGIN, end, |header, _, content| {
            if header.kind == Kind::MarkedJob
                && header.numbers.0 > behind
                && let Some((until, mark, _)) = decode_marked(content)
            {
                take(header.numbers.0, until, mark);
            }
        })?;
        Ok(())
    }

    fn read(&self, begin: u64, end: u64) -> io::Result<Vec<u8>> {
        read(self.disk.as_ref(), begin, end)
    }
}

/// What the file holds. None if the last batch that it notes isn't whole, and counts.
fn read_content(disk: &dyn StorageBackend, last_commit: LastCommit) -> io::Result<Option<Content>> {
    let length = disk.len()?;
    if length < BEGIN {
        return Err(damaged("it is cut off"));
    }
    let note = |slot: u64| -> io::Result<End> {
        let end = End::decode(&read(disk, slot * PAGE_BYTES, (slot + 1) * PAGE_BYTES)?);
        let fits = |end: &End| end.offset >= BEGIN && end.offset.is_multiple_of(PAGE_BYTES);
        end.filter(fits).ok_or_else(|| damaged(&format!("note {slot} of its end isn't whole")))
    };
    let notes = [note(0)?, note(1)?];
    let order = |end: &End| (end.offset, end.last, end.first);
    let slot = usize::from(order(&notes[0]) > order(&notes[1]));
    let (newest, before) = (notes[1 - slot], notes[slot]);
    let read = |slot: usize, end: End| -> io::Result<(Content, u64)> {
        let mut content = Content::empty(slot as u64);
        let whole_end = walk(disk, BEGIN, end.offset.min(length), |header, offset, bytes| {
            content.add(header, marked_until(header, bytes), offset);
        })?;
        content.end = end;
        Ok((content, whole_end))
    };
    let (content, whole_end) = read(slot, newest)?;
    match last_commit {
        _ if whole_end == newest.offset => Ok(Some(content)),
        _ if whole_end < before.offset => Err(damaged(&format!("it isn't whole behind byte {whole_end}"))),
        LastCommit::Counts => Ok(None),
        // What it gave away in the commit that failed isn't given to others.
        LastCommit::Failed => Ok(Some(read(1 - slot, End { last: newest.last, ..before })?.0)),
    }
}

/// Takes over whole records of a batch behind the end, up to the end of a page.
fn adopt_tail(disk: &dyn StorageBackend, content: &mut Content) -> io::Result<()> {
    let mut tail = Vec::new();
    let length = disk.len()? / PAGE_BYTES * PAGE_BYTES;
    let end = walk(disk, content.end.offset, length, |header, offset, bytes| {
        tail.push((*header, marked_until(header, bytes), offset));
    })?;
    let mut numbers =
        tail.iter().filter(|(header, ..)| is_job(header.kind)).map(|(header, ..)| header.numbers.0);
    if content.end.last > 0
        && !(content.end.last + 1..).zip(&mut numbers).all(|(expect, number)| number == expect)
    {
        return Ok(());
    }
    tail.retain(|(.., offset)| *offset < end);
    tail.iter().for_each(|(header, until, offset)| content.add(header, *until, *offset));
    content.end.offset = end;
    Ok(())
}

/// Behind which page there are zeros alone.
fn used_end(disk: &dyn StorageBackend, begin: u64) -> io::Result<u64> {
    let length = disk.len()?;
    let mut used_end = begin;
    let mut at = begin;
    while at < length {
        let chunk = read(disk, at, length.min(at + CHUNK_BYTES as u64))?;
        let used = chunk.chunks(PAGE_LEN).rposition(|page| !is_zero(page));
        used_end = used.map_or(used_end, |last| at + (last as u64 + 1) * PAGE_BYTES);
        at += chunk.len() as u64;
    }
    Ok(used_end)
}

/// A comparison of the bytes with themselves, one further on, takes a hundredth of a look at each of them.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first == 0)
        && bytes.get(1..).is_none_or(|rest| *rest == bytes[..rest.len()])
}

/// Hands out the records of these bytes, as far as they lie behind each other and are whole. The begin of the page where
/// that ends.
fn walk(
    disk: &dyn StorageBackend,
    begin: u64,
    end: u64,
    mut take: impl FnMut(&Header, u64, &[u8]),
) -> io::Result<u64> {
    let mut window = Window { disk, end, begin, bytes: Vec::new() };
    let (mut at, mut whole_end) = (begin, begin);
    while at < end {
        let page_end = (at + 1).next_multiple_of(PAGE_BYTES);
        if !at.is_multiple_of(PAGE_BYTES) && window.at(at, 1)?.first() == Some(&0) {
            let zeros = window.at(at, page_end - at)?;
            if page_end > end || !is_zero(zeros) {
                break;
            }
            at = page_end;
        } else {
            let Some(header) = frame::header(window.at(at, frame::HEADER_BYTES as u64)?) else { break };
            let record_end = at + frame::HEADER_BYTES as u64 + u64::from(header.len);
            let record = window.at(at, record_end - at)?;
            let Some(content) = record.get(frame::HEADER_BYTES..).filter(|content| header.is_of(content))
            else {
                break;
            };
            take(&header, at, content);
            at = record_end;
        }
        if at.is_multiple_of(PAGE_BYTES) {
            whole_end = at;
        }
    }
    Ok(whole_end)
}

/// A part of a file in memory.
struct Window<'a> {
    disk: &'a dyn StorageBackend,
    end: u64,
    begin: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// So many bytes from there on, or fewer at the end.
    fn at(&mut self, offset: u64, len: u64) -> io::Result<&[u8]> {
        let end = self.end.min(offset + len);
        if offset < self.begin || end > self.begin + self.bytes.len() as u64 {
            self.bytes = read(self.disk, offset, self.end.min(offset + len.max(CHUNK_BYTES as u64)))?;
            self.begin = offset;
        }
        let index = |offset: u64| usize::try_from(offset - self.begin).unwrap_or(usize::MAX);
        Ok(&self.bytes[index(offset)..index(end)])
    }
}

fn read(disk: &dyn StorageBackend, begin: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end - begin).map_err(|_| damaged("it is too long"))?];
    disk.read(begin, &mut bytes)?;
    Ok(bytes)
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A job in the file.
struct Stored<'a> {
    number: u64,
    /// None if its header is damaged.
    record: Option<(Header, &'a [u8])>,
}

impl<'a> Stored<'a> {
    /// The document. None if it is damaged.
    fn document(&self) -> Option<&'a [u8]> {
        let (header, content) = self.record.filter(|(header, content)| header.is_of(content))?;
        match header.kind {
            Kind::MarkedJob => decode_marked(content).map(|(.., document)| document),
            _ => Some(content),
        }
    }
}

/// The jobs of a group, by its records. The disk may have lost some since the file was opened.
fn jobs_of<'a>(group: &Group, records: &'a [u8]) -> Vec<Stored<'a>> {
    let mut jobs = Vec::new();
    let mut next = group.first;
    for (header, content) in frame::split(records) {
        let Some(header) = header.filter(|header| is_job(header.kind)) else { continue };
        let number = header.numbers.0;
        if !(next..=group.last()).contains(&number) {
            continue;
        }
        jobs.extend((next..number).map(|number| Stored { number, record: None }));
        jobs.push(Stored { number, record: Some((header, content)) });
        next = number + 1;
    }
    jobs.extend((next..=group.last()).map(|number| Stored { number, record: None }));
    jobs
}

#[cfg(test)]
mod tests;
