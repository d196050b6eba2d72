//! The allowlist: which addresses, networks and domains may call. Pure: no clock, no network. Which domains an
//! address belongs to is found by [`super::domains`].

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::networks::{NetworkError, NetworkTable, parse_network};

/// One entry of an allowlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `*`: everyone.
    Any,
    /// An address is the network of its full length.
    Network(IpNet),
    /// `shopify.com` or `*.shopify.com`.
    Domain(Domain),
}

/// A domain entry, in lower case and without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Domain {
    /// The name without `*.`.
    pub name: String,
    /// `*.shopify.com`: the subdomains alone.
    pub subdomains_only: bool,
}

/// Why an entry can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// It looks like a network, and is not a good one.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// It is an address of the web, not a domain.
    #[error("it is a URL; write the domain alone")]
    Url,
    /// Not a domain name by RFC 1035 and RFC 1123.
    #[error("it is neither an address, nor a network, nor a domain")]
    NotADomain,
}

impl Entry {
    /// Reads one entry.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Entry, EntryError> {
        if text == "*" {
            return Ok(Entry::Any);
        }
        if text.contains("://") {
            return Err(EntryError::Url);
        }
        match parse_network(text) {
            Ok(network) => Ok(Entry::Network(network)),
            Err(error @ NetworkError::HostBits { .. }) => Err(error.into()),
            Err(NetworkError::NotANetwork) => Domain::parse(text).map(Entry::Domain),
        }
    }
}

impl Domain {
    fn parse(text: &str) -> Result<Domain, EntryError> {
        let lower = text.to_ascii_lowercase();
        let lower = lower.strip_suffix('.').unwrap_or(&lower);
        let (name, subdomains_only) = match lower.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (lower, false),
        };
        // A last label of digits alone is an address gone wrong (203.0.113.256), never a domain.
        let labels: Vec<&str> = name.split('.').collect();
        let numeric_end = labels.last().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
        if labels.len() < 2 || name.len() > 253 || numeric_end || !labels.iter().all(|label| is_label(label))
        {
            return Err(EntryError::NotADomain);
        }
        Ok(Domain { name: name.to_owned(), subdomains_only })
    }
}

/// RFC 1123, section 2.1; underscores, as they occur in host names of clouds, are let through.
pub(super) fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=63).contains(&label.len())
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// What an admitted caller owes its admission to: `source.admitted_by` and `source.rule` of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The kind of proof.
    pub proof: Proof,
    /// The entry as the operator wrote it.
    pub entry: String,
}

/// How a caller was shown to be on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The list admits everyone.
    Any,
    /// The address itself is listed.
    Address,
    /// The address lies in a listed network.
    Network,
    /// The address is one of a listed domain's own.
    Domain,
    /// A name of the address lies under a listed domain, and resolves back to the address.
    ReverseDns,
    /// A valid signature of the integration.
    Signature,
    /// Not at all: the lists only report, and none of them holds the caller.
    Report,
}

impl Proof {
    /// The word in the job.
    pub fn as_str(self) -> &'static str {
        match self {
            Proof::Any => "any",
            Proof::Address => "address",
            Proof::Network => "network",
            Proof::Domain => "domain",
            Proof::ReverseDns => "reverse_dns",
            Proof::Signature => "signature",
            Proof::Report => "report",
        }
    }
}

/// Who may call.
#[derive(Clone, Debug, Default)]
pub struct Allowlist {
    any: Option<Rule>,
    networks: NetworkTable<Rule>,
    domains: HashMap<Domain, DomainRules>,
}

/// The rules of one domain entry, one for each way of proving it.
#[derive(Clone, Debug)]
struct DomainRules {
    own_address: Rule,
    reverse_dns: Rule,
}

impl Allowlist {
    /// Loopback alone: the list of a gateway that was given none.
    pub fn loopback() -> Allowlist {
        let mut list = Allowlist::default();
        for entry in ["127.0.0.0/8", "::1"] {
            if let Ok(network) = parse_network(entry) {
                list.add(Entry::Network(network), entry);
            }
        }
        list
    }

    /// Adds an entry that was read from `text`.
    pub fn add(&mut self, entry: Entry, text: &str) {
        let rule = |proof| Rule { proof, entry: text.to_owned() };
        match entry {
            Entry::Any => self.any = Some(rule(Proof::Any)),
            Entry::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                self.networks.insert(network, rule(Proof::Address));
            }
            Entry::Network(network) => self.networks.insert(network, rule(Proof::Network)),
            Entry::Domain(domain) => {
                let rules =
                    DomainRules { own_address: rule(Proof::Domain), reverse_dns: rule(Proof::ReverseDns) };
                self.domains.insert(domain, rules);
            }
        }
    }

    /// The domain entries.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.domains.keys()
    }

    /// The entry, as written, that names a domain for which this holds.
    pub fn domain_entry(&self, mut is_meant: impl FnMut(&str) -> bool) -> Option<&str> {
        let found = self.domains.iter().find(|(domain, _)| is_meant(&domain.name));
        found.map(|(_, rules)| rules.own_address.entry.as_str())
    }

    /// The rule of the first of these domains that is listed. The caller's address is one of theirs.
    pub fn rule_for_owner<'a>(&self, mut owners: impl Iterator<Item = &'a Domain>) -> Option<&Rule> {
        owners.find_map(|domain| self.domains.get(domain)).map(|rules| &rules.own_address)
    }

    /// The rule of the first of these domains that is listed. A name of the caller's address was confirmed to lie
    /// under each of them.
    pub fn rule_for_confirmed<'a>(&self, mut domains: impl Iterator<Item = &'a Domain>) -> Option<&Rule> {
        domains.find_map(|domain| self.domains.get(domain)).map(|rules| &rules.reverse_dns)
    }

    /// The rule that admits the address without any look-up: the most specific one.
    pub fn rule_for(&self, address: IpAddr) -> Option<&Rule> {
        self.networks.get(address).or(self.any.as_ref())
    }

    /// Whether everyone is admitted.
    pub fn admits_everyone(&self) -> bool {
        self.any.is_some()
    }

    /// Whether no entry of any kind is on the list.
    pub fn is_empty(&self) -> bool {
        self.any.is_none() && self.networks.is_empty() && self.domains.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_addresses_networks_domains_or_mistakes() {
        let domain =
            |name: &str, subdomains_only| Ok(Entry::Domain(Domain { name: name.into(), subdomains_only }));
        let network = |text: &str| Ok(Entry::Network(text.parse().unwrap()));
        for (input, expect) in [
            ("*", Ok(Entry::Any)),
            ("203.0.113.0", network("203.0.113.0/32")),
            ("198.51.100.0/24", network("198.51.100.0/24")),
            ("2001:db8::/32", network("2001:db8::/32")),
            ("::ffff:203.0.113.5", network("203.0.113.5/32")),
            ("shopify.com", domain("shopify.com", false)),
            ("Shopify.COM.", domain("shopify.com", false)),
            ("*.shopify.com", domain("shopify.com", true)),
            ("xn--bcher-kva.example", domain("xn--bcher-kva.example", false)),
            ("203.0.113.256", Err(EntryError::NotADomain)),
            ("203.0.113", Err(EntryError::NotADomain)),
            ("010.0.0.1", Err(EntryError::NotADomain)),
            ("localhost", Err(EntryError::NotADomain)),
            ("*.*.com", Err(EntryError::NotADomain)),
            ("*shopify.com", Err(EntryError::NotADomain)),
            ("shop ify.com", Err(EntryError::NotADomain)),
            ("-shop.com", Err(EntryError::NotADomain)),
            ("shop..com", Err(EntryError::NotADomain)),
            ("shopify.com:443", Err(EntryError::NotADomain)),
            ("https://shopify.com", Err(EntryError::Url)),
            (
                "198.51.100.7/24",
                Err(NetworkError::HostBits { network: "198.51.100.0/24".parse().unwrap() }.into()),
            ),
        ] {
            assert_eq!(Entry::parse(input), expect, "{input}");
        }
    }

    #[test]
    fn the_rule_names_the_entry_as_written() {
        let mut list = Allowlist::default();
        for entry in ["203.0.113.5", "198.51.100.0/24", "2001:db8::/32", "shopify.com"] {
            list.add(Entry::parse(entry).unwrap(), entry);
        }
        for (address, expect) in [
            ("203.0.113.5", Some((Proof::Address, "203.0.113.5"))),
            ("::ffff:203.0.113.5", Some((Proof::Address, "203.0.113.5"))),
            ("203.0.113.6", None),
            ("198.51.100.0", Some((Proof::Network, "198.51.100.0/24"))),
            ("198.51.100.255", Some((Proof::Network, "198.51.100.0/24"))),
            ("198.51.101.0", None),
            ("2001:db8:ffff::1", Some((Proof::Network, "2001:db8::/32"))),
            ("127.0.0.1", None),
        ] {
            let rule = list.rule_for(address.parse().unwrap());
            assert_eq!(rule.map(|rule| (rule.proof, rule.entry.as_str())), expect, "{address}");
        }
    }

    #[test]
    fn a_domain_rule_names_its_proof_and_the_entry_as_written() {
        let mut list = Allowlist::default();
        for entry in ["Shopify.com.", "*.example.org"] {
            list.add(Entry::parse(entry).unwrap(), entry);
        }
        let domain = |text: &str| match Entry::parse(text) {
            Ok(Entry::Domain(domain)) => domain,
            other => panic!("{other:?}"),
        };
        let (shop, subdomains, other) =
            (domain("shopify.com"), domain("*.example.org"), domain("example.org"));
        assert_eq!(list.domains().count(), 2);
        let rule = list.rule_for_owner([&other, &shop].into_iter()).unwrap();
        assert_eq!((rule.proof.as_str(), rule.entry.as_str()), ("domain", "Shopify.com."));
        let rule = list.rule_for_confirmed([&subdomains].into_iter()).unwrap();
        assert_eq!((rule.proof.as_str(), rule.entry.as_str()), ("reverse_dns", "*.example.org"));
        assert_eq!(list.rule_for_owner([&other].into_iter()), None);
        assert_eq!(list.rule_for("203.0.113.5".parse().unwrap()), None, "no address without a proof");
    }

    #[test]
    fn no_other_form_of_an_address_passes_the_list() {
        let mut list = Allowlist::default();
        for entry in ["203.0.113.5", "::ffff:192.0.2.0/120", "64:ff9b::/96", "2001:db8::5"] {
            list.add(Entry::parse(entry).unwrap(), entry);
        }
        for (address, expect) in [
            ("::ffff:203.0.113.5", Some("203.0.113.5")),
            ("::ffff:cb00:7105", Some("203.0.113.5")),
            ("0:0:0:0:0:ffff:cb00:7105", Some("203.0.113.5")),
            ("::203.0.113.5", None),
            ("::ffff:0:203.0.113.5", None),
            ("2002:cb00:7105::", None),
            // A list that was written in the mapped form is a list of IPv4.
            ("192.0.2.77", Some("::ffff:192.0.2.0/120")),
            ("::ffff:192.0.2.77", Some("::ffff:192.0.2.0/120")),
            ("192.0.3.0", None),
            // Listing the translator's prefix admits what it translates, and no IPv4 address itself.
            ("64:ff9b::203.0.113.6", Some("64:ff9b::/96")),
            ("203.0.113.6", None),
            ("2001:db8::5", Some("2001:db8::5")),
            ("2001:db8::5:0", None),
            ("::", None),
            ("0.0.0.0", None),
        ] {
            let rule = list.rule_for(address.parse().unwrap());
            assert_eq!(rule.map(|rule| rule.entry.as_str()), expect, "{address}");
        }
    }

    #[test]
    fn the_default_is_loopback_and_a_star_is_everyone() {
        let loopback = Allowlist::loopback();
        assert!(loopback.rule_for("127.255.0.1".parse().unwrap()).is_some());
        assert!(loopback.rule_for("::1".parse().unwrap()).is_some());
        assert!(loopback.rule_for("::ffff:127.0.0.1".parse().unwrap()).is_some());
        assert!(loopback.rule_for("10.0.0.1".parse().unwrap()).is_none());
        let mut star = Allowlist::default();
        star.add(Entry::Any, "*");
        assert_eq!(star.rule_for("192.0.2.1".parse().unwrap()).map(|rule| rule.proof), Some(Proof::Any));
    }
}
