//! The client's address: the socket's peer, unless the peer is a trusted proxy.
//!
//! Then `Forwarded` (RFC 7239) or `X-Forwarded-For` is read from the right, through trusted hops only, over all of
//! the header's lines. What stands left of the first untrusted hop is the sender's own text and proves nothing.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use crate::admission::networks::NetworkTable;

/// An address in canonical form: an IPv4-mapped IPv6 address is the IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The proxies' headers name no client. Nobody is admitted on a guess.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untraceable {
    /// A hop that is no address, where an address had to be.
    #[error("The header {header} names a hop that is no address: {token}")]
    NotAnAddress {
        /// The header.
        header: &'static str,
        /// What it says, in printable characters.
        token: String,
    },
    /// Both headers are there and lead to different clients; only one of them can be the proxy's.
    #[error(
        "The headers Forwarded and X-Forwarded-For name different clients; let the proxy remove the one that it doesn't write"
    )]
    Disagreement,
}

/// Finds the client's address.
///
/// # Errors
/// A trusted proxy forwarded the request, and its headers name no client.
pub fn client_address(
    peer: IpAddr,
    headers: &HeaderMap,
    trusted: &NetworkTable<()>,
) -> Result<ClientAddress, Untraceable> {
    let peer = peer.to_canonical();
    if !trusted.contains(peer) {
        return Ok(ClientAddress(peer));
    }
    let forwarded = walk(peer, trusted, "Forwarded", &forwarded_hops(headers))?;
    let x_forwarded_for = walk(peer, trusted, "X-Forwarded-For", &x_forwarded_for_hops(headers))?;
    match (forwarded, x_forwarded_for) {
        (Some(one), Some(other)) if one != other => Err(Untraceable::Disagreement),
        (Some(address), _) | (None, Some(address)) => Ok(ClientAddress(address)),
        (None, None) => Ok(ClientAddress(peer)),
    }
}

/// Walks the hops from the right for as long as the address in hand is trusted to have written the one before it.
fn walk(
    peer: IpAddr,
    trusted: &NetworkTable<()>,
    header: &'static str,
    hops: &[String],
) -> Result<Option<IpAddr>, Untraceable> {
    let mut address = peer;
    for hop in hops.iter().rev() {
        if !trusted.contains(address) {
            break;
        }
        address = parse_hop(hop).ok_or_else(|| Untraceable::NotAnAddress { header, token: shown(hop) })?;
    }
    Ok((!hops.is_empty()).then_some(address))
}

/// An address, with or without a port; IPv6 with a port stands in brackets.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bracketed = || {
        let inner = hop.strip_prefix('[')?;
        let (address, port) = inner.split_once(']')?;
        let port_is_fine =
            port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
        port_is_fine.then(|| address.parse::<std::net::Ipv6Addr>().ok()).flatten().map(IpAddr::V6)
    };
    let with_port = || match hop.parse::<SocketAddr>().ok()? {
        SocketAddr::V4(address) => Some(IpAddr::V4(*address.ip())),
        SocketAddr::V6(_) => None,
    };
    hop.parse::<IpAddr>().ok().or_else(with_port).or_else(bracketed).map(|address| address.to_canonical())
}

/// A line that isn't ASCII text becomes a hop that is no address.
fn lines<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("(not text)"))
}

/// RFC 9110 (section 5.6.1) lets a list have empty elements; they name no hop.
fn x_forwarded_for_hops(headers: &HeaderMap) -> Vec<String> {
    lines(headers, "x-forwarded-for")
        .flat_map(|line| line.split(','))
        .map(|hop| hop.trim().to_owned())
        .filter(|hop| !hop.is_empty())
        .collect()
}

/// The `for` of each element; an element without one is a hop that hides who it speaks for.
fn forwarded_hops(headers: &HeaderMap) -> Vec<String> {
    lines(headers, "forwarded")
        .flat_map(|line| split_unquoted(line, ','))
        .filter(|element| !element.trim().is_empty())
        .map(|element| {
            split_unquoted(element, ';')
                .into_iter()
                .find_map(|pair| {
                    let (name, value) = pair.split_once('=')?;
                    name.trim().eq_ignore_ascii_case("for").then(|| unquote(value.trim()))
                })
                .unwrap_or_else(|| "(no for)".to_owned())
        })
        .collect()
}

/// Splits at a separator outside quoted strings (RFC 9110, section 5.6.4).
fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut quoted = false;
    let mut escaped = false;
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if character == separator && !quoted => {
                parts.push(&text[start..index]);
                start = index + character.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unquote(text: &str) -> String {
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(inner) => inner.replace('\\', ""),
        None => text.to_owned(),
    }
}

fn shown(token: &str) -> String {
    const SHOWN_LIMIT_CHARACTERS: usize = 60;
    token.chars().take(SHOWN_LIMIT_CHARACTERS).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admission::networks::parse_network;

    fn trusted() -> NetworkTable<()> {
        let mut table = NetworkTable::default();
        for network in ["10.0.0.0/8", "2001:db8:aaaa::/48"] {
            table.insert(parse_network(network).unwrap(), ());
        }
        table
    }

    fn find(peer: &str, headers: &[(&str, &str)]) -> Result<String, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        client_address(peer.parse().unwrap(), &map, &trusted())
            .map(|address| address.0.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn x_forwarded_for_is_read_from_the_right_through_trusted_hops() {
        const XFF: &str = "X-Forwarded-For";
        for (peer, lines, expect) in [
            // An untrusted peer's headers are its own text.
            ("203.0.113.9", &["127.0.0.1"][..], "203.0.113.9"),
            ("::ffff:203.0.113.9", &["127.0.0.1"], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.5"], "203.0.113.5"),
            ("::ffff:10.0.0.1", &["203.0.113.5"], "203.0.113.5"),
            ("10.0.0.1", &["203.0.113.5, 10.0.0.2"], "203.0.113.5"),
            // The sender's own first hops are never reached.
            ("10.0.0.1", &["127.0.0.1, 203.0.113.5"], "203.0.113.5"),
            ("10.0.0.1", &["127.0.0.1, 203.0.113.5, 10.0.0.2"], "203.0.113.5"),
            ("10.0.0.1", &["garbage, 203.0.113.5"], "203.0.113.5"),
            // Several lines are one list.
            ("10.0.0.1", &["127.0.0.1", "203.0.113.5"], "203.0.113.5"),
            ("10.0.0.1", &["203.0.113.5", "10.0.0.2", "10.0.0.3"], "203.0.113.5"),
            // Only trusted hops: the leftmost is the client.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Forms.
            ("10.0.0.1", &["203.0.113.5:4711"], "203.0.113.5"),
            ("10.0.0.1", &["::ffff:203.0.113.5"], "203.0.113.5"),
            ("10.0.0.1", &["::ffff:10.0.0.7, ::ffff:10.0.0.2"], "10.0.0.7"),
            ("10.0.0.1", &["2001:db8::5"], "2001:db8::5"),
            ("10.0.0.1", &["[2001:db8::5]"], "2001:db8::5"),
            ("10.0.0.1", &["[2001:db8::5]:443"], "2001:db8::5"),
            ("2001:db8:aaaa::1", &["2001:DB8::5"], "2001:db8::5"),
            ("10.0.0.1", &[" 203.0.113.5 ,, "], "203.0.113.5"),
        ] {
            let headers: Vec<_> = lines.iter().map(|line| (XFF, *line)).collect();
            assert_eq!(find(peer, &headers), Ok(expect.to_owned()), "{peer} {lines:?}");
        }
        for token in [
            "unknown",
            "1.2.3.4.5",
            "[2001:db8::5",
            "[2001:db8::5]443",
            "fe80::1%eth0",
            "010.0.0.1",
            "1.2.3.4:99999",
        ] {
            let expect = format!("The header X-Forwarded-For names a hop that is no address: {token}");
            assert_eq!(find("10.0.0.1", &[(XFF, token)]), Err(expect), "{token}");
        }
    }

    #[test]
    fn forwarded_is_read_with_its_quotes() {
        for (value, expect) in [
            ("for=203.0.113.5", Ok("203.0.113.5")),
            ("For=\"203.0.113.5:80\";proto=https;by=10.0.0.1", Ok("203.0.113.5")),
            ("proto=https; for=\"[2001:db8::5]:4711\"", Ok("2001:db8::5")),
            ("for=127.0.0.1, for=203.0.113.5;by=\"a,b;for=9.9.9.9\", for=10.0.0.2", Ok("203.0.113.5")),
            ("for=_hidden", Err("_hidden")),
            ("for=unknown", Err("unknown")),
            ("proto=https", Err("(no for)")),
            ("for=\"203.0.113.5", Err("\\\"203.0.113.5")),
        ] {
            let expect = expect
                .map(str::to_owned)
                .map_err(|token| format!("The header Forwarded names a hop that is no address: {token}"));
            assert_eq!(find("10.0.0.1", &[("Forwarded", value)]), expect, "{value}");
        }
    }

    #[test]
    fn two_headers_must_agree() {
        let xff = ("X-Forwarded-For", "203.0.113.5");
        assert_eq!(find("10.0.0.1", &[xff, ("Forwarded", "for=203.0.113.5")]), Ok("203.0.113.5".into()));
        // A proxy that writes one header and passes the sender's other one through must not be fooled.
        let spoofed = find("10.0.0.1", &[xff, ("Forwarded", "for=127.0.0.1")]);
        assert_eq!(spoofed, Err(Untraceable::Disagreement.to_string()));
    }

    proptest! {
        /// The address found is the peer, or one that a trusted hop wrote; an untrusted address ends the walk.
        #[test]
        fn no_text_left_of_an_untrusted_hop_matters(left in "[0-9a-f:., \"=-]{0,40}", last in 1u8..=254) {
            let line = format!("{left}, 203.0.113.{last}, 10.1.1.1");
            prop_assert_eq!(find("10.0.0.1", &[("X-Forwarded-For", &line)]), Ok(format!("203.0.113.{last}")));
        }

        /// Any header value is survived.
        #[test]
        fn any_value_is_survived(value in "[\\x20-\\x7e]{0,80}") {
            let _ = find("10.0.0.1", &[("Forwarded", &value)]);
            let _ = find("10.0.0.1", &[("X-Forwarded-For", &value)]);
        }
    }
}
