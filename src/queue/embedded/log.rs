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

mod content;
mod records;
mod scan;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::RangeInclusive;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use redb::{DatabaseError, StorageBackend};

pub use self::content::Total;
use self::content::{Content, Group};
use self::records::{Record, decode_marked, document_of};
pub use self::records::{Records, encode_marked, first_number, is_job};
use self::scan::{adopt_tail, read, read_content, used_end, walk};
use crate::queue::files::{Generation, LastCommit};
use crate::queue::frame::{self, Header};
use crate::queue::lane::{BATCH_LIMIT_BYTES, BATCH_LIMIT_JOBS};
use crate::queue::{Entry, PAGE_LIMIT_BYTES, Page};

/// What a disk reads and writes as a whole. A batch begins with one: a part of a page that isn't in the page cache would
/// have to be read before it is written.
const PAGE_LEN: usize = 4096;
const PAGE_BYTES: u64 = PAGE_LEN as u64;

/// Behind the two notes.
const BEGIN: u64 = 2 * PAGE_BYTES;

/// A file without room grows by so much.
const GROWTH_BYTES: u64 = 64 << 10;

/// What of a file isn't acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rest {
    pub(super) total: Total,
    /// When the oldest of them was stored, in Unix milliseconds.
    pub(super) since: Option<u64>,
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
        let mut content = read_content(disk.as_ref(), last_commit)?.ok_or(DatabaseError::RepairAborted)?;
        let noted_end = content.end.offset;
        if last_commit == LastCommit::Counts {
            adopt_tail(disk.as_ref(), &mut content)?;
        }
        content.used_end = used_end(disk.as_ref(), content.end.offset)?;
        let log = Log { disk, content: RwLock::new(content) };
        if log.len() > noted_end {
            // What was taken over counts from now on. Where that can't be noted, it is with the next batch.
            let _ = log.append(Records::default());
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

    /// Appends a batch, and returns when it is on the disk; an empty one only notes the end. After an error nothing may be appended any more: what of it is
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
        self.disk.write(slot * PAGE_BYTES, &end.encode())?;
        self.disk.sync_data()?;
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        for record in records.index {
            content.add(&Record { offset: begin + record.offset, ..record });
        }
        content.end = end;
        content.used_end = end.offset;
        content.slot = 1 - slot;
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
                if job.number > acknowledged {
                    since = job.record.map(|(header, _)| header.numbers.1).or(since);
                    break;
                }
                done.add(job.record.map_or(0, |(header, content)| Record::of(&header, content, 0).bytes));
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
        walk(self.disk.as_ref(), BEGIN, end, |record, content| {
            if record.until > 0
                && record.numbers.0 > behind
                && let Some((until, mark, _)) = decode_marked(content)
            {
                take(record.numbers.0, until, mark);
            }
        })?;
        Ok(())
    }

    fn read(&self, begin: u64, end: u64) -> io::Result<Vec<u8>> {
        read(self.disk.as_ref(), begin, end)
    }
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
        document_of(header.kind, content)
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
