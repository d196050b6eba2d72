//! A batch as it lies in the journal: its jobs behind each other, and a checksum over all of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::job::Dedupe;

/// The version of the encoding.
const VERSION: u8 = 1;

/// How much of SHA-256 is kept: it tells damage, not forgery.
const CHECKSUM_BYTES: usize = 8;

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
pub fn encode(batch: &[Document]) -> Vec<u8> {
    let mut out = Vec::with_capacity(size_bytes(batch) + batch.len() * 8 + 16);
    out.push(VERSION);
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
    let checksum = Sha256::digest(&out);
    out.extend_from_slice(&checksum[..CHECKSUM_BYTES]);
    out
}

/// Lengths fit: a batch holds 256 jobs and a body is at most 32 MiB.
fn push_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

/// Reads a batch. None if it is damaged.
pub fn decode(bytes: &[u8]) -> Option<Batch> {
    let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    if Sha256::digest(content)[..CHECKSUM_BYTES] != *checksum {
        return None;
    }
    let mut rest = Bytes::copy_from_slice(content);
    if take(&mut rest, 1)?[0] != VERSION {
        return None;
    }
    let count = take_length(&mut rest)?;
    let documents = (0..count).map(|_| take_document(&mut rest)).collect::<Option<Vec<_>>>()?;
    rest.is_empty().then(|| documents.into())
}

fn take_document(rest: &mut Bytes) -> Option<Document> {
    let dedupe = match take_length(rest)? {
        0 => None,
        length => {
            let key = String::from_utf8(take(rest, length)?.to_vec()).ok()?;
            let job = Uuid::from_slice(&take(rest, 16)?).ok()?;
            let within = u64::from_le_bytes(take(rest, 8)?.as_ref().try_into().ok()?);
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
        fn what_is_written_is_read_and_a_flipped_bit_is_noticed(
            documents in proptest::collection::vec(any_document(), 0..8),
            at in any::<prop::sample::Index>(),
            bit in 0..8,
        ) {
            let encoded = encode(&documents);
            let decoded = decode(&encoded);
            prop_assert_eq!(decoded.as_deref(), Some(documents.as_slice()));
            let mut damaged = encoded.clone();
            damaged[at.index(encoded.len())] ^= 1u8 << bit;
            prop_assert_eq!(decode(&damaged), None);
            prop_assert_eq!(decode(&encoded[..at.index(encoded.len())]), None);
        }
    }
}
