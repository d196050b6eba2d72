use proptest::prelude::*;

use super::*;

const V4: &[u8] = &[203, 0, 113, 5, 192, 0, 2, 1, 0x12, 0x67, 0x1f, 0x90];

/// The source, or the word for the refusal; with how many bytes of HTTP are left.
fn read(bytes: &[u8]) -> Result<(String, usize), &'static str> {
    match parse(bytes) {
        Ok(Some(header)) => {
            let source = header.source.map_or("socket".to_owned(), |source| source.to_string());
            Ok((source, bytes.len() - header.length_bytes))
        }
        Ok(None) => Err("more"),
        Err(unreadable) => Err(unreadable.code()),
    }
}

fn v2(version_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[version_command, family][..], &length, block].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

fn v6(source: &str) -> Vec<u8> {
    let (source, destination): (Ipv6Addr, Ipv6Addr) =
        (source.parse().unwrap(), "2001:db8::1".parse().unwrap());
    [&source.octets()[..], &destination.octets(), &[0x12, 0x67, 0x1f, 0x90]].concat()
}

/// Writes the checksum into the last TLV, which must be one.
fn with_checksum(mut header: Vec<u8>) -> Vec<u8> {
    let at = header.len() - 4;
    let checksum = crc32c(&header);
    header[at..].copy_from_slice(&checksum.to_be_bytes());
    header
}

#[test]
fn lines_of_version_1() {
    for (line, expect) in [
        ("PROXY TCP4 203.0.113.5 192.0.2.1 4711 8080\r\n", Ok("203.0.113.5:4711")),
        ("PROXY TCP4 203.0.113.5 192.0.2.1 0 65535\r\n", Ok("203.0.113.5:0")),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Ok("255.255.255.255:65535")),
        ("PROXY TCP6 2001:db8::5 2001:db8::1 4711 8080\r\n", Ok("[2001:db8::5]:4711")),
        ("PROXY TCP6 2001:DB8:0:0:0:0:0:5 ::1 4711 8080\r\n", Ok("[2001:db8::5]:4711")),
        ("PROXY TCP6 ::ffff:203.0.113.5 ::ffff:192.0.2.1 4711 8080\r\n", Ok("203.0.113.5:4711")),
        ("PROXY UNKNOWN\r\n", Ok("socket")),
        ("PROXY UNKNOWN 203.0.113.5 192.0.2.1 4711 8080\r\n", Ok("socket")),
        ("PROXY UNKNOWN whatever this is\r\n", Ok("socket")),
        ("PROXY UNKNOWNS\r\n", Err("malformed")),
        ("PROXY \r\n", Err("malformed")),
        ("PROXY TCP4\r\n", Err("malformed")),
        ("PROXY TCP4 203.0.113.5 192.0.2.1 4711\r\n", Err("malformed")),
        ("PROXY TCP4 203.0.113.5 192.0.2.1 4711 8080 1\r\n", Err("malformed")),
        ("PROXY TCP4 203.0.113.5 192.0.2.1 4711 8080 \r\n", Err("malformed")),
        ("PROXY TCP4  203.0.113.5 192.0.2.1 4711 8080\r\n", Err("malformed")),
        ("PROXY TCP4\t203.0.113.5 192.0.2.1 4711 8080\r\n", Err("malformed")),
        ("PROXY TCP4 203.0.113.05 192.0.2.1 4711 8080\r\n", Err("malformed")),
        ("PROXY TCP4 203.0.113.5 shop.example 4711 8080\r\n", Err("malformed")),
        ("PROXY TCP4 2001:db8::5 2001:db8::1 4711 8080\r\n", Err("malformed")),
        ("PROXY TCP6 203.0.113.5 192.0.2.1 4711 8080\r\n", Err("malformed")),
        ("PROXY TCP6 fe80::1%eth0 ::1 4711 8080\r\n", Err("malformed")),
        ("PROXY TCP4 203.0.113.5 192.0.2.1 04711 8080\r\n", Err("malformed")),
        ("PROXY TCP4 203.0.113.5 192.0.2.1 +4711 8080\r\n", Err("malformed")),
        ("PROXY TCP4 203.0.113.5 192.0.2.1 65536 8080\r\n", Err("malformed")),
        ("PROXY TCP4 203.0.113.5 192.0.2.1 4711 -1\r\n", Err("malformed")),
        ("PROXY UDP4 203.0.113.5 192.0.2.1 4711 8080\r\n", Err("malformed")),
        ("PROXY tcp4 203.0.113.5 192.0.2.1 4711 8080\r\n", Err("malformed")),
        ("PROXY TCP4 203.0.113.5 192.0.2.1 4711 8080\n\r\n", Err("malformed")),
        ("PROXY TCP4 203.0.113.5 192.0.2.1 4711 8080\n", Err("more")),
        ("PROXY TCP4 203.0.113.5", Err("more")),
        ("P", Err("more")),
        ("", Err("more")),
        ("proxy TCP4 203.0.113.5 192.0.2.1 4711 8080\r\n", Err("missing")),
        ("PROXYTCP4", Err("missing")),
        (" PROXY TCP4", Err("missing")),
        ("POST /integration/demo HTTP/1.1\r\n", Err("missing")),
    ] {
        assert_eq!(read(line.as_bytes()), expect.map(|source| (source.to_owned(), 0)), "{line:?}");
    }
    assert_eq!(read(b"PROXY UNKNOWN\r\nPOST"), Ok(("socket".to_owned(), 4)));
    assert_eq!(read(b"PROXY UNKNOWN \xff\r\n"), Ok(("socket".to_owned(), 0)));
    assert_eq!(read(b"PROXY TCP4 \xff\r\n"), Err("malformed"));
    let of_length = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
    assert_eq!(read(of_length(107).as_bytes()), Ok(("socket".to_owned(), 0)));
    assert_eq!(read(of_length(108).as_bytes()), Err("too_long"));
    assert_eq!(read(&of_length(108).as_bytes()[..106]), Err("more"));
}

#[test]
fn blocks_of_version_2() {
    let noop = tlv(4, &[0; 5]);
    let checksum = tlv(CRC32C, &[0; 4]);
    let checked = |family, block: &[u8]| with_checksum(v2(0x21, family, &[block, &checksum].concat()));
    let broken = |mut header: Vec<u8>, at: usize| {
        header[at] ^= 1;
        header
    };
    for (name, header, expect) in [
        ("TCP4", v2(0x21, 0x11, V4), Ok("203.0.113.5:4711")),
        ("TCP4 with TLVs", v2(0x21, 0x11, &[V4, &noop, &tlv(5, b"id")].concat()), Ok("203.0.113.5:4711")),
        ("TCP4 with a checksum", checked(0x11, V4), Ok("203.0.113.5:4711")),
        ("a checksum behind a TLV", checked(0x11, &[V4, &noop].concat()), Ok("203.0.113.5:4711")),
        ("TCP6", v2(0x21, 0x21, &v6("2001:db8::5")), Ok("[2001:db8::5]:4711")),
        ("TCP6 with a checksum", checked(0x21, &v6("2001:db8::5")), Ok("[2001:db8::5]:4711")),
        ("mapped", v2(0x21, 0x21, &v6("::ffff:203.0.113.5")), Ok("203.0.113.5:4711")),
        ("LOCAL", v2(0x20, 0x00, &[]), Ok("socket")),
        ("LOCAL with an address", v2(0x20, 0x11, V4), Ok("socket")),
        ("LOCAL with anything", v2(0x20, 0xff, &[1, 2, 3]), Ok("socket")),
        ("UNSPEC", v2(0x21, 0x00, &[]), Ok("socket")),
        ("UNSPEC with a TLV", v2(0x21, 0x00, &noop), Ok("socket")),
        ("UNSPEC with a checksum", checked(0x00, &[]), Ok("socket")),
        (
            "the longest",
            v2(0x21, 0x11, &[V4, &tlv(4, &[0; V2_LIMIT_BYTES - 15])].concat()),
            Ok("203.0.113.5:4711"),
        ),
        ("one longer", v2(0x21, 0x11, &[V4, &tlv(4, &[0; V2_LIMIT_BYTES - 14])].concat()), Err("too_long")),
        ("64 KiB announced", v2(0x21, 0x11, &[0; 65535])[..16].to_vec(), Err("too_long")),
        ("LOCAL and too long", v2(0x20, 0x00, &[0; V2_LIMIT_BYTES + 1]), Err("too_long")),
        ("version 1", v2(0x11, 0x11, V4), Err("unsupported")),
        ("version 3", v2(0x31, 0x11, V4), Err("unsupported")),
        ("command 2", v2(0x22, 0x11, V4), Err("unsupported")),
        ("command 15", v2(0x2f, 0x11, V4), Err("unsupported")),
        ("UDP4", v2(0x21, 0x12, V4), Err("unsupported")),
        ("UDP6", v2(0x21, 0x22, &v6("2001:db8::5")), Err("unsupported")),
        ("AF_UNIX", v2(0x21, 0x31, &[0; 216]), Err("unsupported")),
        ("AF_UNIX datagrams", v2(0x21, 0x32, &[0; 216]), Err("unsupported")),
        ("no transport", v2(0x21, 0x10, V4), Err("unsupported")),
        ("no family", v2(0x21, 0x01, V4), Err("unsupported")),
        ("transport 3", v2(0x21, 0x13, V4), Err("unsupported")),
        ("family 4", v2(0x21, 0x41, V4), Err("unsupported")),
        ("no addresses", v2(0x21, 0x11, &[]), Err("malformed")),
        ("TCP4 too short", v2(0x21, 0x11, &V4[..11]), Err("malformed")),
        ("TCP6 too short", v2(0x21, 0x21, &v6("::1")[..35]), Err("malformed")),
        ("a TLV without its length", v2(0x21, 0x11, &[V4, &noop[..2]].concat()), Err("malformed")),
        ("a TLV cut off", v2(0x21, 0x11, &[V4, &noop[..7]].concat()), Err("malformed")),
        ("UNSPEC with an address", v2(0x21, 0x00, V4), Err("malformed")),
        ("a checksum of 3 bytes", v2(0x21, 0x11, &[V4, &tlv(CRC32C, &[0; 3])].concat()), Err("malformed")),
        ("two checksums", checked(0x11, &[V4, &checksum].concat()), Err("checksum")),
        ("a wrong checksum", v2(0x21, 0x11, &[V4, &checksum].concat()), Err("checksum")),
        ("a source that was changed", broken(checked(0x11, V4), 16), Err("checksum")),
        ("a destination that was changed", broken(checked(0x11, V4), 20), Err("checksum")),
        ("the signature alone", V2_SIGNATURE.to_vec(), Err("more")),
        ("without its end", v2(0x21, 0x11, V4)[..27].to_vec(), Err("more")),
        ("half a signature", V2_SIGNATURE[..5].to_vec(), Err("more")),
        ("another signature", b"\r\n\r\n\0\r\nQUIT\r!\x11\0\x0c".to_vec(), Err("missing")),
    ] {
        let expect = expect.map(|source| (source.to_owned(), 4));
        let with_http = if expect == Err("more") { header } else { [&header[..], b"POST"].concat() };
        assert_eq!(read(&with_http), expect, "{name}");
    }
}

#[test]
fn the_checksum_is_that_of_rfc_3720() {
    assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
    assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
}

/// Bytes that look like a header, for a while.
fn nearly_a_header() -> impl Strategy<Value = Vec<u8>> {
    let line = "PROXY (TCP4|TCP6|UNKNOWN|TCP)( [0-9a-f:.]{1,12}){0,5}(\r\n)?[ -~]{0,120}"
        .prop_map(String::into_bytes);
    let block = (
        0x1fu8..0x24,
        prop::sample::select(vec![0u8, 0x11, 0x21, 0x31]),
        prop::collection::vec(any::<u8>(), 0..80),
    )
        .prop_map(|(command, family, block)| v2(command, family, &block));
    let tlvs =
        prop::collection::vec((0u8..6, prop::collection::vec(any::<u8>(), 0..8)), 0..5).prop_map(|tlvs| {
            let tlvs: Vec<u8> = tlvs.iter().flat_map(|(kind, value)| tlv(*kind, value)).collect();
            v2(0x21, 0x11, &[V4, &tlvs].concat())
        });
    prop_oneof![line, block, tlvs, prop::collection::vec(any::<u8>(), 0..40)]
}

proptest! {
    /// A verdict on some bytes holds whatever follows, and no byte too many is asked for.
    #[test]
    fn what_follows_changes_no_verdict(bytes in nearly_a_header(), more in prop::collection::vec(any::<u8>(), 0..20)) {
        let mut verdict = parse(&[]);
        for length in 1..=bytes.len() {
            let next = parse(&bytes[..length]);
            if verdict != Ok(None) {
                prop_assert_eq!(next, verdict);
            }
            verdict = next;
        }
        if verdict != Ok(None) {
            prop_assert_eq!(parse(&[bytes, more].concat()), verdict);
        }
    }

    /// Any bytes are survived, and a header lies within its limit and within the bytes.
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), begin in 0usize..3) {
        let begin: &[u8] = [&b""[..], V1_BEGIN, V2_SIGNATURE][begin];
        let bytes = [begin, &bytes].concat();
        if let Ok(Some(header)) = parse(&bytes) {
            prop_assert!(header.length_bytes <= bytes.len());
        }
    }

    /// Both versions carry an address and a port as they are; a mapped address becomes the address.
    #[test]
    fn a_source_survives(bits: u128, is_v4: bool, port: u16) {
        let address = if is_v4 { Ipv4Addr::from(bits as u32).into() } else { IpAddr::from(Ipv6Addr::from(bits)) };
        let expect = Some(SocketAddr::new(address.to_canonical(), port));
        let kind = if is_v4 { "TCP4" } else { "TCP6" };
        let line = format!("PROXY {kind} {address} {address} {port} 1\r\n");
        prop_assert_eq!(parse(line.as_bytes()).unwrap().unwrap().source, expect);
        let octets = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let block = [&octets[..], &octets, &port.to_be_bytes(), &[0, 1]].concat();
        let header = v2(0x21, if is_v4 { 0x11 } else { 0x21 }, &block);
        prop_assert_eq!(parse(&header).unwrap().unwrap().source, expect);
    }

    /// One changed bit anywhere in a header with a checksum never makes it somebody else's.
    #[test]
    fn no_flipped_bit_gives_another_source(at in 0usize..35, bit in 0u32..8) {
        let header = with_checksum(v2(0x21, 0x11, &[V4, &tlv(CRC32C, &[0; 4])].concat()));
        let mut flipped = header.clone();
        flipped[at] ^= 1 << bit;
        let source = parse(&flipped).ok().flatten().and_then(|header| header.source);
        prop_assert!(source.is_none() || source == parse(&header).unwrap().unwrap().source, "{source:?}");
    }
}
