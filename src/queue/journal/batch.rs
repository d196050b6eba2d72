//! A batch as it lies in the journal: a record ([`frame`]) that says where it belongs, and its jobs behind each other. So
//! it can be told without everything around it which lane it is of, who numbered it, and with what number.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::job::Dedupe;
use crate::queue::frame::{self, Header, Kind};
use crate::queue::producer::Position;

/// The version of the encoding.
const VERSION: u8 = 1;

/// Where a batch belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its lane.
    pub lane: u32,
    /// Its place in the lane.
    pub place: u64,
    /// How many jobs it has.
    pub jobs: u32,
    /// Who numbered it.
    pub producer: Uuid,
    /// The number that it had when it was written: it may have been numbered anew.
    pub position: Position,
}

/// A job of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The job's document.
    pub bytes: Bytes,
    /// How repeats of it are known, where they are dropped, and the job's id.
    pub dedupe: Option<(Uuid, Dedupe)>,
}

/// Jobs that go together; cheap to clone.
pub type Batch = Arc<[Document]>;

/// How many bytes a batch's documents have.
pub fn size_bytes(batch: &[Document]) -> usize {
    batch.iter().map(|document| document.bytes.len()).sum()
}

/// Writes a batch.
pub fn encode(lane: u32, place: u64, producer: Uuid, position: Position, batch: &[Document]) -> Vec<u8> {
    let mut out = Vec::with_capacity(size_bytes(batch) + batch.len() * 8 + 48);
    out.push(VERSION);
    out.extend_from_slice(producer.as_bytes());
    out.extend_from_slice(&position.epoch.to_le_bytes());
    out.extend_from_slice(&position.seq.to_le_bytes());
    push_length(&mut out, batch.len());
    for document in batch {
        match &document.dedupe {
            None => push_length(&mut out, 0),
            Some((job, dedupe)) => {
                push_length(&mut out, dedupe.key.len());
                out.extend_from_slice(dedupe.key.as_bytes());
                out.extend_from_slice(job.as_bytes());
                let within = u64::try_from(dedupe.within.as_millis()).unwrap_or(u64::MAX);
                out.extend_from_slice(&within.to_le_bytes());
            }
        }
        push_length(&mut out, document.bytes.len());
        out.extend_from_slice(&document.bytes);
    }
    let jobs = u32::try_from(batch.len()).unwrap_or(u32::MAX);
    frame::encode(Kind::Batch, (place, u64::from(lane) << 32 | u64::from(jobs)), &out)
}

/// The lane, the place and the number of jobs that a batch's header says.
pub fn place_of(header: &Header) -> (u32, u64, u32) {
    let (place, rest) = header.numbers;
    #[allow(clippy::cast_possible_truncation)]
    let (lane, jobs) = ((rest >> 32) as u32, rest as u32);
    (lane, place, jobs)
}

/// Lengths fit: a batch holds 256 jobs and a body is at most 32 MiB.
fn push_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

/// Reads a batch. None if it is damaged, or another one.
pub fn decode(bytes: &[u8], lane: u32, place: u64) -> Option<Batch> {
    let header = frame::header(bytes)?;
    let (_, content) = frame::decode(bytes, Kind::Batch)?;
    let (label, mut rest) = open(&header, content)?;
    if (label.lane, label.place) != (lane, place) {
        return None;
    }
    let count = take_length(&mut rest)?;
    let documents = (0..count).map(|_| take_document(&mut rest)).collect::<Option<Vec<_>>>()?;
    rest.is_empty().then(|| documents.into())
}

/// Where a batch belongs, by its header and its content.
pub fn label(header: &Header, content: &[u8]) -> Option<Label> {
    Some(open(header, content)?.0)
}

fn open(header: &Header, content: &[u8]) -> Option<(Label, Bytes)> {
    let (lane, place, jobs) = place_of(header);
    let mut rest = Bytes::copy_from_slice(content);
    if take(&mut rest, 1)?[0] != VERSION {
        return None;
    }
    let producer = Uuid::from_slice(&take(&mut rest, 16)?).ok()?;
    let position = Position { epoch: take_number(&mut rest)?, seq: take_number(&mut rest)? };
    Some((Label { lane, place, jobs, producer, position }, rest))
}

fn take_number(rest: &mut Bytes) -> Option<u64> {
    Some(u64::from_le_bytes(take(rest, 8)?.as_ref().try_into().ok()?))
}

fn take_document(rest: &mut Bytes) -> Option<Document> {
    let dedupe = match take_length(rest)? {
        0 => None,
        length => {
            let key = String::from_utf8(take(rest, length)?.to_vec()).ok()?;
            let job = Uuid::from_slice(&take(rest, 16)?).ok()?;
            let within = take_number(rest)?;
            Some((job, Dedupe { key, within: Duration::from_millis(within) }))
        }
    };
    let length = take_length(rest)?;
    Some(Document { bytes: take(rest, length)?, dedupe })
}

fn take(rest: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= rest.len()).then(|| rest.split_to(length))
}

fn take_length(rest: &mut Bytes) -> Option<usize> {
    let bytes = take(rest, 4)?;
    usize::try_from(u32::from_le_bytes(bytes.as_ref().try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_document() -> impl Strategy<Value = Document> {
        let dedupe = proptest::option::of((".{1,20}", any::<u128>(), any::<u32>()));
        (proptest::collection::vec(any::<u8>(), 0..200), dedupe).prop_map(|(bytes, dedupe)| Document {
            bytes: bytes.into(),
            dedupe: dedupe.map(|(key, job, within)| {
                (Uuid::from_u128(job), Dedupe { key, within: Duration::from_millis(u64::from(within)) })
            }),
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_in_its_place_alone(
            documents in proptest::collection::vec(any_document(), 0..8),
            (lane, place, epoch, seq) in any::<(u32, u64, u64, u64)>(),
        ) {
            let (producer, position) = (Uuid::new_v4(), Position { epoch, seq });
            let encoded = encode(lane, place, producer, position, &documents);
            let decoded = decode(&encoded, lane, place);
            prop_assert_eq!(decoded.as_deref(), Some(documents.as_slice()));
            let jobs = u32::try_from(documents.len()).unwrap();
            let header = frame::header(&encoded).unwrap();
            let expect = Label { lane, place, jobs, producer, position };
            prop_assert_eq!(label(&header, &encoded[frame::HEADER_BYTES..]), Some(expect));
            prop_assert_eq!(decode(&encoded, lane, place ^ 1), None);
            prop_assert_eq!(decode(&encoded, lane ^ 1, place), None);
        }
    }
}
