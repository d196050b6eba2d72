//! An integration: what one webhook URL accepts, and from whom. A snapshot, immutable once the gateway runs.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use http::header::HeaderName;

use crate::admission::allowlist::{Allowlist, Proof, Rule};
use crate::admission::rate::RateLimit;
use crate::handshake::HandshakeSettings;
use crate::payload::{Limits, PayloadOptions};
use crate::signature::Verifier;
use crate::signature::fetch::EbayApplication;
use crate::source::{Handshake, Preset};

/// The longest id.
pub const ID_LIMIT_BYTES: usize = 64;

/// Whether a text is a well-formed id: 1 to 64 characters of `A-Z a-z 0-9 _ -`.
pub fn is_id(text: &str) -> bool {
    (1..=ID_LIMIT_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Who is let in: `admit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Callers on a list; a signature is required as well where there is a secret for it.
    #[default]
    Allowlist,
    /// Whoever signs validly.
    Signature,
    /// Callers on a list whose signature is valid; without a secret the gateway doesn't start.
    AllowlistAndSignature,
}

/// How repeats of a delivery are known, and for how long: `dedupe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dedupe {
    /// What repeats have in common.
    pub by: DedupeBy,
    /// From the first one on.
    pub within: Duration,
}

/// What repeats of a delivery have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DedupeBy {
    /// The sender's number of the delivery; a delivery without one is never a repeat.
    DeliveryId,
    /// The body, byte for byte.
    Body,
}

/// One integration's settings.
#[derive(Debug, Default)]
pub struct Integration {
    /// A name for people; may be empty.
    pub name: String,
    /// A disabled integration answers 403.
    pub enabled: bool,
    /// Entries for this integration alone, besides the app's.
    pub allowlist: Allowlist,
    /// The largest body in bytes.
    pub body_limit_bytes: usize,
    /// How many webhooks it takes per time.
    pub rate: Option<RateLimit>,
    /// Who is let in.
    pub policy: Policy,
    /// How its webhooks prove where they come from.
    pub verifier: Verifier,
    /// Whether its verifier needs keys that come over the network.
    pub fetches_keys: bool,
    /// The application that eBay gives its keys to.
    pub ebay_application: Option<EbayApplication>,
    /// The sender whose facts apply.
    pub source: Option<&'static Preset>,
    /// The rule that a valid signature meets: the integration admits by signature alone, or its sender speaks for a
    /// domain on a list.
    pub signature_rule: Option<Rule>,
    /// What its sender's handshakes are answered with.
    pub handshake: HandshakeSettings,
    /// The URL that the sender calls, for the schemes that sign it.
    pub public_url: Option<String>,
    /// Whether its jobs may lie on any shard of the queue, in any order.
    pub is_unordered: bool,
    /// How its payloads become JSON.
    pub payload: PayloadOptions,
    /// Whether repeats are dropped.
    pub dedupe: Option<Dedupe>,
}

impl Integration {
    /// Settles which rule a valid signature meets, now that the app's list is known.
    fn settle_signature_rule(&mut self, app: &Allowlist) {
        let rule = |entry: &str| Rule { proof: Proof::Signature, entry: entry.to_owned() };
        let speaks_for = |list: &Allowlist| {
            let source = self.source?;
            list.domain_entry(|domain| source.speaks_for(domain)).map(rule)
        };
        self.signature_rule = match (&self.verifier, self.policy) {
            (Verifier::Unsigned, _) => None,
            (Verifier::Signed(_), Policy::Signature) => Some(rule("signature")),
            (Verifier::Signed(_), _) => speaks_for(app).or_else(|| speaks_for(&self.allowlist)),
        };
    }

    /// Whether a body may be one of this gateway's own answers to a handshake. Those are signed with the same secret,
    /// and must not pass for webhooks.
    pub fn answers_with(&self, body: &[u8]) -> bool {
        self.handshakes().iter().any(|handshake| handshake.would_sign(body))
    }

    /// How its sender tries a URL out.
    pub fn handshakes(&self) -> &'static [Handshake] {
        self.source.map_or(&[], |source| source.handshakes)
    }
}

/// The integrations of one app.
#[derive(Debug, Default)]
pub struct Integrations {
    /// Boxed, because a table that grows holds every place twice, and many that are empty.
    by_id: HashMap<String, Box<Integration>>,
    any: Option<Box<Integration>>,
    signature_headers: Vec<HeaderName>,
}

impl Integrations {
    /// Adds an integration. False if the id is taken; then nothing changes.
    pub fn add(&mut self, id: String, integration: Integration) -> bool {
        if self.by_id.contains_key(&id) {
            return false;
        }
        self.by_id.insert(id, Box::new(integration));
        true
    }

    /// Accepts every well-formed id that has no integration of its own, with these settings.
    pub fn accept_any(&mut self, integration: Integration) {
        self.any = Some(Box::new(integration));
    }

    /// Settles which rule a valid signature meets, now that the app's list is known, and where signatures stand.
    pub fn settle_signature_rules(&mut self, app: &Allowlist) {
        self.by_id.values_mut().for_each(|integration| integration.settle_signature_rule(app));
        let names: HashSet<_> =
            self.iter().flat_map(|integration| integration.verifier.signature_headers()).cloned().collect();
        self.signature_headers = names.into_iter().collect();
    }

    /// The headers in which a signature of any integration may stand; each once.
    pub fn signature_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.signature_headers.iter()
    }

    /// Sets the limits of every integration's payloads.
    pub fn set_payload_limits(&mut self, limits: Limits) {
        self.by_id
            .values_mut()
            .chain(&mut self.any)
            .for_each(|integration| integration.payload.limits = limits);
    }

    /// The integration of a well-formed id.
    pub fn get(&self, id: &str) -> Option<&Integration> {
        self.by_id.get(id).or(self.any.as_ref()).map(Box::as_ref)
    }

    /// All integrations, the one for every other id too.
    pub fn iter(&self) -> impl Iterator<Item = &Integration> {
        self.by_id.values().chain(&self.any).map(Box::as_ref)
    }

    /// Whether every well-formed id is accepted.
    pub fn accepts_any(&self) -> bool {
        self.any.is_some()
    }

    /// Whether any of them needs keys that come over the network.
    pub fn fetch_keys(&self) -> bool {
        self.by_id.values().any(|integration| integration.fetches_keys)
    }

    /// The application by which eBay's keys are fetched. They are the same for all applications, so of several the one
    /// of the first id will do.
    pub fn ebay_application(&self) -> Option<&EbayApplication> {
        let named = self.by_id.iter().filter_map(|(id, own)| Some((id, own.ebay_application.as_ref()?)));
        named.min_by_key(|(id, _)| *id).map(|(_, application)| application)
    }

    /// How many integrations have an id of their own.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether no webhook could be accepted at all.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.any.is_none()
    }

    /// The largest body that any integration accepts, in bytes.
    pub fn largest_body_bytes(&self) -> usize {
        self.by_id
            .values()
            .chain(&self.any)
            .map(|integration| integration.body_limit_bytes)
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_a_closed_alphabet_and_length() {
        for (input, expect) in [
            ("a", true),
            ("507f1f77bcf86cd799439011", true),
            ("A_b-9", true),
            (&"x".repeat(64), true),
            (&"x".repeat(65), false),
            ("", false),
            ("a.b", false),
            ("a b", false),
            ("a%62", false),
            ("a{b}", false),
            ("é", false),
            ("a\0", false),
        ] {
            assert_eq!(is_id(input), expect, "{input:?}");
        }
    }
}
