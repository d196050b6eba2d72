//! The PROXY protocol over raw sockets: required of trusted proxies, believed of nobody else, and nothing that isn't
//! HTTP is ever read as HTTP.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use retrieve_gateway::ingest::proxy_protocol::header::crc32c;

use crate::support::client::{Connection, post};
use crate::support::eventually;
use crate::support::gateway::TestGateway;
use crate::support::nginx::Nginx;
use crate::support::random::Random;

const LINE: &str = "PROXY TCP4 203.0.113.5 192.0.2.1 4711 8080\r\n";
const SETTINGS: [(&str, &str); 3] = [
    ("RETRIEVE_PROXY_PROTOCOL", "on"),
    ("RETRIEVE_TRUSTED_PROXIES", "127.0.0.1,10.0.0.0/8"),
    ("RETRIEVE_ALLOWED_LIST", "203.0.113.0/24,2001:db8::/32,127.0.0.1"),
];

fn v2(version_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[version_command, family][..], &length, block].concat()
}

fn block(source: &str) -> Vec<u8> {
    let octets = match source.parse().unwrap() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    [&octets[..], &octets, &[0x12, 0x67, 0x1f, 0x90]].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

/// With a TLV for the checksum at its end.
fn checked(version_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut header = v2(version_command, family, &[block, &tlv(3, &[0; 4])].concat());
    let (checksum, at) = (crc32c(&header), header.len() - 4);
    header[at..].copy_from_slice(&checksum.to_be_bytes());
    header
}

fn request(headers: &str) -> Vec<u8> {
    format!("POST /integration/demo HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 2\r\n\r\n{{}}")
        .into_bytes()
}

fn refused(reason: &str) -> String {
    format!("retrieve_proxy_headers_refused_total{{reason=\"{reason}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_says_who_the_job_is_from() {
    let gateway = TestGateway::start(&SETTINGS).await;
    let noop = tlv(4, &[0; 300]);
    let local = "127.0.0.1";
    for (name, header, expect) in [
        ("v1 TCP4", LINE.into(), "203.0.113.5"),
        ("v1 TCP6", b"PROXY TCP6 2001:db8::5 2001:db8::1 4711 8080\r\n".to_vec(), "2001:db8::5"),
        ("v1 mapped", b"PROXY TCP6 ::ffff:203.0.113.6 ::1 4711 8080\r\n".to_vec(), "203.0.113.6"),
        ("v1 UNKNOWN", b"PROXY UNKNOWN\r\n".to_vec(), local),
        ("v1 UNKNOWN with text", b"PROXY UNKNOWN 203.0.113.5 x y z\r\n".to_vec(), local),
        ("v2 TCP4", v2(0x21, 0x11, &block("203.0.113.5")), "203.0.113.5"),
        ("v2 TCP6", v2(0x21, 0x21, &block("2001:db8::5")), "2001:db8::5"),
        ("v2 mapped", v2(0x21, 0x21, &block("::ffff:203.0.113.6")), "203.0.113.6"),
        ("v2 with TLVs", v2(0x21, 0x11, &[block("203.0.113.5"), noop.clone()].concat()), "203.0.113.5"),
        ("v2 with a checksum", checked(0x21, 0x21, &[block("2001:db8::5"), noop].concat()), "2001:db8::5"),
        ("v2 LOCAL", v2(0x20, 0x00, &[]), local),
        ("v2 LOCAL with an address", v2(0x20, 0x11, &block("203.0.113.5")), local),
        ("v2 UNSPEC", v2(0x21, 0x00, &[]), local),
        ("v2 UNSPEC with a TLV", v2(0x21, 0x00, &tlv(4, b"x")), local),
    ] {
        let all = [header, request("")].concat();
        for byte_by_byte in [false, true] {
            let mut connection = Connection::open(gateway.address).await;
            let pieces = if byte_by_byte { 1 } else { all.len() };
            for piece in all.chunks(pieces) {
                connection.send(piece).await;
            }
            assert_eq!(connection.answer().await.status, 200, "{name}");
            assert_eq!(gateway.jobs().await.last().unwrap()["source"]["ip"], expect, "{name}");
            // The connection goes on as HTTP alone; a second header is a malformed request.
            connection.send(request("")).await;
            assert_eq!(connection.answer().await.status, 200, "{name}");
            connection.send(LINE).await;
            assert_eq!(connection.answer().await.status, 400, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_headers_count_only_if_the_header_names_a_trusted_proxy() {
    let gateway = TestGateway::start(&SETTINGS).await;
    let behind = |source: &str| format!("PROXY TCP4 {source} 192.0.2.1 1 2\r\n").into_bytes();
    let xff = "X-Forwarded-For: 203.0.113.9\r\n";
    for (header, headers, expect) in [
        // The sender's own text.
        (behind("203.0.113.5"), xff, "203.0.113.5"),
        (behind("203.0.113.5"), "Forwarded: for=203.0.113.9\r\n", "203.0.113.5"),
        // A chain of two proxies, and the first of them alone.
        (behind("10.0.0.7"), xff, "203.0.113.9"),
        (v2(0x21, 0x21, &block("::ffff:10.0.0.7")), xff, "203.0.113.9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), xff, "203.0.113.9"),
    ] {
        let mut connection = Connection::open(gateway.address).await;
        connection.send([header, request(headers)].concat()).await;
        assert_eq!(connection.answer().await.status, 200, "{headers}");
        assert_eq!(gateway.jobs().await.last().unwrap()["source"]["ip"], expect, "{headers}");
    }
    let mut connection = Connection::open(gateway.address).await;
    connection.send([behind("192.0.2.66"), request(xff)].concat()).await;
    let answer = connection.answer().await;
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("(192.0.2.66)"), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_without_a_good_header_is_closed_without_a_word() {
    let gateway = TestGateway::start(&SETTINGS).await;
    let long_line = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    let long_block = v2(0x21, 0x00, &tlv(4, &[0; 4094]));
    let mut changed = checked(0x21, 0x11, &block("203.0.113.5"));
    changed[16] ^= 1;
    let unix = v2(0x21, 0x31, &[0; 216]);
    for (name, header, reason) in [
        ("none", Vec::new(), "missing"),
        ("none, and no HTTP", b"hello\r\n\r\n".to_vec(), "missing"),
        ("lower case", LINE.to_lowercase().into(), "missing"),
        ("v1 over 107 bytes", long_line.into_bytes(), "too_long"),
        ("v1 without its end", LINE.trim_end().into(), "malformed"),
        ("v1 of another family", LINE.replace("TCP4", "UNIX").into(), "malformed"),
        ("v1 with a wrong address", LINE.replace("203", "303").into(), "malformed"),
        ("v1 with a wrong port", LINE.replace("4711", "74711").into(), "malformed"),
        ("v2 over 4 KiB", long_block, "too_long"),
        ("v2 shorter than its addresses", v2(0x21, 0x11, &[0; 11]), "malformed"),
        ("v2 with half a TLV", v2(0x21, 0x00, &tlv(4, b"xyz")[..5]), "malformed"),
        ("v2 of version 1", v2(0x11, 0x11, &block("203.0.113.5")), "unsupported"),
        ("v2 with an unknown command", v2(0x22, 0x11, &block("203.0.113.5")), "unsupported"),
        ("v2 of datagrams", v2(0x21, 0x12, &block("203.0.113.5")), "unsupported"),
        ("v2 of AF_UNIX", unix, "unsupported"),
        ("v2 with a wrong checksum", changed, "checksum"),
    ] {
        let before = gateway.metric(&refused(reason)).await.unwrap_or(0.0);
        let mut connection = Connection::open(gateway.address).await;
        // It may be closed before the last byte is sent.
        let _ = connection.try_send([header, request("X: y\r\n").repeat(3)].concat()).await;
        assert_eq!(connection.closed().await, b"", "{name}");
        assert_eq!(gateway.metric(&refused(reason)).await, Some(before + 1.0), "{name}");
    }
    let mut half = Connection::open(gateway.address).await;
    half.send(&LINE[..20]).await;
    half.finish_sending().await;
    assert_eq!(half.closed().await, b"");
    assert_eq!(gateway.metric(&refused("incomplete")).await, Some(1.0));
    // A balancer that only looks whether the port is open did nothing wrong.
    let mut probe = Connection::open(gateway.address).await;
    probe.finish_sending().await;
    assert_eq!(probe.closed().await, b"");
    assert_eq!(gateway.metric(&refused("silent")).await, None);
    assert!(gateway.jobs().await.is_empty());
    assert_eq!(gateway.metric("retrieve_requests_in_flight").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_header_is_closed_at_the_header_timeout() {
    let settings = [&SETTINGS[..], &[("RETRIEVE_HEADER_TIMEOUT", "200ms")]].concat();
    let gateway = TestGateway::start(&settings).await;
    for begin in ["", "P", LINE.trim_end(), "\r\n\r\n\0\r\nQUIT\n"] {
        let mut connection = Connection::open(gateway.address).await;
        connection.send(begin).await;
        assert_eq!(connection.closed().await, b"", "{begin:?}");
    }
    assert_eq!(gateway.metric(&refused("timeout")).await, Some(4.0));
    // Every byte in time, the header not.
    let mut dripping = Connection::open(gateway.address).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for byte in format!("PROXY UNKNOWN {}", "x".repeat(90)).bytes() {
        ticks.tick().await;
        if dripping.try_send([byte]).await.is_err() {
            break;
        }
    }
    assert_eq!(dripping.closed().await, b"");
    assert_eq!(gateway.metric(&refused("timeout")).await, Some(5.0));
    // After the header, the head has a time of its own, and its usual answer.
    let mut connection = Connection::open(gateway.address).await;
    connection.send([LINE.as_bytes(), b"POST /"].concat()).await;
    assert_eq!(connection.answer().await.status, 408);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_believed() {
    let others = [SETTINGS[0], ("RETRIEVE_TRUSTED_PROXIES", "10.0.0.0/8"), SETTINGS[2]];
    let off = [("RETRIEVE_PROXY_PROTOCOL", "off"), SETTINGS[1], SETTINGS[2]];
    for settings in [others, off] {
        let gateway = TestGateway::start(&settings).await;
        for header in [LINE.into(), v2(0x21, 0x11, &block("203.0.113.5")), v2(0x20, 0x00, &[])] {
            let mut connection = Connection::open(gateway.address).await;
            connection.send([header, request("")].concat()).await;
            assert_eq!(connection.answer().await.status, 400);
        }
        assert!(gateway.jobs().await.is_empty());
        assert_eq!(gateway.post_json("{}").await.status, 200, "plain HTTP is served");
        assert_eq!(gateway.jobs().await[0]["source"]["ip"], "127.0.0.1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_cannot_take_all_places_behind_its_proxy() {
    let settings = [&SETTINGS[..], &[("RETRIEVE_MAX_CONNECTIONS_PER_ADDRESS", "2")]].concat();
    let gateway = TestGateway::start(&settings).await;
    let mut open = Vec::new();
    for (client, expect) in [
        ("203.0.113.5", 200),
        ("203.0.113.5", 200),
        ("203.0.113.5", 503),
        ("203.0.113.6", 200),
        // A proxy behind the proxy speaks for many.
        ("10.0.0.7", 403),
        ("10.0.0.7", 403),
        ("10.0.0.7", 403),
    ] {
        let mut connection = Connection::open(gateway.address).await;
        connection.send(format!("PROXY TCP4 {client} 192.0.2.1 1 2\r\n").into_bytes()).await;
        connection.send(request("")).await;
        assert_eq!(connection.answer().await.status, expect, "{client}");
        open.push(connection);
    }
    assert_eq!(gateway.metric("retrieve_connections_refused_total").await, Some(1.0));
    drop(open);
    eventually("the places are free again", || async {
        (gateway.metric("retrieve_connections_open").await? == 0.0).then_some(())
    })
    .await;
    let mut connection = Connection::open(gateway.address).await;
    connection.send([LINE.into(), request("")].concat()).await;
    assert_eq!(connection.answer().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_private_plane_speaks_plain_http() {
    let gateway = TestGateway::start(&SETTINGS).await;
    assert_eq!(crate::support::client::get(gateway.admin, "/live").await.status, 200);
}

/// The client that a server saw, and whether it answered in HTTP at all.
async fn client_of(address: SocketAddr, bytes: &[u8]) -> Option<String> {
    let mut connection = Connection::open(address).await;
    if connection.try_send(bytes).await.is_err() || connection.try_finish_sending().await.is_err() {
        return None;
    }
    let answer = connection.try_answer().await?;
    match answer.status {
        200 => Some(answer.body.parse::<IpAddr>().unwrap().to_canonical().to_string()),
        403 => Some(answer.body.split(['(', ')']).nth(1).unwrap().to_owned()),
        status => Some(format!("status {status}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_believes_nginx_believes_too() {
    const CASES: usize = 500;
    let mut random = Random::from_environment();
    let nginx = Nginx::start().await;
    let settings =
        [SETTINGS[0], ("RETRIEVE_TRUSTED_PROXIES", "127.0.0.1"), ("RETRIEVE_ALLOWED_LIST", "198.18.0.1")];
    let gateway = TestGateway::start(&settings).await;
    let mut classes: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..CASES {
        let header = random_header(&mut random);
        let ours =
            client_of(gateway.address, &[&header[..], &post("/integration/demo", "text/json", "")].concat())
                .await;
        let theirs =
            client_of(nginx.proxy_protocol, &[&header[..], b"GET / HTTP/1.0\r\n\r\n"].concat()).await;
        let class = match (&ours, &theirs) {
            // A header that was cut off takes a part of the request for its own end.
            (Some(client), _) if client.starts_with("status") => "the same header, no request",
            (Some(_), _) => {
                assert_eq!(ours, theirs, "{}", header.escape_ascii());
                "the same client"
            }
            (None, Some(client)) if !client.starts_with("status") => "refused, nginx doesn't",
            (None, _) => "both refuse",
        };
        *classes.entry(class).or_default() += 1;
    }
    println!("{CASES} headers: {classes:#?}");
    assert!(classes["the same client"] > 100);
    assert!(gateway.jobs().await.is_empty());
}

fn random_header(random: &mut Random) -> Vec<u8> {
    let mut bits = || u128::from(random.below(u64::MAX)) << 64 | u128::from(random.below(u64::MAX));
    let v4 = Ipv4Addr::from_bits(bits() as u32 >> 1);
    let v6 = [Ipv6Addr::from_bits(bits()), v4.to_ipv6_mapped()][usize::from(bits() & 7 == 0)];
    let port = bits() as u16;
    let mut header = match random.below(10) {
        0 | 1 => format!("PROXY TCP4 {v4} 192.0.2.1 {port} 8080\r\n").into_bytes(),
        2 | 3 => format!("PROXY TCP6 {v6} 2001:db8::1 {port} 8080\r\n").into_bytes(),
        4 => b"PROXY UNKNOWN\r\n".to_vec(),
        5 => v2(0x21, 0x11, &block(&v4.to_string())),
        6 => v2(0x21, 0x21, &[block(&v6.to_string()), tlv(5, b"an id")].concat()),
        7 => checked(0x21, 0x11, &block(&v4.to_string())),
        8 => checked(0x21, 0x21, &block(&v6.to_string())),
        _ => v2(0x20, 0x00, &[]),
    };
    let at = random.index(header.len());
    match random.below(5) {
        0 => header[at] = u8::try_from(random.below(256)).unwrap(),
        1 => header[at] ^= 1 << random.below(8),
        2 if random.below(2) == 0 => header.truncate(at),
        _ => {}
    }
    header
}
