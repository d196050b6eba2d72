//! Content codings: every frame that senders write, every way in which one can be broken, and that a bomb stays small.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { limit_bytes: 1 << 20, ratio: 100 };

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zlib(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn deflate(content: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// The content, or the error; and how many bytes were asked for.
fn run(coding: Coding, input: &[u8], bounds: Bounds) -> (Result<Vec<u8>, InflateError>, usize) {
    let mut reserved = 0;
    let result = inflate(coding, input, bounds, &mut |bytes| {
        reserved += bytes;
        Ok(())
    });
    if let Ok(content) = &result {
        assert!(content.capacity() <= reserved, "{} of {reserved}", content.capacity());
    }
    (result, reserved)
}

fn malformed(coding: Coding, input: &[u8]) -> &'static str {
    match run(coding, input, BOUNDS).0 {
        Err(InflateError::Malformed(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn at_most_one_coding_is_taken() {
    for (values, expect) in [
        (&[][..], Ok(None)),
        (&[""], Ok(None)),
        (&["identity"], Ok(None)),
        (&["gzip"], Ok(Some(Coding::Gzip))),
        (&[" GZip ", "identity"], Ok(Some(Coding::Gzip))),
        (&["x-gzip"], Ok(Some(Coding::Gzip))),
        (&["identity, deflate"], Ok(Some(Coding::Deflate))),
        (&["br"], Err("br")),
        (&["zstd"], Err("zstd")),
        (&["compress"], Err("compress")),
        (&["gzip, gzip"], Err("gzip, gzip")),
        (&["gzip", "deflate"], Err("gzip, deflate")),
        (&["gzip;q=1"], Err("gzip;q=1")),
    ] {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_ENCODING, value.parse().unwrap());
        }
        let expect = expect.map_err(|name: &str| InflateError::Unsupported(name.to_owned()));
        assert_eq!(coding(&headers), expect, "{values:?}");
    }
}

#[test]
fn every_frame_gives_its_content() {
    let content = br#"{"order":{"id":1001,"total":"156.50"}}"#;
    for (coding, input) in [
        (Coding::Gzip, gzip(content)),
        (Coding::Gzip, [gzip(b"{\"order\":"), gzip(b""), gzip(&content[9..])].concat()),
        (Coding::Deflate, zlib(content)),
        (Coding::Deflate, deflate(content)),
    ] {
        assert_eq!(run(coding, &input, BOUNDS).0.as_deref(), Ok(&content[..]), "{coding:?}");
    }
    // With everything that a gzip header may have: extra field, name, comment, checksum of the header.
    let plain = gzip(content);
    let mut header = vec![0x1F, 0x8B, 8, 2 | 4 | 8 | 16, 0, 0, 0, 0, 0, 255, 3, 0, 1, 2, 3];
    header.extend_from_slice(b"name\0comment\0");
    let mut crc = Crc::new();
    crc.update(&header);
    header.extend_from_slice(&crc.sum().to_le_bytes()[..2]);
    header.extend_from_slice(&plain[10..]);
    assert_eq!(run(Coding::Gzip, &header, BOUNDS).0.as_deref(), Ok(&content[..]));
    header[13] ^= 1;
    assert_eq!(malformed(Coding::Gzip, &header), "its checksum doesn't match");
    for coding in [Coding::Gzip, Coding::Deflate] {
        assert_eq!(run(coding, b"", BOUNDS), (Ok(Vec::new()), 0));
    }
}

#[test]
fn a_broken_stream_is_refused_in_plain_words() {
    let content = b"{\"a\":[1,2,3,4,5,6,7,8,9,10]}";
    let member = gzip(content).len();
    for (coding, whole) in [
        (Coding::Gzip, [gzip(content), gzip(content)].concat()),
        (Coding::Deflate, zlib(content)),
        (Coding::Deflate, deflate(content)),
    ] {
        for length in 1..whole.len() {
            let result = run(coding, &whole[..length], BOUNDS).0;
            // Where the first member ends, the body is whole.
            let is_whole = coding == Coding::Gzip && length == member;
            assert_eq!(result.is_ok(), is_whole, "{coding:?}, {length} of {} bytes", whole.len());
        }
        let garbage = [&whole[..], b"\0"].concat();
        assert_eq!(malformed(coding, &garbage), "it goes on behind its end", "{coding:?}");
        assert_eq!(malformed(coding, &[&whole[..], b"<html>"].concat()), "it goes on behind its end");
    }
    let mut wrong = gzip(content);
    let length = wrong.len();
    wrong[length - 8] ^= 1;
    assert_eq!(malformed(Coding::Gzip, &wrong), "its checksum doesn't match");
    wrong[length - 8] ^= 1;
    wrong[length - 1] ^= 1;
    assert_eq!(malformed(Coding::Gzip, &wrong), "its checksum doesn't match");
    let mut wrong = zlib(content);
    let length = wrong.len();
    wrong[length - 1] ^= 1;
    assert_eq!(malformed(Coding::Deflate, &wrong), "it isn't a DEFLATE stream");
    assert_eq!(malformed(Coding::Gzip, b"{\"a\":1234567}"), "it isn't gzip");
    assert_eq!(malformed(Coding::Gzip, &zlib(content)), "it isn't gzip");
    assert_eq!(
        malformed(Coding::Gzip, b"\x1F\x8B\x08\xE0\0\0\0\0\0\0"),
        "its gzip header isn't one that is known"
    );
    assert_eq!(
        malformed(Coding::Gzip, b"\x1F\x8B\x07\0\0\0\0\0\0\0"),
        "its gzip header isn't one that is known"
    );
    assert_eq!(malformed(Coding::Gzip, b"\x1F\x8B\x08\x08\0\0\0\0\0\0name"), "it ends early");
    assert_eq!(malformed(Coding::Deflate, b"\xFF\xFF\xFF"), "it isn't a DEFLATE stream");
}

#[test]
fn the_limit_is_exact() {
    let content: Vec<u8> =
        (0..40_000u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for coding in [Coding::Gzip, Coding::Deflate] {
        let input = if coding == Coding::Gzip { gzip(&content) } else { deflate(&content) };
        let (result, reserved) = run(coding, &input, Bounds { limit_bytes: content.len(), ratio: 100 });
        assert_eq!(result.as_deref(), Ok(&content[..]));
        assert!(reserved <= content.len() + 1);
        for limit_bytes in [content.len() - 1, content.len() / 2, 1] {
            let (result, reserved) = run(coding, &input, Bounds { limit_bytes, ratio: 100 });
            assert_eq!(result, Err(InflateError::TooLarge(limit_bytes)));
            assert!(reserved <= limit_bytes + 1, "{reserved} over {limit_bytes}");
        }
    }
}

/// A thousandfold repetition ends at the floor of the ratio, not at the limit.
#[test]
fn a_bomb_is_given_up_early() {
    let bomb = gzip(&vec![b' '; 64 << 20]);
    let bounds = Bounds { limit_bytes: 32 << 20, ratio: 100 };
    for (coding, input) in [(Coding::Gzip, &bomb[..]), (Coding::Deflate, &bomb[10..])] {
        let (result, reserved) = run(coding, input, bounds);
        assert_eq!(result, Err(InflateError::TooDense(100)));
        assert!(reserved <= 2 * RATIO_FLOOR_BYTES + 1, "{reserved}");
    }
    // Under the floor nobody asks.
    let small = gzip(&vec![b' '; RATIO_FLOOR_BYTES]);
    assert!(small.len() * 100 < RATIO_FLOOR_BYTES);
    assert_eq!(run(Coding::Gzip, &small, bounds).0.unwrap().len(), RATIO_FLOOR_BYTES);
    // Where the ratio is allowed, the limit holds.
    let (result, reserved) = run(Coding::Gzip, &bomb, Bounds { ratio: 2000, limit_bytes: 1 << 20 });
    assert_eq!(result, Err(InflateError::TooLarge(1 << 20)));
    assert!(reserved <= (1 << 20) + 1);
    let empty = gzip(b"").repeat(MEMBER_LIMIT);
    assert_eq!(run(Coding::Gzip, &empty, bounds).0, Ok(Vec::new()));
    assert_eq!(
        malformed(Coding::Gzip, &gzip(b"").repeat(MEMBER_LIMIT + 1)),
        "it has more than 1024 gzip members"
    );
}

#[test]
fn memory_is_asked_for_before_it_is_taken() {
    let input = gzip(&vec![b'a'; 100 << 10]);
    let mut granted = 0;
    let result = inflate(Coding::Gzip, &input, BOUNDS, &mut |bytes| {
        granted += bytes;
        if granted > 50 << 10 { Err(Exhausted) } else { Ok(()) }
    });
    assert_eq!(result, Err(InflateError::NoMemory));
}

proptest! {
    /// What was compressed comes out, in as many members as it went in, and no more memory is taken than was asked for.
    #[test]
    fn contents_survive(parts in prop::collection::vec(prop::collection::vec(0u8..4, 0..5000), 1..4)) {
        let content = parts.concat();
        let members: Vec<u8> = parts.iter().flat_map(|part| gzip(part)).collect();
        for (coding, input) in [
            (Coding::Gzip, members),
            (Coding::Deflate, zlib(&content)),
            (Coding::Deflate, deflate(&content)),
        ] {
            let (result, reserved) = run(coding, &input, BOUNDS);
            prop_assert_eq!(result.as_deref(), Ok(&content[..]));
            prop_assert!(reserved <= 4096 + 4 * input.len() + 2 * content.len());
        }
    }

    /// Arbitrary bytes, and streams with one byte changed, never panic and never break the bounds.
    #[test]
    fn arbitrary_bytes_stay_within_bounds(
        bytes in prop::collection::vec(any::<u8>(), 1..300),
        at in any::<prop::sample::Index>(),
        change in 1u8..,
    ) {
        let bounds = Bounds { limit_bytes: 1000, ratio: 2 };
        for coding in [Coding::Gzip, Coding::Deflate] {
            for mut input in [bytes.clone(), gzip(&bytes), zlib(&bytes), [&[0x1F, 0x8B, 8][..], &bytes].concat()] {
                let index = at.index(input.len());
                input[index] ^= change;
                let (result, reserved) = run(coding, &input, bounds);
                prop_assert!(reserved <= 1001);
                prop_assert!(result.is_err() || result.unwrap().len() <= 1000);
            }
        }
    }
}
