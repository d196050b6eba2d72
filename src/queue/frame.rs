//! Records that are known wherever they lie: each says what it is and carries checksums over all of that and over its
//! content. So a damaged file is read without its trees and roots, and nothing is taken for a record that isn't one.
//!
//! | bytes | |
//! |---|---|
//! | 3 | `FF C0 FE`: no text in UTF-8 holds any of these bytes, so no sender can write a record into a document |
//! | 1 | the kind |
//! | 4 | length of the content |
//! | 8 + 8 | two numbers; the kind says what they mean |
//! | 4 | CRC-32 of the content |
//! | 4 | CRC-32 of everything before |
//!
//! All numbers are little-endian.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: [u8; 3] = [0xFF, 0xC0, 0xFE];

/// What stands before a record's content.
pub const HEADER_BYTES: usize = 32;

/// How much of a file is searched at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What a disk reads, or doesn't, as a whole.
const SECTOR_BYTES: usize = 4096;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A job of the embedded queue: its number, and when it was stored in Unix milliseconds; the document.
    Job = 1,
    /// Where a file of the embedded queue ends: its last number, and the offset behind what counts; its first number.
    End = 2,
    /// Numbers of the embedded queue that hold nothing: the first, and how many.
    Void = 3,
    /// A mark of a delivery in the embedded queue: until when it holds; the first job's id and the key.
    Mark = 4,
    /// A batch of the journal: its place, and its lane (upper half) and how many jobs it has; producer, position, jobs.
    Batch = 5,
    /// What the journal notes: the epoch, and a number that grows with each commit; everything else.
    Notes = 6,
    /// A job of the embedded queue whose repeats are dropped: as a job; before the document stands the mark.
    MarkedJob = 7,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        [Kind::Job, Kind::End, Kind::Void, Kind::Mark, Kind::Batch, Kind::Notes, Kind::MarkedJob]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// What a record says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// The two numbers.
    pub numbers: (u64, u64),
    /// Length of the content.
    pub len: u32,
    checksum: u32,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..3].copy_from_slice(&MAGIC);
        bytes[3] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.numbers.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.numbers.1.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.checksum.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Whether that is the content which it speaks of.
    pub fn is_of(&self, content: &[u8]) -> bool {
        usize::try_from(self.len) == Ok(content.len()) && crc32fast::hash(content) == self.checksum
    }
}

/// A record in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it says of itself.
    pub header: Header,
    /// Where its content begins.
    offset: u64,
}

/// All records of a file, and what is left of others.
#[derive(Debug)]
pub struct Frames {
    file: fs::File,
    /// Whole ones, in the order of the file. One may be there several times, and one that was removed still.
    pub whole: Vec<Found>,
    /// The headers of those whose content isn't what was written.
    pub damaged: Vec<Header>,
    /// What the disk doesn't give.
    pub unreadable_bytes: u64,
}

/// A record as bytes.
pub fn encode(kind: Kind, numbers: (u64, u64), content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + content.len());
    push(&mut out, kind, numbers, content);
    out
}

/// Writes a record behind what is there. Its header.
pub fn push(out: &mut Vec<u8>, kind: Kind, numbers: (u64, u64), content: &[u8]) -> Header {
    let header = Header {
        kind,
        numbers,
        // What is stored is far smaller: a body is at most 32 MiB.
        len: u32::try_from(content.len()).unwrap_or(u32::MAX),
        checksum: crc32fast::hash(content),
    };
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(content);
    header
}

/// Reads the header at the begin of these bytes. None if there is none.
pub fn header(bytes: &[u8]) -> Option<Header> {
    let bytes = bytes.get(..HEADER_BYTES)?;
    if bytes[..3] != MAGIC || crc32fast::hash(&bytes[..28]).to_le_bytes() != bytes[28..] {
        return None;
    }
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let half = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some(Header {
        kind: Kind::of(bytes[3])?,
        numbers: (number(8)?, number(16)?),
        len: half(4)?,
        checksum: half(24)?,
    })
}

/// Reads a record of that kind which is all of these bytes: its numbers and its content. None if it is damaged.
pub fn decode(bytes: &[u8], kind: Kind) -> Option<((u64, u64), &[u8])> {
    let header = header(bytes)?;
    let content = &bytes[HEADER_BYTES..];
    (header.kind == kind && header.is_of(content)).then_some((header.numbers, content))
}

/// Takes apart records that lie behind each other, with contents that may be damaged ([`Header::is_of`]). Bytes that no
/// header speaks for come without one.
pub fn split(bytes: &[u8]) -> impl Iterator<Item = (Option<Header>, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let found = header(rest);
        let (begin, end) = match &found {
            Some(header) => (HEADER_BYTES, HEADER_BYTES + usize::try_from(header.len).unwrap_or(usize::MAX)),
            None => (0, (1..rest.len()).find(|at| header(&rest[*at..]).is_some()).unwrap_or(rest.len())),
        };
        let (record, behind) = rest.split_at(end.min(rest.len()));
        rest = behind;
        Some((found, &record[begin..]))
    })
}

impl Frames {
    /// Searches a file. What the disk doesn't give counts as empty.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn find(path: &Path) -> io::Result<Frames> {
        let file = fs::File::open(path)?;
        let end = file.metadata()?.len();
        let mut frames = Frames { file, whole: Vec::new(), damaged: Vec::new(), unreadable_bytes: 0 };
        let mut chunk = vec![0; CHUNK_BYTES + HEADER_BYTES];
        let mut at = 0;
        while at < end {
            let len = usize::try_from(end - at).map_or(chunk.len(), |rest| rest.min(chunk.len()));
            let chunk = &mut chunk[..len];
            frames.unreadable_bytes += read_around(&frames.file, at, chunk);
            at = frames.search(at, chunk);
        }
        Ok(frames)
    }

    /// Where the search goes on.
    fn search(&mut self, begin: u64, chunk: &[u8]) -> u64 {
        let mut at = 0;
        while let Some(hit) = chunk[at..].iter().position(|byte| *byte == MAGIC[0]) {
            at += hit;
            if at >= CHUNK_BYTES {
                break;
            }
            let Some(header) = header(&chunk[at..]) else {
                at += 1;
                continue;
            };
            let found = Found { header, offset: begin + (at + HEADER_BYTES) as u64 };
            if self.read(&found).is_some() {
                self.whole.push(found);
                let next = found.offset + u64::from(header.len);
                match usize::try_from(next - begin) {
                    Ok(next) if next < chunk.len() => at = next,
                    _ => return next,
                }
            } else {
                self.damaged.push(header);
                at += HEADER_BYTES;
            }
        }
        begin + chunk.len().min(CHUNK_BYTES) as u64
    }

    /// The content of a record. None if it isn't what was written.
    pub fn read(&self, found: &Found) -> Option<Vec<u8>> {
        let end = self.file.metadata().ok()?.len();
        if found.offset + u64::from(found.header.len) > end {
            return None;
        }
        let mut content = vec![0; usize::try_from(found.header.len).ok()?];
        self.file.read_exact_at(&mut content, found.offset).ok()?;
        found.header.is_of(&content).then_some(content)
    }

    /// Whether there is anything whole but jobs.
    pub fn has_notes(&self) -> bool {
        self.whole.iter().any(|found| ![Kind::Job, Kind::MarkedJob, Kind::Batch].contains(&found.header.kind))
    }

    /// Whole records of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Found> {
        self.whole.iter().filter(move |found| found.header.kind == kind)
    }
}

/// Reads what can be read, and zeros for the rest; how many bytes that is.
fn read_around(file: &fs::File, at: u64, out: &mut [u8]) -> u64 {
    if file.read_exact_at(out, at).is_ok() {
        return 0;
    }
    let mut unreadable = 0;
    let mut at = at;
    for sector in out.chunks_mut(SECTOR_BYTES) {
        if file.read_exact_at(sector, at).is_err() {
            sector.fill(0);
            unreadable += sector.len() as u64;
        }
        at += sector.len() as u64;
    }
    unreadable
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_are_found_wherever_they_lie_and_across_chunks() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("file");
        for shift in [0, 1, CHUNK_BYTES - 100, CHUNK_BYTES - 31, CHUNK_BYTES - 1, CHUNK_BYTES] {
            let mut bytes = vec![0xFF; shift];
            for number in 0..3u8 {
                bytes.extend(encode(Kind::Job, (number.into(), 7), &vec![b'x'; 700 * usize::from(number)]));
                bytes.extend([0xFF, 0xC0, 0xFE, 1, 0]);
            }
            let large = vec![b'y'; 3 * CHUNK_BYTES];
            bytes.extend(encode(Kind::Mark, (3, 7), &large));
            bytes.extend(encode(Kind::Job, (4, 7), b""));
            fs::write(&path, &bytes).unwrap();
            let frames = Frames::find(&path).unwrap();
            let numbers: Vec<_> = frames.whole.iter().map(|found| found.header.numbers.0).collect();
            assert_eq!(numbers, [0, 1, 2, 3, 4], "shifted by {shift}");
            assert_eq!(frames.read(&frames.whole[3]), Some(large));
            assert_eq!((frames.damaged.len(), frames.unreadable_bytes), (0, 0));
        }
    }

    #[test]
    fn a_record_with_a_damaged_content_is_still_known_by_its_header() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("file");
        let mut bytes = [encode(Kind::Job, (1, 2), b"one"), encode(Kind::Job, (2, 2), b"two")].concat();
        bytes[HEADER_BYTES] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let frames = Frames::find(&path).unwrap();
        assert_eq!(frames.damaged.iter().map(|header| header.numbers.0).collect::<Vec<_>>(), [1]);
        assert_eq!(frames.of(Kind::Job).map(|found| found.header.numbers.0).collect::<Vec<_>>(), [2]);
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(Frames::find(&path).unwrap().damaged.len(), 2, "one that is cut off is damaged as well");
    }

    #[test]
    fn records_behind_each_other_come_apart_around_a_damaged_header() {
        let records = [1u8, 2, 3].map(|number| encode(Kind::Job, (number.into(), 7), &[number; 40]));
        let bytes = records.concat();
        let whole = |bytes: &[u8]| -> Vec<Option<(u64, bool)>> {
            split(bytes)
                .map(|(header, content)| header.map(|header| (header.numbers.0, header.is_of(content))))
                .collect()
        };
        assert_eq!(whole(&bytes), [1, 2, 3].map(|number| Some((number, true))));
        assert_eq!(whole(b""), []);
        let length = records[0].len();
        for (at, expect) in [
            (9, [None, Some((2, true)), Some((3, true))]),
            (length + 5, [Some((1, true)), None, Some((3, true))]),
            (2 * length + 31, [Some((1, true)), Some((2, true)), None]),
            (length + HEADER_BYTES, [Some((1, true)), Some((2, false)), Some((3, true))]),
        ] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert_eq!(whole(&damaged), expect, "byte {at}");
        }
        let cut = [Some((1, true)), Some((2, true)), Some((3, false))];
        assert_eq!(whole(&bytes[..bytes.len() - 1]), cut, "one that is cut off");
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed_wherever_it_is(
            content in proptest::collection::vec(any::<u8>(), 0..200),
            numbers in any::<(u64, u64)>(),
            at in any::<prop::sample::Index>(),
            bit in 0..8,
        ) {
            let encoded = encode(Kind::Batch, numbers, &content);
            prop_assert_eq!(decode(&encoded, Kind::Batch), Some((numbers, content.as_slice())));
            prop_assert_eq!(decode(&encoded, Kind::Job), None);
            let mut damaged = encoded.clone();
            damaged[at.index(encoded.len())] ^= 1u8 << bit;
            prop_assert_eq!(decode(&damaged, Kind::Batch), None);
            prop_assert_eq!(decode(&encoded[..at.index(encoded.len())], Kind::Batch), None);
        }
    }
}
