//! The bytes of a PROXY header. Strict: what the specification doesn't allow, and what HTTP over TCP has no use for, is
//! refused. Pure: neither clock nor socket.
//!
//! A parser of our own: with a crate, the limits, the checksum, AF_UNIX, datagrams and what is still missing of a header
//! would be checked around it, in about as many lines. `tests/it/nginx.rs` holds it against nginx's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A header at the begin of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client, in canonical form; None where the socket's own address counts (LOCAL, UNSPEC, UNKNOWN).
    pub source: Option<SocketAddr>,
    /// How long the header is; HTTP begins behind it.
    pub length_bytes: usize,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// They begin like something else.
    #[error("it sent no PROXY header")]
    Missing,
    /// A version 1 line over 107 bytes, or a version 2 block over 4 KiB.
    #[error("its PROXY header is too long")]
    TooLong,
    /// It breaks the format.
    #[error("its PROXY header is malformed")]
    Malformed,
    /// A version, command, family or transport that isn't known, or isn't TCP.
    #[error("its PROXY header is of a kind that isn't served here")]
    Unsupported,
    /// The checksum is wrong.
    #[error("its PROXY header has a wrong checksum")]
    Checksum,
}

impl Unreadable {
    /// The name in metrics and logs.
    pub fn code(self) -> &'static str {
        match self {
            Unreadable::Missing => "missing",
            Unreadable::TooLong => "too_long",
            Unreadable::Malformed => "malformed",
            Unreadable::Unsupported => "unsupported",
            Unreadable::Checksum => "checksum",
        }
    }
}

/// The longest line of version 1, with its end (section 2.1).
pub const V1_LIMIT_BYTES: usize = 107;

/// The longest block of addresses and TLVs of version 2 that is read; the format would allow 64 KiB.
pub const V2_LIMIT_BYTES: usize = 4 << 10;

const V1_BEGIN: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;

/// Reads the header at the begin of `bytes`; None if more bytes are needed.
///
/// # Errors
/// The bytes can't become a header, whatever follows.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Unreadable> {
    if may_begin(bytes, V2_SIGNATURE) {
        parse_v2(bytes)
    } else if may_begin(bytes, V1_BEGIN) {
        parse_v1(bytes)
    } else {
        Err(Unreadable::Missing)
    }
}

fn may_begin(bytes: &[u8], with: &[u8]) -> bool {
    let length = bytes.len().min(with.len());
    bytes[..length] == with[..length]
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, Unreadable> {
    let window = &bytes[..bytes.len().min(V1_LIMIT_BYTES)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < V1_LIMIT_BYTES { Ok(None) } else { Err(Unreadable::TooLong) };
    };
    let line = &bytes[V1_BEGIN.len()..end];
    let source = if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        None
    } else {
        Some(std::str::from_utf8(line).ok().and_then(v1_source).ok_or(Unreadable::Malformed)?)
    };
    Ok(Some(Header { source, length_bytes: end + 2 }))
}

/// `TCP4 <source> <destination> <source port> <destination port>`, with exactly one space between.
fn v1_source(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split(' ');
    let address: fn(&str) -> Option<IpAddr> = match fields.next()? {
        "TCP4" => |text: &str| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text: &str| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return None,
    };
    let (source, _destination) = (address(fields.next()?)?, address(fields.next()?)?);
    let (source_port, _destination_port) = (v1_port(fields.next()?)?, v1_port(fields.next()?)?);
    fields.next().is_none().then(|| SocketAddr::new(source.to_canonical(), source_port))
}

/// Neither sign nor leading zeros.
fn v1_port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port.to_string() == text).then_some(port)
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, Unreadable> {
    const LOCAL: u8 = 0;
    const PROXY: u8 = 1;
    let Some(&[version_command, family, high, low]) = bytes.get(V2_SIGNATURE.len()..V2_FIXED_BYTES) else {
        return Ok(None);
    };
    let block_length = usize::from(u16::from_be_bytes([high, low]));
    let is_local = match (version_command >> 4, version_command & 0xF) {
        (2, LOCAL) => true,
        (2, PROXY) => false,
        _ => return Err(Unreadable::Unsupported),
    };
    if block_length > V2_LIMIT_BYTES {
        return Err(Unreadable::TooLong);
    }
    // The family of a LOCAL connection, and all that follows, is to be ignored (section 2.2).
    let addresses = if is_local { Addresses::None } else { Addresses::of_family(family)? };
    if block_length < addresses.length_bytes() {
        return Err(Unreadable::Malformed);
    }
    let length_bytes = V2_FIXED_BYTES + block_length;
    let Some(header) = bytes.get(..length_bytes) else { return Ok(None) };
    if !is_local {
        check_tlvs(header, V2_FIXED_BYTES + addresses.length_bytes())?;
    }
    Ok(Some(Header { source: addresses.source(&header[V2_FIXED_BYTES..]), length_bytes }))
}

/// What stands at the begin of a version 2 block: both addresses, then both ports.
#[derive(Clone, Copy)]
enum Addresses {
    None,
    V4,
    V6,
}

impl Addresses {
    /// AF_UNSPEC, or TCP over IPv4 or IPv6; neither datagrams nor AF_UNIX.
    fn of_family(family: u8) -> Result<Addresses, Unreadable> {
        match family {
            0x00 => Ok(Addresses::None),
            0x11 => Ok(Addresses::V4),
            0x21 => Ok(Addresses::V6),
            _ => Err(Unreadable::Unsupported),
        }
    }

    fn length_bytes(self) -> usize {
        match self {
            Addresses::None => 0,
            Addresses::V4 => 12,
            Addresses::V6 => 36,
        }
    }

    fn source(self, block: &[u8]) -> Option<SocketAddr> {
        let (address, port): (IpAddr, _) = match self {
            Addresses::None => return None,
            Addresses::V4 => (block.first_chunk::<4>().copied()?.into(), block.get(8..10)?),
            Addresses::V6 => (block.first_chunk::<16>().copied()?.into(), block.get(32..34)?),
        };
        let port = u16::from_be_bytes(port.try_into().ok()?);
        Some(SocketAddr::new(address.to_canonical(), port))
    }
}

/// The type of the checksum's TLV (section 2.2.3).
const CRC32C: u8 = 0x03;

/// Walks the TLVs to the header's end, and checks the checksum, if there is one.
fn check_tlvs(header: &[u8], begin: usize) -> Result<(), Unreadable> {
    let mut at = begin;
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + 3) else { return Err(Unreadable::Malformed) };
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let bytes = header.get(value.clone()).ok_or(Unreadable::Malformed)?;
        if kind == CRC32C {
            let sent: [u8; 4] = bytes.try_into().map_err(|_| Unreadable::Malformed)?;
            let zeroed = [&header[..value.start], &[0; 4], &header[value.end..]].concat();
            if crc32c(&zeroed) != u32::from_be_bytes(sent) {
                return Err(Unreadable::Checksum);
            }
        }
        at = value.end;
    }
    Ok(())
}

/// The checksum of RFC 3720, appendix B.4. Bit by bit: a header is short, and most have none.
pub fn crc32c(bytes: &[u8]) -> u32 {
    const REFLECTED_POLYNOMIAL: u32 = 0x82F6_3B78;
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            let carry = if crc & 1 == 1 { REFLECTED_POLYNOMIAL } else { 0 };
            (crc >> 1) ^ carry
        })
    })
}

#[cfg(test)]
mod tests;
