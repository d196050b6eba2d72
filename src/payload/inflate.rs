//! `Content-Encoding`: gzip and deflate are undone, within bounds and without trust in what a stream says of itself.
//!
//! One coding at the most: no sender compresses twice, and each layer would multiply what a few bytes can become.
//! gzip may have several members (RFC 1952, section 2.2), as log shippers write them. `deflate` is the zlib format
//! (RFC 9110, section 8.4.1.2) or, as some senders have it and browsers take it, DEFLATE without a frame. A stream
//! that ends early, has a wrong checksum or goes on behind its end is refused, so that a job is never half a webhook.

#[cfg(test)]
mod tests;

use flate2::{Crc, Decompress, FlushDecompress, Status};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::Limits;
use crate::memory::Exhausted;

/// A coding of `Content-Encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`, `x-gzip`: RFC 1952.
    Gzip,
    /// `deflate`: RFC 1950, or RFC 1951 without a frame.
    Deflate,
}

/// The bounds of a decompressed body.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The largest content in bytes.
    pub limit_bytes: usize,
    /// How many times larger than its compressed bytes it may be, once it is larger than [`RATIO_FLOOR_BYTES`].
    pub ratio: usize,
}

/// Up to this size the ratio doesn't matter: so much costs nothing, and a short text of repetitions is no attack.
pub const RATIO_FLOOR_BYTES: usize = 128 << 10;

/// How many members a gzip body may have; each costs a start of the decompressor, however empty it is.
const MEMBER_LIMIT: usize = 1024;

/// Why a compressed body wasn't decompressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// A coding that isn't known, or more than one.
    #[error("The content encoding {0} isn't supported; send the body uncompressed, or as gzip or deflate")]
    Unsupported(String),
    /// The bytes aren't what the coding says.
    #[error("The compressed body is malformed: {0}")]
    Malformed(&'static str),
    /// The content is larger than the limit in bytes.
    #[error("The decompressed body is larger than {0} bytes")]
    TooLarge(usize),
    /// The content is too many times larger than the compressed bytes.
    #[error("The body is compressed by more than {0} to 1; send it uncompressed")]
    TooDense(usize),
    /// The bodies in flight fill the memory that is set aside for them.
    #[error("no memory left for the decompressed body")]
    NoMemory,
}

impl From<Exhausted> for InflateError {
    fn from(_: Exhausted) -> Self {
        InflateError::NoMemory
    }
}

impl Bounds {
    /// The bounds of an integration with this body limit.
    pub fn new(limit_bytes: usize, limits: &Limits) -> Bounds {
        Bounds { limit_bytes, ratio: limits.compression_ratio }
    }
}

/// The coding that a request's head names, if any.
///
/// # Errors
/// [`InflateError::Unsupported`].
pub fn coding(headers: &HeaderMap) -> Result<Option<Coding>, InflateError> {
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let named = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        codings.extend(named.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity")));
    }
    match codings.as_slice() {
        [] => Ok(None),
        [name] if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => {
            Ok(Some(Coding::Gzip))
        }
        [name] if name.eq_ignore_ascii_case(b"deflate") => Ok(Some(Coding::Deflate)),
        names => Err(InflateError::Unsupported(super::shown(&names.join(&b", "[..])))),
    }
}

/// Undoes a coding. `reserve` is asked for memory before it is taken, so many bytes at a time; the answer's capacity
/// is what was asked for, and never more than one byte over the limit.
///
/// # Errors
/// What is wrong with the stream, which bound it broke, or that `reserve` had none.
pub fn inflate(
    coding: Coding,
    input: &[u8],
    bounds: Bounds,
    reserve: &mut dyn FnMut(usize) -> Result<(), Exhausted>,
) -> Result<Vec<u8>, InflateError> {
    // Some senders name a coding for a body that isn't there.
    if input.is_empty() {
        return Ok(Vec::new());
    }
    let mut inflater = Inflater { input, at: 0, out: Vec::new(), bounds, reserve };
    match coding {
        Coding::Gzip => inflater.gzip()?,
        Coding::Deflate => inflater.stream(&mut Decompress::new(has_zlib_header(input)))?,
    }
    if inflater.at < input.len() {
        return Err(InflateError::Malformed("it goes on behind its end"));
    }
    Ok(inflater.out)
}

struct Inflater<'i, 'r> {
    input: &'i [u8],
    at: usize,
    out: Vec<u8>,
    bounds: Bounds,
    reserve: &'r mut dyn FnMut(usize) -> Result<(), Exhausted>,
}

impl<'i> Inflater<'i, '_> {
    /// One member after the other, to the end of the input or to what isn't one.
    fn gzip(&mut self) -> Result<(), InflateError> {
        let mut decompress = Decompress::new(false);
        for _ in 0..MEMBER_LIMIT {
            self.gzip_header()?;
            let start = self.out.len();
            decompress.reset(false);
            self.stream(&mut decompress)?;
            self.gzip_trailer(start)?;
            if !self.input[self.at..].starts_with(&GZIP_MAGIC) {
                return Ok(());
            }
        }
        Err(InflateError::Malformed("it has more than 1024 gzip members"))
    }

    /// RFC 1952, section 2.3. What it says of the content is passed over.
    fn gzip_header(&mut self) -> Result<(), InflateError> {
        const DEFLATE: u8 = 8;
        const HEADER_CRC: u8 = 2;
        const EXTRA: u8 = 4;
        const NAME: u8 = 8;
        const COMMENT: u8 = 16;
        let start = self.at;
        let header = self.take(10)?;
        if !header.starts_with(&GZIP_MAGIC) {
            return Err(InflateError::Malformed("it isn't gzip"));
        }
        let flags = header[3];
        // Reserved bits must be zero, or fields may follow that nobody can find the end of.
        if header[2] != DEFLATE || flags & 0xE0 != 0 {
            return Err(InflateError::Malformed("its gzip header isn't one that is known"));
        }
        if flags & EXTRA != 0 {
            let length = self.take(2)?;
            self.take(usize::from(u16::from_le_bytes([length[0], length[1]])))?;
        }
        for field in [NAME, COMMENT] {
            if flags & field != 0 {
                let end = self.input[self.at..].iter().position(|byte| *byte == 0);
                self.take(end.ok_or(ENDS_EARLY)? + 1)?;
            }
        }
        if flags & HEADER_CRC != 0 {
            let mut crc = Crc::new();
            crc.update(&self.input[start..self.at]);
            let given = self.take(2)?;
            if crc.sum().to_le_bytes()[..2] != *given {
                return Err(InflateError::Malformed("its checksum doesn't match"));
            }
        }
        Ok(())
    }

    /// The checksum and the length of the member whose content begins at `start`.
    fn gzip_trailer(&mut self, start: usize) -> Result<(), InflateError> {
        let trailer = self.take(8)?;
        let mut crc = Crc::new();
        crc.update(&self.out[start..]);
        let matches = trailer[..4] == crc.sum().to_le_bytes() && trailer[4..] == crc.amount().to_le_bytes();
        if matches { Ok(()) } else { Err(InflateError::Malformed("its checksum doesn't match")) }
    }

    /// One DEFLATE stream, in the zlib frame if `decompress` was made for it.
    fn stream(&mut self, decompress: &mut Decompress) -> Result<(), InflateError> {
        loop {
            if self.out.len() == self.out.capacity() {
                self.grow()?;
            }
            let (consumed, produced) = (decompress.total_in(), self.out.len());
            let status = decompress
                .decompress_vec(&self.input[self.at..], &mut self.out, FlushDecompress::None)
                .map_err(|_| InflateError::Malformed("it isn't a DEFLATE stream"))?;
            // A stream is no longer than the input, which a usize counts.
            self.at += (decompress.total_in() - consumed) as usize;
            self.check_bounds()?;
            if status == Status::StreamEnd {
                return Ok(());
            }
            let has_moved = decompress.total_in() > consumed || self.out.len() > produced;
            if !has_moved && self.out.len() < self.out.capacity() {
                return Err(ENDS_EARLY);
            }
        }
    }

    /// Doubles the room, to one byte over the limit at the most: that byte tells a body at the limit from one over it.
    fn grow(&mut self) -> Result<(), InflateError> {
        const FIRST_BYTES: usize = 4 << 10;
        let length = self.out.len();
        let wanted =
            if length == 0 { self.input.len().saturating_mul(4).max(FIRST_BYTES) } else { length * 2 };
        let most = self.bounds.limit_bytes.min(length.max(RATIO_FLOOR_BYTES) * 2) + 1;
        let more = wanted.min(most) - length;
        (self.reserve)(more)?;
        self.out.reserve_exact(more);
        Ok(())
    }

    fn check_bounds(&self) -> Result<(), InflateError> {
        let Bounds { limit_bytes, ratio } = self.bounds;
        // By what was read so far: a bomb shows what it is in its first bytes.
        if self.out.len() > RATIO_FLOOR_BYTES && self.out.len() / ratio > self.at {
            return Err(InflateError::TooDense(ratio));
        }
        if self.out.len() > limit_bytes {
            return Err(InflateError::TooLarge(limit_bytes));
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<&'i [u8], InflateError> {
        let taken = self.input[self.at..].get(..bytes).ok_or(ENDS_EARLY)?;
        self.at += bytes;
        Ok(taken)
    }
}

const GZIP_MAGIC: [u8; 2] = [0x1F, 0x8B];

const ENDS_EARLY: InflateError = InflateError::Malformed("it ends early");

/// Whether the first two bytes are the header of RFC 1950, section 2.2. A stream without a frame would have to begin
/// with a stored block whose unused bits are set, which no compressor writes.
fn has_zlib_header(input: &[u8]) -> bool {
    match input {
        [method, flags, ..] => {
            method & 0x0F == 8 && method >> 4 <= 7 && u16::from_be_bytes([*method, *flags]) % 31 == 0
        }
        _ => false,
    }
}
