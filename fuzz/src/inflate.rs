//! Content codings.

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use retrieve_gateway::memory::{Exhausted, MemoryBudget};
use retrieve_gateway::payload::inflate::{Bounds, Coding, RATIO_FLOOR_BYTES, inflate as undo};

const BOUNDS: Bounds = Bounds { limit_bytes: 1 << 20, ratio: 100 };

/// `g` or `d`, then a stream. What comes out is what flate2 reads of it; it is within the bounds; and so much was asked for
/// before it was taken.
pub fn inflate(input: &[u8]) {
    let Some((coding, stream)) = input.split_first() else { return };
    let coding = if *coding == b'd' { Coding::Deflate } else { Coding::Gzip };
    let budget = MemoryBudget::new(4 * BOUNDS.limit_bytes);
    let mut held = budget.reserve(0).expect("room");
    let mut asked = 0;
    let mut reserve = |bytes: usize| -> Result<(), Exhausted> {
        asked += bytes;
        budget.extend(&mut held, bytes)
    };
    let result = undo(coding, stream, BOUNDS, &mut reserve);
    assert!(asked <= BOUNDS.limit_bytes + 1, "{asked} bytes asked for");
    assert!(
        asked <= RATIO_FLOOR_BYTES.max(stream.len() * BOUNDS.ratio) * 2 + 1,
        "{asked} bytes for {}",
        stream.len()
    );
    let Ok(content) = result else { return };
    assert!(content.len() <= BOUNDS.limit_bytes && content.capacity() <= asked.max(content.len()));
    if stream.is_empty() {
        assert!(content.is_empty());
        return;
    }
    let judged = match coding {
        Coding::Gzip => read(MultiGzDecoder::new(stream)),
        Coding::Deflate => read(ZlibDecoder::new(stream)).or_else(|| read(DeflateDecoder::new(stream))),
    };
    assert_eq!(judged.as_deref(), Some(content.as_slice()));
}

fn read(mut decoder: impl Read) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    decoder.read_to_end(&mut content).ok().map(|_| content)
}
