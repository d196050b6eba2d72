//! All domain entries by name: which of them a host name lies under.

use std::collections::HashMap;
use std::sync::Arc;

use hickory_resolver::proto::rr::Name;

use crate::admission::allowlist::{Domain, is_label};

/// The domain entries of an app, each once.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_name: HashMap<String, Vec<Arc<Domain>>>,
}

impl Index {
    pub(super) fn new<'a>(domains: impl IntoIterator<Item = &'a Domain>) -> Index {
        let mut index = Index::default();
        for domain in domains {
            let same_name = index.by_name.entry(domain.name.clone()).or_default();
            if !same_name.iter().any(|other| **other == *domain) {
                same_name.push(Arc::new(domain.clone()));
            }
        }
        index
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The entries that stand for the name itself, not for its subdomains alone, in the order of their names.
    pub(super) fn with_own_addresses(&self) -> Vec<Arc<Domain>> {
        let entries = self.by_name.values().flatten();
        let mut domains: Vec<_> = entries.filter(|domain| !domain.subdomains_only).cloned().collect();
        domains.sort_by(|one, other| one.name.cmp(&other.name));
        domains
    }

    /// The entries that a host name lies under, the most specific first. The name is as [`host_name`] gives it.
    pub(super) fn covering(&self, host: &str) -> Vec<Arc<Domain>> {
        let mut covering = Vec::new();
        let mut suffix = Some(host);
        while let Some(name) = suffix {
            let entries = self.by_name.get(name).into_iter().flatten();
            let is_the_name_itself = name.len() == host.len();
            covering.extend(entries.filter(|entry| !(is_the_name_itself && entry.subdomains_only)).cloned());
            suffix = name.split_once('.').map(|(_, rest)| rest);
        }
        covering
    }
}

/// A name from DNS as a host name in lower case without the trailing dot. None if a label has anything in it that host
/// names don't (RFC 1123, section 2.1): DNS itself allows every byte, a dot and NUL too, and such a label could be
/// taken for several.
pub(super) fn host_name(name: &Name) -> Option<String> {
    let mut host = String::new();
    for label in name {
        let label = std::str::from_utf8(label).ok().filter(|label| is_label(label))?;
        if !host.is_empty() {
            host.push('.');
        }
        host.push_str(label);
    }
    host.make_ascii_lowercase();
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::allowlist::Entry;

    fn index(entries: &[&str]) -> Index {
        let domains: Vec<Domain> = entries
            .iter()
            .map(|entry| match Entry::parse(entry) {
                Ok(Entry::Domain(domain)) => domain,
                other => panic!("{other:?}"),
            })
            .collect();
        Index::new(&domains)
    }

    #[test]
    fn a_host_lies_under_a_domain_only_on_a_label_boundary() {
        let index = index(&["shopify.com", "*.example.org", "example.org", "*.only.net", "a.b.shopify.com"]);
        for (host, expect) in [
            ("shopify.com", &["shopify.com"][..]),
            ("mail.shopify.com", &["shopify.com"]),
            ("x.a.b.shopify.com", &["a.b.shopify.com", "shopify.com"]),
            ("evilshopify.com", &[]),
            ("shopify.com.evil.tld", &[]),
            ("shopify.co", &[]),
            ("com", &[]),
            ("only.net", &[]),
            ("x.only.net", &["*.only.net"]),
            ("xonly.net", &[]),
            ("example.org", &["example.org"]),
            ("x.example.org", &["*.example.org", "example.org"]),
        ] {
            let mut covering: Vec<String> = index
                .covering(host)
                .iter()
                .map(|domain| format!("{}{}", if domain.subdomains_only { "*." } else { "" }, domain.name))
                .collect();
            covering.sort();
            assert_eq!(covering, expect, "{host}");
        }
        let own: Vec<_> = index.with_own_addresses().iter().map(|domain| domain.name.clone()).collect();
        assert_eq!(own, ["a.b.shopify.com", "example.org", "shopify.com"]);
    }

    #[test]
    fn host_names_have_no_odd_bytes() {
        let name = |labels: &[&[u8]]| Name::from_labels(labels.iter().copied()).unwrap();
        for (labels, expect) in [
            (&[&b"Crawl"[..], b"GoogleBot", b"COM"][..], Some("crawl.googlebot.com")),
            (&[b"xn--bcher-kva", b"example"], Some("xn--bcher-kva.example")),
            (&[b"evil\0", b"googlebot", b"com"], None),
            (&[b"evil.googlebot", b"com"], None),
            (&[b"x.googlebot.com", b"evil", b"tld"], None),
            (&[b"b\xC3\xBCcher", b"example"], None),
            (&[b"b\xFC", b"example"], None),
            (&[b"a b", b"example"], None),
            (&[b"*", b"example"], None),
            (&[], None),
        ] {
            assert_eq!(host_name(&name(labels)).as_deref(), expect, "{labels:?}");
        }
    }
}
