//! What lies in a log: the records of batches, and the notes of where they end.

use super::PAGE_LEN;
use super::scan::is_zero;
use crate::queue::frame::{self, Header, Kind};

/// The records of a batch.
#[derive(Debug, Default)]
pub struct Records {
    pub(super) bytes: Vec<u8>,
    /// What is in them; offsets count from the batch's begin.
    pub(super) index: Vec<Record>,
    /// The number that the file begins with, if it is empty.
    pub(super) first: Option<u64>,
    /// The last number that is given away.
    pub(super) last: Option<u64>,
}

impl Records {
    /// With room for so many bytes, and for the zeros behind them.
    pub fn with_capacity(bytes: usize) -> Records {
        Records { bytes: Vec::with_capacity(bytes + PAGE_LEN), ..Records::default() }
    }

    /// A job, by the content of its record.
    pub fn job(&mut self, kind: Kind, number: u64, time: u64, content: &[u8]) {
        self.push(kind, (number, time), content);
        self.reach(number, number);
    }

    /// Numbers up to the last one are given away, and an empty file begins with the first one, although no job may be there.
    pub fn reach(&mut self, first: u64, last: u64) {
        self.first.get_or_insert(first);
        self.last = self.last.max(Some(last));
    }

    fn push(&mut self, kind: Kind, numbers: (u64, u64), content: &[u8]) {
        let offset = self.bytes.len() as u64;
        let header = frame::push(&mut self.bytes, kind, numbers, content);
        self.index.push(Record::of(&header, content, offset));
    }

    /// Notes that so many numbers from there on hold nothing, whatever an older file says: twice, on pages of their own,
    /// because without them what was refused would be delivered.
    pub(super) fn void(&mut self, first: u64, len: u64) {
        for _ in 0..2 {
            self.end_page();
            self.push(Kind::Void, (first, len), &[]);
        }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn end_page(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(PAGE_LEN), 0);
    }
}

/// What the index says of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) numbers: (u64, u64),
    /// Where it begins.
    pub(super) offset: u64,
    /// The document's length.
    pub(super) bytes: u64,
    /// Until when its mark holds in Unix milliseconds; 0 if it has none.
    pub(super) until: u64,
}

impl Record {
    pub(super) fn of(header: &Header, content: &[u8], offset: u64) -> Record {
        let mark = Some(content).filter(|_| header.kind == Kind::MarkedJob).and_then(decode_marked);
        Record {
            kind: header.kind,
            numbers: header.numbers,
            offset,
            bytes: document_of(header.kind, content).map_or(0, <[u8]>::len) as u64,
            until: mark.map_or(0, |(until, ..)| until),
        }
    }
}

/// Where a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) offset: u64,
    /// 0 if it was never used.
    pub(super) first: u64,
    pub(super) last: u64,
}

impl End {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut page = frame::encode(Kind::End, (self.last, self.offset), &self.first.to_le_bytes());
        page.resize(PAGE_LEN, 0);
        page
    }

    /// None if it is damaged.
    pub(super) fn decode(page: &[u8]) -> Option<End> {
        let (record, rest) = page.split_at_checked(frame::HEADER_BYTES + 8)?;
        let ((last, offset), first) = frame::decode(record, Kind::End)?;
        let first = first_number(first)?;
        is_zero(rest).then_some(End { offset, first, last })
    }
}

/// The number that a file begins with, by what a note of its end holds.
pub fn first_number(content: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(content.try_into().ok()?))
}

/// Until when a mark holds in Unix milliseconds, its content, and the document, by the content of a record.
pub(super) type Marked<'a> = (u64, &'a [u8], &'a [u8]);

/// The content of a job's record that holds its mark, so that neither is there without the other.
pub fn encode_marked(until: u64, mark: &[u8], document: &[u8]) -> Vec<u8> {
    let len = u32::try_from(mark.len()).unwrap_or(u32::MAX);
    [&until.to_le_bytes()[..], &len.to_le_bytes(), mark, document].concat()
}

pub(super) fn decode_marked(content: &[u8]) -> Option<Marked<'_>> {
    let (until, rest) = content.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let (mark, document) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    Some((u64::from_le_bytes(*until), mark, document))
}

/// The document of a job's record. None if it is none.
pub(super) fn document_of(kind: Kind, content: &[u8]) -> Option<&[u8]> {
    match kind {
        Kind::Job => Some(content),
        Kind::MarkedJob => decode_marked(content).map(|(.., document)| document),
        _ => None,
    }
}

/// Whether a record is a job.
pub fn is_job(kind: Kind) -> bool {
    matches!(kind, Kind::Job | Kind::MarkedJob)
}
