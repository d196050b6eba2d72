//! Addresses and networks as a table: the longest matching prefix, in one hash look-up per prefix length in use.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Maps networks to values. An IPv4-mapped IPv6 address is looked up as the IPv4 address that it stands for.
#[derive(Clone, Debug)]
pub struct NetworkTable<V> {
    v4: Vec<(u8, HashMap<u32, V>)>,
    v6: Vec<(u8, HashMap<u128, V>)>,
}

impl<V> Default for NetworkTable<V> {
    fn default() -> Self {
        NetworkTable { v4: Vec::new(), v6: Vec::new() }
    }
}

impl<V> NetworkTable<V> {
    /// Adds a network; a later value for the same network replaces the earlier one.
    pub fn insert(&mut self, network: IpNet, value: V) {
        match network {
            IpNet::V4(network) => {
                let bits = mask_v4(network.network().to_bits(), network.prefix_len());
                level(&mut self.v4, network.prefix_len()).insert(bits, value);
            }
            IpNet::V6(network) => {
                let bits = mask_v6(network.network().to_bits(), network.prefix_len());
                level(&mut self.v6, network.prefix_len()).insert(bits, value);
            }
        }
    }

    /// The value of the most specific network that holds the address.
    pub fn get(&self, address: IpAddr) -> Option<&V> {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                self.v4.iter().find_map(|(prefix, level)| level.get(&mask_v4(bits, *prefix)))
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                self.v6.iter().find_map(|(prefix, level)| level.get(&mask_v6(bits, *prefix)))
            }
        }
    }

    /// Whether any network holds the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.get(address).is_some()
    }

    /// Whether the table holds no network.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// The map of one prefix length; the levels stay sorted from the longest prefix to the shortest.
fn level<K, V>(levels: &mut Vec<(u8, HashMap<K, V>)>, prefix: u8) -> &mut HashMap<K, V> {
    let index = levels.partition_point(|(other, _)| *other > prefix);
    if levels.get(index).is_none_or(|(other, _)| *other != prefix) {
        levels.insert(index, (prefix, HashMap::new()));
    }
    &mut levels[index].1
}

fn mask_v4(bits: u32, prefix: u8) -> u32 {
    bits & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask_v6(bits: u128, prefix: u8) -> u128 {
    bits & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

/// Why a text is no address and no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither an address nor a network.
    #[error("it is neither an address nor a network")]
    NotANetwork,
    /// Bits beyond the prefix are set: perhaps the address was meant, perhaps the network.
    #[error("it has bits set beyond /{}; write {network} for the network, or the address alone", network.prefix_len())]
    HostBits {
        /// The network that the address lies in.
        network: IpNet,
    },
}

/// Reads an address or a network strictly: no octal, no leading zeros, no zone, no bits beyond the prefix.
/// An IPv4-mapped IPv6 form becomes the IPv4 network that it stands for.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_network(text: &str) -> Result<IpNet, NetworkError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let (address, prefix) = text.split_once('/').ok_or(NetworkError::NotANetwork)?;
    let plain = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let plain = plain && (prefix == "0" || !prefix.starts_with('0'));
    if !plain || address.parse::<IpAddr>().is_err() {
        return Err(NetworkError::NotANetwork);
    }
    let network: IpNet = text.parse().map_err(|_| NetworkError::NotANetwork)?;
    let network = canonical(network);
    if network.trunc() == network {
        Ok(network)
    } else {
        Err(NetworkError::HostBits { network: network.trunc() })
    }
}

/// `::ffff:192.0.2.0/120` is `192.0.2.0/24`.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED_PREFIX: u8 = 96;
    let IpNet::V6(v6) = network else { return network };
    let mapped: Option<Ipv4Addr> = Ipv6Addr::to_ipv4_mapped(&v6.addr());
    match (mapped, v6.prefix_len().checked_sub(MAPPED_PREFIX)) {
        (Some(address), Some(prefix)) => IpNet::new(IpAddr::V4(address), prefix).unwrap_or(network),
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_are_read_strictly() {
        for (input, expect) in [
            ("203.0.113.5", Ok("203.0.113.5/32")),
            ("203.0.113.0/24", Ok("203.0.113.0/24")),
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("2001:db8::/32", Ok("2001:db8::/32")),
            ("2001:DB8::1", Ok("2001:db8::1/128")),
            ("::ffff:203.0.113.5", Ok("203.0.113.5/32")),
            ("::ffff:203.0.113.0/120", Ok("203.0.113.0/24")),
            ("203.0.113.5/24", Err(NetworkError::HostBits { network: "203.0.113.0/24".parse().unwrap() })),
            ("2001:db8::1/32", Err(NetworkError::HostBits { network: "2001:db8::/32".parse().unwrap() })),
            ("0:0:0:0:0:0:0:1", Ok("::1/128")),
            ("::/0", Ok("::/0")),
            ("64:ff9b::/96", Ok("64:ff9b::/96")),
            ("::FFFF:cb00:7105", Ok("203.0.113.5/32")),
            ("0:0:0:0:0:ffff:cb00:7105/128", Ok("203.0.113.5/32")),
            ("::ffff:0:0/96", Ok("0.0.0.0/0")),
            (
                "::ffff:203.0.113.5/120",
                Err(NetworkError::HostBits { network: "203.0.113.0/24".parse().unwrap() }),
            ),
            // Other forms with an IPv4 address in them stay IPv6.
            ("::203.0.113.5", Ok("::cb00:7105/128")),
            ("64:ff9b::203.0.113.5", Ok("64:ff9b::cb00:7105/128")),
            ("2002:cb00:7105::/48", Ok("2002:cb00:7105::/48")),
            ("::ffff:203.0.113.05", Err(NetworkError::NotANetwork)),
            ("::ffff:0xcb.0.113.5", Err(NetworkError::NotANetwork)),
            ("0313.0.0161.05", Err(NetworkError::NotANetwork)),
            ("0xcb.0.113.5", Err(NetworkError::NotANetwork)),
            ("203.0.28933", Err(NetworkError::NotANetwork)),
            ("203.0.113.0/255.255.255.0", Err(NetworkError::NotANetwork)),
            ("203.0.113.0/24/24", Err(NetworkError::NotANetwork)),
            ("203.0.113.0 /24", Err(NetworkError::NotANetwork)),
            ("203.0.113.5:80", Err(NetworkError::NotANetwork)),
            ("2001:db8::/129", Err(NetworkError::NotANetwork)),
            ("2001:db8::%1/64", Err(NetworkError::NotANetwork)),
            ("/24", Err(NetworkError::NotANetwork)),
            ("203.0.113.٥", Err(NetworkError::NotANetwork)),
            ("203.0.113.0/33", Err(NetworkError::NotANetwork)),
            ("203.0.113.0/024", Err(NetworkError::NotANetwork)),
            ("203.0.113.0/+8", Err(NetworkError::NotANetwork)),
            ("203.0.113.0/", Err(NetworkError::NotANetwork)),
            ("203.0.113", Err(NetworkError::NotANetwork)),
            ("203.0.113.05", Err(NetworkError::NotANetwork)),
            ("0xcb007105", Err(NetworkError::NotANetwork)),
            ("3405803781", Err(NetworkError::NotANetwork)),
            ("fe80::1%eth0", Err(NetworkError::NotANetwork)),
            ("[2001:db8::1]", Err(NetworkError::NotANetwork)),
            ("", Err(NetworkError::NotANetwork)),
        ] {
            assert_eq!(
                parse_network(input).map(|network| network.to_string()),
                expect.map(str::to_owned),
                "{input}"
            );
        }
    }

    #[test]
    fn the_most_specific_network_answers() {
        let mut table = NetworkTable::default();
        for network in ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "2001:db8::/32", "2001:db8:1::/48"] {
            table.insert(network.parse().unwrap(), network);
        }
        for (address, expect) in [
            ("10.9.9.9", Some("10.0.0.0/8")),
            ("10.1.9.9", Some("10.1.0.0/16")),
            ("10.1.2.3", Some("10.1.2.3/32")),
            ("::ffff:10.1.2.3", Some("10.1.2.3/32")),
            ("11.0.0.0", None),
            ("9.255.255.255", None),
            ("2001:db8:1::9", Some("2001:db8:1::/48")),
            ("2001:db8:2::9", Some("2001:db8::/32")),
            ("2001:db9::", None),
            // Forms that embed an IPv4 address in other ways are IPv6 addresses of their own.
            ("::10.1.2.3", None),
            ("64:ff9b::10.1.2.3", None),
            ("64:ff9b:1::10.1.2.3", None),
            ("::ffff:0:10.1.2.3", None),
            ("2002:a01:203::", None),
            ("2001:0:a01:203::", None),
            ("fe80::5efe:10.1.2.3", None),
            ("::ffff:a01:203", Some("10.1.2.3/32")),
            ("10.0.0.0", Some("10.0.0.0/8")),
            ("10.255.255.255", Some("10.0.0.0/8")),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:db8::/32")),
            ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", None),
        ] {
            assert_eq!(table.get(address.parse().unwrap()).copied(), expect, "{address}");
        }
    }

    proptest! {
        /// The table agrees with ipnet's own containment, and an address with its IPv4-mapped form.
        #[test]
        fn the_table_agrees_with_containment(bits: u32, other: u32, prefix in 0u8..=32) {
            let network = IpNet::new(Ipv4Addr::from(bits).into(), prefix).unwrap().trunc();
            let mut table = NetworkTable::default();
            table.insert(network, ());
            for address in [Ipv4Addr::from(bits), Ipv4Addr::from(other), Ipv4Addr::from(bits ^ (other & 0xff))] {
                prop_assert_eq!(table.contains(address.into()), network.contains(&IpAddr::V4(address)));
                prop_assert_eq!(table.contains(address.into()), table.contains(address.to_ipv6_mapped().into()));
            }
        }

        /// The same for IPv6.
        #[test]
        fn the_table_agrees_with_containment_v6(bits: u128, flip in 0u32..128, prefix in 0u8..=128) {
            let network = IpNet::new(Ipv6Addr::from(bits).into(), prefix).unwrap().trunc();
            let mut table = NetworkTable::default();
            table.insert(network, ());
            let address = IpAddr::V6(Ipv6Addr::from(bits ^ (1 << flip)));
            prop_assume!(address.to_canonical() == address && network.trunc() == canonical(network));
            prop_assert_eq!(table.contains(address), network.contains(&address));
        }

        /// Reading never panics.
        #[test]
        fn reading_never_panics(text in "\\PC*") {
            let _ = parse_network(&text);
        }
    }
}
