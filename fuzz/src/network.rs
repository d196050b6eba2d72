//! What says where a request comes from, and where it goes.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, Method};
use retrieve_gateway::admission::networks::NetworkTable;
use retrieve_gateway::ingest::client_address::{ClientAddress, client_address as find};
use retrieve_gateway::ingest::proxy_protocol::header::{Header, V1_LIMIT_BYTES, V2_LIMIT_BYTES, parse};
use retrieve_gateway::ingest::route::Route;

use super::headers_and_body;

static TRUSTED: LazyLock<NetworkTable<()>> = LazyLock::new(|| {
    let mut table = NetworkTable::default();
    for network in ["10.0.0.0/8", "fd00::/8"] {
        table.insert(network.parse().expect("a network"), ());
    }
    table
});

/// Headers, one a line. Nothing that a sender writes left of what the proxies wrote changes who it is, and of a peer that
/// isn't trusted no header counts.
pub fn client_address(input: &[u8]) {
    let (headers, _) = headers_and_body(input);
    let stranger: IpAddr = [203, 0, 113, 5].into();
    assert_eq!(find(stranger, &headers, &TRUSTED), Ok(ClientAddress(stranger)));
    let proxy: IpAddr = [10, 0, 0, 1].into();
    let Ok(ClientAddress(client)) = find(proxy, &headers, &TRUSTED) else { return };
    assert_eq!(client, client.to_canonical());
    if TRUSTED.contains(client) {
        return;
    }
    for name in ["x-forwarded-for", "forwarded"] {
        if !headers.contains_key(name) {
            continue;
        }
        let forged = if name == "forwarded" { "for=198.51.100.66" } else { "198.51.100.66" };
        // Once as a line of its own before the others, and once in the first line.
        let mut before = HeaderMap::new();
        let mut within = HeaderMap::new();
        before.append(name, HeaderValue::from_static(forged));
        for (other, value) in &headers {
            before.append(other, value.clone());
            let value = match (other == name && !within.contains_key(name), value.as_bytes()) {
                (true, value) => [forged.as_bytes(), b", ", value].concat(),
                (false, value) => value.to_vec(),
            };
            within.append(other, HeaderValue::from_bytes(&value).expect("a value"));
        }
        for headers in [before, within] {
            let found = find(proxy, &headers, &TRUSTED);
            assert!(
                found.is_err() || found == Ok(ClientAddress(client)),
                "{found:?} for {client}: {headers:?}"
            );
        }
    }
}

/// The begin of a connection. A header is found at its last byte, not before, and nothing behind it changes it.
pub fn proxy_header(input: &[u8]) {
    match parse(input) {
        Ok(Some(header)) => {
            let Header { source, length_bytes } = header;
            assert!(length_bytes <= input.len() && length_bytes <= 16 + V2_LIMIT_BYTES);
            assert_eq!(source.map(|source| source.ip()), source.map(|source| source.ip().to_canonical()));
            assert_eq!(parse(&input[..length_bytes]), Ok(Some(header)));
            for length in [0, length_bytes / 2, length_bytes - 1] {
                assert_eq!(parse(&input[..length]), Ok(None), "{length} bytes");
            }
            let followed = [&input[..length_bytes], b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(parse(&followed), Ok(Some(header)));
            check_v1(&input[..length_bytes], source);
        }
        Ok(None) => {
            let limit = if input.starts_with(b"PROXY ") { V1_LIMIT_BYTES } else { 16 + V2_LIMIT_BYTES };
            assert!(input.len() < limit, "more bytes are asked for than a header may have");
        }
        Err(refused) => {
            let followed = [input, b"\r\n"].concat();
            assert_eq!(parse(&followed), Err(refused), "what can't become a header doesn't become one");
        }
    }
}

/// A line of version 1 names its source as the second word.
fn check_v1(header: &[u8], source: Option<SocketAddr>) {
    let Some(line) = header.strip_prefix(b"PROXY ") else { return };
    let line = String::from_utf8_lossy(line);
    let mut words = line.trim_end().split(' ');
    let kind = words.next();
    if let Some(source) = source {
        assert!(matches!(kind, Some("TCP4" | "TCP6")), "{line}");
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        assert_eq!(address.map(|address| address.to_canonical()), Some(source.ip()));
    } else {
        assert_eq!(kind, Some("UNKNOWN"));
    }
}

/// `<method> <path>`. A route is what its path was made of.
pub fn route(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (method, path) = text.split_once(' ').unwrap_or(("POST", text));
    let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::POST);
    let Ok(Route { integration, is_xml }) = Route::parse(&method, path) else { return };
    let xml = if is_xml { "/xml" } else { "" };
    let made = format!("/integration/{integration}{xml}");
    assert!(path == made || path == format!("{made}/"), "{path}");
    assert!((1..=64).contains(&integration.len()));
    assert!(integration.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    assert!([Method::POST, Method::GET, Method::HEAD, Method::OPTIONS].contains(&method));
}
