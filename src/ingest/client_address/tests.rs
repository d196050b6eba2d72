use proptest::prelude::*;

use super::*;
use crate::admission::networks::parse_network;

const XFF: &str = "X-Forwarded-For";

fn trusted() -> NetworkTable<()> {
    let mut table = NetworkTable::default();
    for network in ["10.0.0.0/8", "2001:db8:aaaa::/48"] {
        table.insert(parse_network(network).unwrap(), ());
    }
    table
}

fn find(peer: &str, headers: &[(&str, &str)]) -> Result<String, String> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    find_bytes(peer, &headers)
}

fn find_bytes(peer: &str, headers: &[(&str, &[u8])]) -> Result<String, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, http::HeaderValue::from_bytes(value).unwrap());
    }
    client_address(peer.parse().unwrap(), &map, &trusted())
        .map(|address| address.0.to_string())
        .map_err(|error| error.to_string())
}

fn no_address(header: &str, token: &str) -> Result<String, String> {
    Err(format!("The header {header} names a hop that is no address: {token}"))
}

#[test]
fn only_a_trusted_peer_is_asked() {
    for (peer, line, expect) in [
        ("203.0.113.9", "127.0.0.1", "203.0.113.9"),
        ("::ffff:203.0.113.9", "127.0.0.1", "203.0.113.9"),
        // What an untrusted peer writes needn't even be readable.
        ("203.0.113.9", "unknown", "203.0.113.9"),
        ("11.0.0.0", "203.0.113.5", "11.0.0.0"),
        ("9.255.255.255", "203.0.113.5", "9.255.255.255"),
        ("10.0.0.0", "203.0.113.5", "203.0.113.5"),
        ("10.255.255.255", "203.0.113.5", "203.0.113.5"),
        ("::ffff:10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("::ffff:a00:1", "203.0.113.5", "203.0.113.5"),
        // Other ways of writing 10.0.0.1 into an IPv6 address are other addresses.
        ("::10.0.0.1", "203.0.113.5", "::a00:1"),
        ("::ffff:0:10.0.0.1", "203.0.113.5", "::ffff:0:a00:1"),
        ("64:ff9b::10.0.0.1", "203.0.113.5", "64:ff9b::a00:1"),
        ("2002:a00:1::", "203.0.113.5", "2002:a00:1::"),
        ("2001:db8:aaaa::1", "203.0.113.5", "203.0.113.5"),
        ("2001:db8:aaab::1", "203.0.113.5", "2001:db8:aaab::1"),
    ] {
        assert_eq!(find(peer, &[(XFF, line)]), Ok(expect.to_owned()), "{peer} {line}");
    }
}

#[test]
fn x_forwarded_for_is_read_from_the_right_through_trusted_hops() {
    for (lines, expect) in [
        (&[][..], "10.0.0.1"),
        (&["203.0.113.5"], "203.0.113.5"),
        (&["203.0.113.5, 10.0.0.2"], "203.0.113.5"),
        // The sender's own first hops are never reached.
        (&["127.0.0.1, 203.0.113.5"], "203.0.113.5"),
        (&["127.0.0.1, 203.0.113.5, 10.0.0.2"], "203.0.113.5"),
        (&["10.0.0.9, 203.0.113.5, 10.0.0.2"], "203.0.113.5"),
        (&["garbage, 203.0.113.5"], "203.0.113.5"),
        (&["\"127.0.0.1, 203.0.113.5"], "203.0.113.5"),
        // Several lines are one list.
        (&["127.0.0.1", "203.0.113.5"], "203.0.113.5"),
        (&["203.0.113.5", "10.0.0.2", "10.0.0.3"], "203.0.113.5"),
        (&["203.0.113.5, 10.0.0.4", "10.0.0.2, 10.0.0.3"], "203.0.113.5"),
        (&["unknown", "203.0.113.5, 10.0.0.3"], "203.0.113.5"),
        // Only trusted hops: the leftmost is the client.
        (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (&["2001:db8:aaaa::7, ::ffff:10.0.0.2"], "2001:db8:aaaa::7"),
        // Empty elements, and lines with none.
        (&[""], "10.0.0.1"),
        (&[",", ""], "10.0.0.1"),
        (&[" 203.0.113.5 ,, "], "203.0.113.5"),
        (&["203.0.113.5,, 10.0.0.2"], "203.0.113.5"),
        (&["", "10.0.0.2"], "10.0.0.2"),
        (&[", 10.0.0.2"], "10.0.0.2"),
        (&["unknown", ", 203.0.113.5"], "203.0.113.5"),
    ] {
        let headers: Vec<_> = lines.iter().map(|line| (XFF, *line)).collect();
        assert_eq!(find("10.0.0.1", &headers), Ok(expect.to_owned()), "{lines:?}");
    }
    for (lines, token) in [
        (&["203.0.113.5, unknown"][..], "unknown"),
        (&["203.0.113.5, unknown, 10.0.0.2"], "unknown"),
        (&["203.0.113.5", "unknown", "10.0.0.2"], "unknown"),
        (&["203.0.113.5 10.0.0.2"], "203.0.113.5 10.0.0.2"),
        (&["203.0.113.5,\t10.0.0.2"], "\\t10.0.0.2"),
        (&["203.0.113.5;10.0.0.2"], "203.0.113.5;10.0.0.2"),
        // The list goes on in the line before; nginx ends here.
        (&["203.0.113.5", ""], ""),
        (&["203.0.113.5", " , "], ""),
        (&["203.0.113.5", ", 10.0.0.2"], ""),
        (&[",203.0.113.5, 10.0.0.2"], ",203.0.113.5"),
    ] {
        let headers: Vec<_> = lines.iter().map(|line| (XFF, *line)).collect();
        assert_eq!(find("10.0.0.1", &headers), no_address(XFF, token), "{lines:?}");
    }
}

#[test]
fn a_hop_is_an_address_with_or_without_a_port() {
    for (hop, expect) in [
        ("203.0.113.5:1", "203.0.113.5"),
        ("203.0.113.5:65535", "203.0.113.5"),
        ("203.0.113.5:00080", "203.0.113.5"),
        ("0.0.0.0", "0.0.0.0"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("::FFFF:cb00:7105", "203.0.113.5"),
        ("0:0:0:0:0:ffff:203.0.113.5", "203.0.113.5"),
        ("[::ffff:203.0.113.5]:443", "203.0.113.5"),
        ("::203.0.113.5", "::cb00:7105"),
        ("64:ff9b::203.0.113.5", "64:ff9b::cb00:7105"),
        ("2001:db8::5", "2001:db8::5"),
        ("2001:DB8:0:0:0:0:0:5", "2001:db8::5"),
        ("2001:0db8::0005", "2001:db8::5"),
        ("2001:db8::5:443", "2001:db8::5:443"),
        ("1:2:3:4:5:6::", "1:2:3:4:5:6::"),
        ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"),
        ("::", "::"),
        ("[2001:db8::5]:443", "2001:db8::5"),
    ] {
        assert_eq!(find("10.0.0.1", &[(XFF, hop)]), Ok(expect.to_owned()), "{hop}");
    }
    for hop in [
        "unknown",
        "_hidden",
        "localhost",
        "shop.example",
        "unix:",
        "-",
        "*",
        "for=203.0.113.5",
        "203.0.113.5/32",
        "203.0.113",
        "203.0.113.5.6",
        "203.0.113.256",
        "203.0.113.",
        "203..113.5",
        "0xcb.0.113.5",
        "3405803781",
        "010.0.0.1",
        "203.0.113.05",
        "+203.0.113.5",
        "255.255.255.255",
        "::ffff:255.255.255.255",
        "203.0.113.5:",
        "203.0.113.5:0",
        "203.0.113.5:65536",
        "203.0.113.5:+80",
        "203.0.113.5:-80",
        "203.0.113.5:8a",
        "203.0.113.5:80:80",
        "[203.0.113.5]",
        "[203.0.113.5]:80",
        "[2001:db8::5]",
        "[2001:db8::5",
        "2001:db8::5]",
        "[2001:db8::5]443",
        "[2001:db8::5]:",
        "[2001:db8::5]:0",
        "[2001:db8::5]:+443",
        "[[2001:db8::5]]:443",
        "fe80::1%eth0",
        "[fe80::1%25eth0]:443",
        "2001:db8::5::",
        "2001:db8:::5",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "1:2:3:4:5:6:7::",
        "12345::",
        "::g",
        "::ffff:203.0.113.05",
        "::ffff:203.0.113.5:443",
    ] {
        assert_eq!(find("10.0.0.1", &[(XFF, hop)]), no_address(XFF, hop), "{hop}");
    }
}

#[test]
fn bytes_that_are_no_text_are_no_address_and_harm_only_their_own_hop() {
    let left = [(XFF, &b"caf\xe9, 203.0.113.5"[..])];
    assert_eq!(find_bytes("10.0.0.1", &left), Ok("203.0.113.5".to_owned()));
    let right = [(XFF, &b"203.0.113.5, caf\xe9"[..])];
    assert_eq!(find_bytes("10.0.0.1", &right), no_address(XFF, "caf\\u{fffd}"));
}

#[test]
fn forwarded_is_read_with_its_quotes() {
    for (value, expect) in [
        ("for=203.0.113.5", Ok("203.0.113.5")),
        ("For=\"203.0.113.5:80\";proto=https;by=10.0.0.1", Ok("203.0.113.5")),
        ("proto=https; for=\"[2001:db8::5]:4711\"", Ok("2001:db8::5")),
        ("for=\"[2001:db8::5]\";", Ok("2001:db8::5")),
        ("for=\"203.0.113.\\5\"", Ok("203.0.113.5")),
        ("for=\"[::ffff:203.0.113.5]\"", Ok("203.0.113.5")),
        ("for=127.0.0.1, for=203.0.113.5;by=\"a,b;for=9.9.9.9\", for=10.0.0.2", Ok("203.0.113.5")),
        ("for=\"a\\\"b, for=127.0.0.1\", for=203.0.113.5", Ok("203.0.113.5")),
        ("for=_hidden", Err("_hidden")),
        ("for=unknown", Err("unknown")),
        ("for=\"unknown:80\"", Err("unknown:80")),
        ("proto=https", Err("(proto=https)")),
        ("203.0.113.5", Err("(203.0.113.5)")),
        ("for=203.0.113.5;for=127.0.0.1", Err("(for=203.0.113.5;for=127.0.0.1)")),
        ("for=\"203.0.113.5", Err("(for=\\\"203.0.113.5)")),
        ("for=\"203.0.113.5\"x", Err("(for=\\\"203.0.113.5\\\"x)")),
        // A sender's open quote must not swallow what the proxy writes behind it.
        ("for=127.0.0.1;x=\", for=203.0.113.5", Err("(for=127.0.0.1;x=\\\", for=203.0.113.5)")),
        ("for=127.0.0.1;x=\", for=\"203.0.113.5\"", Err("(for=127.0.0.1;x=\\\", for=\\\"203.0.113.5\\\")")),
        ("for=127.0.0.1;\", for=203.0.113.5", Err("(for=127.0.0.1;\\\", for=203.0.113.5)")),
        (
            "for=127.0.0.1;\", for=203.0.113.5;proto=https",
            Err("(for=127.0.0.1;\\\", for=203.0.113.5;proto=https)"),
        ),
        ("for=203.0.113.5;a b=c", Err("(for=203.0.113.5;a b=c)")),
        (
            "for=127.0.0.1;x=\"\\, for=\"203.0.113.5\"",
            Err("(for=127.0.0.1;x=\\\"\\\\, for=\\\"203.0.113.5\\\")"),
        ),
    ] {
        let expect = expect.map(str::to_owned).or_else(|token| no_address("Forwarded", token));
        assert_eq!(find("10.0.0.1", &[("Forwarded", value)]), expect, "{value}");
    }
}

#[test]
fn two_headers_must_agree() {
    let xff = (XFF, "203.0.113.5");
    assert_eq!(find("10.0.0.1", &[xff, ("Forwarded", "for=203.0.113.5")]), Ok("203.0.113.5".into()));
    // A proxy that writes one header and passes the sender's other one through must not be fooled.
    let spoofed = find("10.0.0.1", &[xff, ("Forwarded", "for=127.0.0.1")]);
    assert_eq!(spoofed, Err(Untraceable::Disagreement.to_string()));
}

#[test]
fn ten_thousand_hops_are_walked_or_left_alone() {
    let many = "10.0.0.7, ".repeat(10_000);
    assert_eq!(find("10.0.0.1", &[(XFF, &format!("203.0.113.5, {many}10.0.0.8"))]), Ok("203.0.113.5".into()));
    assert_eq!(find("10.0.0.1", &[(XFF, &format!("{many}203.0.113.5"))]), Ok("203.0.113.5".into()));
    let lines = vec![(XFF, "10.0.0.7"); 10_000];
    assert_eq!(find("10.0.0.1", &lines), Ok("10.0.0.7".into()));
}

proptest! {
    /// The address found is the peer, or one that a trusted hop wrote; an untrusted address ends the walk.
    #[test]
    fn no_text_left_of_an_untrusted_hop_matters(left in "[0-9a-f:., \"=\\\\-]{0,40}", last in 1u8..=254) {
        let line = format!("{left}, 203.0.113.{last}, 10.1.1.1");
        prop_assert_eq!(find("10.0.0.1", &[(XFF, &line)]), Ok(format!("203.0.113.{last}")));
    }

    /// What a proxy appends to a sender's `Forwarded` is the client's address, or nobody's: never the sender's word.
    #[test]
    fn no_sender_hides_what_a_proxy_appends_to_forwarded(
        left in "(for=|127\\.0\\.0\\.1|x=|\"|\\\\|,|;| |=){0,12}",
        quoted: bool,
        last in 1u8..=254,
    ) {
        let client = format!("203.0.113.{last}");
        let appended = if quoted { format!("for=\"{client}\"") } else { format!("for={client};proto=https") };
        let found = find("10.0.0.1", &[("Forwarded", &format!("{left}, {appended}"))]);
        prop_assert!(found.is_err() || found == Ok(client), "{found:?}");
    }

    /// Any header value is survived.
    #[test]
    fn any_value_is_survived(value in "[\\x20-\\x7e]{0,80}") {
        let _ = find("10.0.0.1", &[("Forwarded", &value)]);
        let _ = find("10.0.0.1", &[(XFF, &value)]);
    }

    /// An address and its IPv4-mapped form are one client, whoever names it.
    #[test]
    fn a_mapped_address_is_the_address(bits: u32) {
        let address = std::net::Ipv4Addr::from(bits);
        prop_assume!(!address.is_broadcast());
        let mapped = address.to_ipv6_mapped().to_string();
        prop_assert_eq!(find(&mapped, &[]), find(&address.to_string(), &[]));
        let named = [(XFF, address.to_string()), (XFF, mapped)].map(|(name, hop)| {
            find("10.0.0.1", &[(name, &hop)])
        });
        prop_assert_eq!(&named[0], &named[1]);
    }
}
