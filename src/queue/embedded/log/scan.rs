//! Reads a log from its begin on and checks every record.

use std::io;

use redb::StorageBackend;

use super::content::Content;
use super::records::{End, Record, is_job};
use super::{BEGIN, PAGE_BYTES, PAGE_LEN};
use crate::queue::files::LastCommit;
use crate::queue::frame;

/// How much is read of it at a time: pieces of 1 MiB take three times as long.
const CHUNK_BYTES: usize = 4 << 20;

/// What the file holds. None if the last batch that it notes isn't whole, and counts.
pub(super) fn read_content(
    disk: &dyn StorageBackend,
    last_commit: LastCommit,
) -> io::Result<Option<Content>> {
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
        let whole_end = walk(disk, BEGIN, end.offset.min(length), |record, _| content.add(record))?;
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
pub(super) fn adopt_tail(disk: &dyn StorageBackend, content: &mut Content) -> io::Result<()> {
    let mut tail = Vec::new();
    let length = disk.len()? / PAGE_BYTES * PAGE_BYTES;
    let end = walk(disk, content.end.offset, length, |record, _| tail.push(*record))?;
    let mut numbers = tail.iter().filter(|record| is_job(record.kind)).map(|record| record.numbers.0);
    if content.end.last > 0
        && !(content.end.last + 1..).zip(&mut numbers).all(|(expect, number)| number == expect)
    {
        return Ok(());
    }
    tail.iter().filter(|record| record.offset < end).for_each(|record| content.add(record));
    content.end.offset = end;
    Ok(())
}

/// Behind which page there are zeros alone.
pub(super) fn used_end(disk: &dyn StorageBackend, begin: u64) -> io::Result<u64> {
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
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first == 0)
        && bytes.get(1..).is_none_or(|rest| *rest == bytes[..rest.len()])
}

/// Hands out the records of these bytes, as far as they lie behind each other and are whole. The begin of the page where
/// that ends.
pub(super) fn walk(
    disk: &dyn StorageBackend,
    begin: u64,
    end: u64,
    mut take: impl FnMut(&Record, &[u8]),
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
            take(&Record::of(&header, content, at), content);
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

pub(super) fn read(disk: &dyn StorageBackend, begin: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end - begin).map_err(|_| damaged("it is too long"))?];
    disk.read(begin, &mut bytes)?;
    Ok(bytes)
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
