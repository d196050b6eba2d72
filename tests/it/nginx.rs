//! The client's address against nginx's realip module: thousands of random `X-Forwarded-For` headers lead to the same
//! client, or the gateway refuses because a hop on the walk is no address. Nowhere does it believe more than nginx.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use retrieve_gateway::admission::networks::{NetworkTable, parse_network};
use retrieve_gateway::ingest::client_address::client_address;

use crate::support::client::{Connection, exchange};
use crate::support::gateway::TestGateway;
use crate::support::nginx::{Nginx, TRUSTED, remote_address};
use crate::support::random::Random;

const SETS: usize = 5_000;
const THROUGH_THE_GATEWAY: usize = 200;

type Lines = Vec<Vec<u8>>;

fn trusted(loopback_too: bool) -> NetworkTable<()> {
    let mut table = NetworkTable::default();
    for network in TRUSTED.split(',').chain(loopback_too.then_some("127.0.0.1")) {
        table.insert(parse_network(network).unwrap(), ());
    }
    table
}

/// What the library says of a request from 127.0.0.1.
fn ours(lines: &[Vec<u8>], trusted: &NetworkTable<()>) -> Result<IpAddr, String> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append("x-forwarded-for", HeaderValue::from_bytes(line).unwrap());
    }
    client_address([127, 0, 0, 1].into(), &headers, trusted)
        .map(|client| client.0)
        .map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn random_headers_lead_to_nginxs_client_or_are_refused() {
    let mut random = Random::from_environment();
    let nginx = Nginx::start().await;
    let mut trusting = Connection::open(nginx.trusting).await;
    let mut untrusting = Connection::open(nginx.untrusting).await;
    let (with_loopback, without) = (trusted(true), trusted(false));
    let mut classes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sets = Vec::new();
    for _ in 0..SETS {
        let lines = header_lines(&mut random);
        let theirs = remote_address(&mut trusting, &lines).await;
        let class = match ours(&lines, &with_loopback) {
            Ok(address) => {
                assert_eq!(address, theirs, "{}", shown(&lines));
                if address.is_loopback() { "the peer" } else { "the same client" }
            }
            Err(_) => why_refused(&lines, theirs, &with_loopback),
        };
        *classes.entry(class).or_default() += 1;

        let theirs = remote_address(&mut untrusting, &lines).await;
        assert_eq!(ours(&lines, &without), Ok(theirs), "{}", shown(&lines));
        sets.push(lines);
    }
    println!("{SETS} sets: {classes:#?}");
    for class in ["the same client", "refused where nginx stops", "refused: space within"] {
        assert!(classes.get(class).is_some_and(|count| *count > 20), "too few of {class:?}");
    }
    through_the_gateway(&sets, &with_loopback).await;
}

/// The gateway refused: the first hop from the right without which it wouldn't have done so must be on the walk, and no
/// address. Either nginx stops there too, or it reads more into the text than there is.
fn why_refused(lines: &Lines, theirs: IpAddr, trusted: &NetworkTable<()>) -> &'static str {
    let mut before = IpAddr::from([127, 0, 0, 1]);
    for suffix in suffixes(lines) {
        match ours(&suffix, trusted) {
            Ok(address) => before = address,
            Err(_) => {
                assert!(trusted.contains(before), "not on the walk: {}", shown(lines));
                if theirs == before {
                    return "refused where nginx stops";
                }
                let token = String::from_utf8_lossy(first_hop(&suffix[0])).trim_matches(' ').to_owned();
                return only_nginx_reads(&token)
                    .unwrap_or_else(|| panic!("{token:?} of {}, nginx: {theirs}", shown(lines)));
            }
        }
    }
    panic!("no suffix is refused: {}", shown(lines));
}

/// All that is left when hops are taken away from the left, the shortest first.
fn suffixes(lines: &Lines) -> Vec<Lines> {
    let mut suffixes = vec![lines.clone()];
    let mut rest = lines.clone();
    while let Some(first) = rest.first() {
        let left = &first[first_hop(first).len()..];
        let begin = left.iter().position(|byte| !b" ,".contains(byte)).unwrap_or(left.len());
        match left[begin..].to_vec() {
            left if left.is_empty() => drop(rest.remove(0)),
            left => rest[0] = left,
        }
        suffixes.push(rest.clone());
    }
    suffixes.reverse();
    suffixes
}

/// With the white space before it. A comma that begins a line and touches a hop belongs to the hop.
fn first_hop(line: &[u8]) -> &[u8] {
    let begin = line.iter().position(|byte| *byte != b' ').unwrap_or(0);
    let touches = line[begin..].starts_with(b",") && !line[begin + 1..].starts_with(b" ");
    let from = begin + usize::from(touches);
    let length =
        line.iter().skip(from).position(|byte| *byte == b',').map_or(line.len(), |comma| from + comma);
    &line[..length]
}

/// Why a text that nginx reads as an address is none.
fn only_nginx_reads(token: &str) -> Option<&'static str> {
    let octets: Vec<&str> = token.split(['[', ']', ':']).filter(|part| part.contains('.')).collect();
    let octets: Vec<&str> = octets.iter().flat_map(|part| part.split('.')).collect();
    if token.contains(' ') {
        Some("refused: space within")
    } else if octets.iter().any(|octet| octet.is_empty() || (octet.len() > 1 && octet.starts_with('0'))) {
        Some("refused: octet empty or with leading zeros")
    } else if token.starts_with('[') && !token.contains("]:") {
        None
    } else if token.starts_with('[') && !token[..token.find(']')?].contains(':') {
        Some("refused: IPv4 in brackets")
    } else {
        let address = token.trim_start_matches('[').split(']').next()?;
        let dangling = |text: &str| text.starts_with(':') && !text.starts_with("::");
        let reversed: String = address.chars().rev().collect();
        (dangling(address) || dangling(&reversed)).then_some("refused: IPv6 with a dangling colon")
    }
}

/// A part of the sets as real requests: the answer names the client, whom no list admits.
async fn through_the_gateway(sets: &[Lines], trusted: &NetworkTable<()>) {
    let proxies = format!("127.0.0.1,{TRUSTED}");
    let settings =
        [("RETRIEVE_TRUSTED_PROXIES", proxies.as_str()), ("RETRIEVE_ALLOWED_LIST", "198.18.255.255")];
    let gateway = TestGateway::start(&settings).await;
    // HTTP takes a tab away from a value's ends, too, before anybody looks at it.
    let keeps_its_ends = |line: &Vec<u8>| {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_matches(' ');
        !line.starts_with('\t') && !line.ends_with('\t')
    };
    for lines in sets.iter().filter(|lines| lines.iter().all(keeps_its_ends)).take(THROUGH_THE_GATEWAY) {
        let mut request = b"POST /integration/demo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n".to_vec();
        for line in lines {
            request.extend_from_slice(&[b"X-Forwarded-For: ", line.as_slice(), b"\r\n"].concat());
        }
        let answer = exchange(gateway.address, [request, b"\r\n".to_vec()].concat()).await;
        let expect = match ours(lines, trusted) {
            Ok(address) => (403, format!("This domain/IP ({address}) isn't authorized on Retrieve")),
            Err(error) => (400, error),
        };
        let told = answer.json()["error"].as_str().map(str::to_owned);
        assert_eq!((answer.status, told), (expect.0, Some(expect.1)), "{}", shown(lines));
    }
}

fn shown(lines: &Lines) -> String {
    lines.iter().map(|line| format!("[{}]", line.escape_ascii())).collect::<Vec<_>>().join(" ")
}

fn header_lines(random: &mut Random) -> Lines {
    (0..=random.below(4)).map(|_| header_line(random)).collect()
}

fn header_line(random: &mut Random) -> Vec<u8> {
    let mut line = random.pick(&["", "", "", " ", ",", ", "]).as_bytes().to_vec();
    for index in 0..random.below(5) {
        if index > 0 {
            line.extend_from_slice(
                random.pick(&[", ", ", ", ", ", ", ", ", ", ",", ",", " , ", ",, ", ", ,", " "]).as_bytes(),
            );
        }
        line.extend_from_slice(&hop(random));
    }
    line.extend_from_slice(random.pick(&["", "", "", "", " ", ",", " , "]).as_bytes());
    line
}

/// Mostly a proxy that is trusted, so that the walk goes on.
fn hop(random: &mut Random) -> Vec<u8> {
    let address = match random.below(10) {
        0..=3 => format!("10.{}.0.{}", random.below(256), random.below(256)),
        4 => format!("2001:db8:aaaa::{:x}", random.below(0x10000)),
        5 => random
            .pick(&["::ffff:10.0.0.2", "::FFFF:a00:3", "192.0.2.7", "2001:DB8:AAAA:0:0:0:0:9"])
            .to_string(),
        6 | 7 => format!("203.0.113.{}", random.below(256)),
        8 => format!("2001:db8:{:x}::{:x}", random.below(0xaaaa), random.below(0x10000)),
        _ => random
            .pick(&["::ffff:203.0.113.9", "64:ff9b::10.0.0.2", "::10.0.0.2", "127.0.0.1", "::1", "192.0.2.8"])
            .to_string(),
    };
    let is_v6 = address.contains(':');
    match random.below(20) {
        0 | 1 if is_v6 => format!("[{address}]:{}", random.below(66_000)),
        0 | 1 => format!("{address}:{}", random.below(66_000)),
        2 => format!("[{address}]"),
        3 => return garbage(random),
        4 => return mutated(random, address.into_bytes()),
        _ => address,
    }
    .into_bytes()
}

fn garbage(random: &mut Random) -> Vec<u8> {
    const GARBAGE: [&[u8]; 36] = [
        b"unknown",
        b"_hidden",
        b"-",
        b"localhost",
        b"for=10.0.0.2",
        b"\"10.0.0.2\"",
        b"caf\xe9",
        b"10.0.0.2;10.0.0.3",
        b"010.0.0.2",
        b"10.0.0.02",
        b"10.0.0.256",
        b"10.0.0",
        b"10..0.2",
        b"10.0.0.2.",
        b"0x0a.0.0.2",
        b"167772162",
        b"255.255.255.255",
        b"255.255.255.255:80",
        b"::ffff:255.255.255.255",
        b"10.0.0.2:0",
        b"10.0.0.2:+80",
        b"10.0.0.2:080",
        b"10.0.0.2:65536",
        b"10.0.0.2:",
        b"[10.0.0.2]:80",
        b"[2001:db8:aaaa::1]:+80",
        b"[2001:db8:aaaa::1]:0",
        b"[2001:db8:aaaa::1",
        b"fe80::1%eth0",
        b"1:2:3:4:5:6:7::",
        b":2001:db8:aaaa::2",
        b"2001:db8:aaaa::2:",
        b"2001:db8:aaaa:::2",
        b"::ffff:010.0.0.2",
        b"\t10.0.0.2",
        b"10.0.0.2\t",
    ];
    random.pick(&GARBAGE).to_vec()
}

/// An address with one byte put in, taken out or replaced.
fn mutated(random: &mut Random, mut address: Vec<u8>) -> Vec<u8> {
    const BYTES: &[u8] = b"0123456789abcdefF.:[]%/ \t-+";
    let at = random.index(address.len());
    let byte = *random.pick(BYTES);
    match random.below(3) {
        0 => address.insert(at, byte),
        1 => drop(address.remove(at)),
        _ => address[at] = byte,
    }
    address
}
