//! The client's address: the socket's peer, unless the peer is a trusted proxy.
//!
//! Then `Forwarded` (RFC 7239) or `X-Forwarded-For` is read from the right, through trusted hops only, over all of
//! the header's lines. What stands left of the first untrusted hop is the sender's own text and proves nothing.
//!
//! nginx's realip module (`real_ip_recursive on`) is the yardstick for `X-Forwarded-For`: either the address found is
//! nginx's, or the request is refused because a hop on the walk is no address, where nginx stops at the hop before.
//! `tests/it/nginx.rs` compares the two.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

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
    let walk = Walk { peer, trusted };
    let lines = lines(headers, "forwarded");
    let forwarded = walk.through("Forwarded", &forwarded_hops(&lines), parse_node)?;
    let lines = self::lines(headers, "x-forwarded-for");
    let x_forwarded_for = walk.through("X-Forwarded-For", &x_forwarded_for_hops(&lines), parse_hop)?;
    match (forwarded, x_forwarded_for) {
        (Some(one), Some(other)) if one != other => Err(Untraceable::Disagreement),
        (Some(address), _) | (None, Some(address)) => Ok(ClientAddress(address)),
        (None, None) => Ok(ClientAddress(peer)),
    }
}

struct Walk<'a> {
    peer: IpAddr,
    trusted: &'a NetworkTable<()>,
}

impl Walk<'_> {
    /// Goes from the right for as long as the address in hand is trusted to have written the one before it.
    fn through(
        &self,
        header: &'static str,
        hops: &[Cow<'_, str>],
        parse: impl Fn(&str) -> Option<IpAddr>,
    ) -> Result<Option<IpAddr>, Untraceable> {
        let mut address = self.peer;
        for hop in hops.iter().rev() {
            if !self.trusted.contains(address) {
                break;
            }
            let parsed = parse(hop).ok_or_else(|| Untraceable::NotAnAddress { header, token: shown(hop) })?;
            address = parsed.to_canonical();
        }
        Ok((!hops.is_empty()).then_some(address))
    }
}

/// A hop of `X-Forwarded-For`: an address, with or without a port; IPv6 with a port stands in brackets.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    if let Some(address) = parse_address(hop) {
        return Some(address);
    }
    let (address, port) = hop.rsplit_once(':')?;
    let address = match address.strip_prefix('[') {
        Some(rest) => parse_address(rest.strip_suffix(']')?).filter(IpAddr::is_ipv6),
        None => parse_address(address).filter(IpAddr::is_ipv4),
    };
    address.filter(|_| is_port(port))
}

/// The node of a `for` (RFC 7239, section 6): IPv6 stands in brackets without a port, too.
fn parse_node(node: &str) -> Option<IpAddr> {
    let bracketed = || node.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    parse_hop(node).or_else(bracketed)
}

/// Two texts that Rust reads are no addresses to nginx, and no proxy writes them: the broadcast address (also at the end
/// of an IPv6 address), and `::` for the last group alone.
fn parse_address(text: &str) -> Option<IpAddr> {
    const GROUPS: usize = 8;
    let is_broadcast = text.ends_with("255.255.255.255");
    let ends_in_one_group = text.ends_with("::") && text.matches(':').count() == GROUPS;
    let address = text.parse::<IpAddr>().ok()?;
    (!is_broadcast && !ends_in_one_group).then_some(address)
}

/// `u16::from_str` alone would take a sign.
fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Bytes that aren't text become characters that are in no address.
fn lines<'a>(headers: &'a HeaderMap, name: &str) -> Vec<Cow<'a, str>> {
    headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect()
}

/// RFC 9110 (section 5.6.1) lets a list have empty elements; they name no hop. But where a line begins with one, nginx
/// ends its walk, while the list goes on in the line before: the two would find different clients. So such an element
/// is a hop that is no address, unless nothing stands left of it. For the same reason a comma that begins a line and
/// touches a hop is part of that hop.
fn x_forwarded_for_hops<'a>(lines: &'a [Cow<'a, str>]) -> Vec<Cow<'a, str>> {
    let mut hops: Vec<Cow<'a, str>> = Vec::new();
    for line in lines.iter().map(|line| line.trim_matches(' ')) {
        let touches =
            line.strip_prefix(',').is_some_and(|rest| !rest.is_empty() && !rest.starts_with([' ', ',']));
        let from = usize::from(touches);
        let first_end = line[from..].find(',').map_or(line.len(), |index| from + index);
        let (first, rest) = line.split_at(first_end);
        hops.push(Cow::Borrowed(first.trim_matches(' ')));
        let named = rest.split(',').map(|element| element.trim_matches(' ')).filter(|hop| !hop.is_empty());
        hops.extend(named.map(Cow::Borrowed));
    }
    let first = hops.iter().position(|hop| !hop.is_empty()).unwrap_or(hops.len());
    hops.drain(..first);
    hops
}

/// The `for` of each element. One that is malformed, or hides who it speaks for, is a hop that is no address.
fn forwarded_hops<'a>(lines: &'a [Cow<'a, str>]) -> Vec<Cow<'a, str>> {
    lines
        .iter()
        .flat_map(|line| split_unquoted(line, ','))
        .map(str::trim)
        .filter(|element| !element.is_empty())
        .map(|element| Cow::Owned(forwarded_for(element).unwrap_or_else(|| format!("({element})"))))
        .collect()
}

/// Every pair of the element has to be well-formed. Otherwise a sender's `for=192.0.2.1;x="` would swallow what the proxy
/// writes behind it.
fn forwarded_for(element: &str) -> Option<String> {
    let mut found = None;
    for pair in split_unquoted(element, ';').into_iter().map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (name.trim(), unquote(value.trim())?);
        if !is_token(name) {
            return None;
        }
        if name.eq_ignore_ascii_case("for") && found.replace(value).is_some() {
            return None;
        }
    }
    found
}

/// A name (RFC 9110, section 5.6.2): a quote that opens in its place swallows what follows, too.
fn is_token(text: &str) -> bool {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_byte)
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

/// A value without quotes, or what stands in a quoted string; None if its quotes don't match.
fn unquote(text: &str) -> Option<String> {
    let Some(rest) = text.strip_prefix('"') else {
        return (!text.contains('"')).then(|| text.to_owned());
    };
    let mut value = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '\\' => value.push(characters.next()?),
            '"' => return characters.next().is_none().then_some(value),
            character => value.push(character),
        }
    }
}

fn shown(token: &str) -> String {
    const SHOWN_LIMIT_CHARACTERS: usize = 60;
    token.chars().take(SHOWN_LIMIT_CHARACTERS).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests;
