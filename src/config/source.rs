//! What an integration says of its sender: the preset, the secrets, the policy, a scheme of its own. Whatever can't be
//! checked as it is written is a problem at the start, never an open door.

use std::sync::Arc;

use secrecy::SecretString;

use super::{Strings, secret};
use crate::handshake::{HandshakeSettings, Needed};
use crate::integration::{Integration, Policy};
use crate::signature::custom::{self, Fields};
use crate::signature::fetch::EbayApplication;
use crate::signature::keys::KeyCache;
use crate::signature::{Scheme, Verifier};
use crate::source::{self, Preset};

/// What was written.
#[derive(Debug, Default)]
pub(super) struct SourceSettings {
    pub(super) preset: Option<&'static Preset>,
    pub(super) secrets: Vec<SecretString>,
    pub(super) policy: Policy,
    /// The keys and values of `signature`.
    pub(super) signature: Option<Vec<(String, String)>>,
    pub(super) public_url: Option<String>,
    pub(super) verify_token: Option<SecretString>,
    pub(super) application: Option<EbayApplication>,
    /// Whether an application was written at all; what is wrong with it is a problem already.
    pub(super) has_application: bool,
    /// Whether a secret was written that couldn't be read; that is a problem already.
    pub(super) has_unreadable_secret: bool,
}

/// A secret as it is written in the file: where it is, never what it is.
pub(super) fn read_secret(text: &str, strings: &dyn Strings) -> Result<SecretString, String> {
    secret::read_reference(text, strings)
        .unwrap_or_else(|| Err("a secret doesn't stand in this file; write env:NAME or file:PATH".to_owned()))
}

/// The preset of a name, or the nearest name.
pub(super) fn find_preset(name: &str) -> Result<&'static Preset, String> {
    source::preset(name).ok_or_else(|| {
        let nearest = source::names().min_by_key(|known| strsim::damerau_levenshtein(name, known));
        format!("`{name}` isn't a source that is known; did you mean `{}`?", nearest.unwrap_or("hmac"))
    })
}

impl SourceSettings {
    /// Puts what was written into the integration. The problems, each with the key that it is about.
    pub(super) fn apply(
        self,
        integration: &mut Integration,
        keys: &Arc<KeyCache>,
    ) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let base = self.preset.map_or(Scheme::None, |preset| preset.scheme);
        let scheme = self.scheme(&base, &mut problems);
        if (scheme == Scheme::Ebay) != self.has_application {
            let (key, message) = match scheme {
                Scheme::Ebay => (
                    "source",
                    "eBay gives its keys to registered applications alone; write application = { id = \"<App ID>\", \
                     secret = \"env:NAME\" } with the Cert ID as the secret (developer.ebay.com, Application Keys)",
                ),
                _ => ("application", "only the source `ebay` has use for one; remove it"),
            };
            problems.push((key, message.to_owned()));
        }
        if scheme.needs_public_url() && self.public_url.is_none() {
            let message =
                "its signature covers the URL; write public_url = \"https://…\" as it is registered";
            problems.push(("source", message.to_owned()));
        }
        self.check_handshakes(&mut problems);
        integration.verifier = self.verifier(&scheme, keys, &mut problems);
        integration.fetches_keys = scheme.fetches_keys();
        let is_signed = matches!(integration.verifier, Verifier::Signed(_));
        if self.policy != Policy::Allowlist && !is_signed && !self.has_unreadable_secret {
            problems.push(("admit", "it needs a source or a signature, with a secret".to_owned()));
        }
        integration.policy = self.policy;
        integration.source = self.preset;
        integration.ebay_application = self.application;
        integration.payload.source = self.preset;
        integration.handshake = HandshakeSettings {
            secrets: self.secrets,
            verify_token: self.verify_token,
            public_url: self.public_url.clone(),
            account: None,
        };
        integration.public_url = self.public_url;
        problems
    }

    fn scheme<'a>(&'a self, base: &Scheme<'a>, problems: &mut Vec<(&'static str, String)>) -> Scheme<'a> {
        let Some(written) = &self.signature else { return *base };
        let mut fields = Fields::default();
        for (key, value) in written {
            if !fields.set(key, value) {
                let known = custom::KEYS.join(", ");
                problems.push(("signature", format!("`{key}` isn't a key of it; there are {known}")));
            }
        }
        match custom::parse(&fields, base) {
            Ok(scheme) => scheme,
            Err(found) => {
                problems.extend(found.into_iter().map(|problem| {
                    let hint = problem.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
                    ("signature", format!("{}: {}{hint}", problem.field, problem.message))
                }));
                *base
            }
        }
    }

    fn verifier(
        &self,
        scheme: &Scheme<'_>,
        keys: &Arc<KeyCache>,
        problems: &mut Vec<(&'static str, String)>,
    ) -> Verifier {
        let may_go_without =
            self.preset.is_none_or(|preset| !preset.needs_secret()) && self.signature.is_none();
        if self.secrets.is_empty() && (may_go_without || self.has_unreadable_secret) {
            return Verifier::Unsigned;
        }
        if *scheme == Scheme::None {
            problems.push((
                "secrets",
                "there is nothing to verify with them; name a source or a signature".to_owned(),
            ));
            return Verifier::Unsigned;
        }
        Verifier::new(scheme, &self.secrets, keys).unwrap_or_else(|found| {
            problems.extend(found.into_iter().map(|(index, problem)| match index {
                Some(index) => ("secrets", format!("number {}: {problem}", index + 1)),
                None => ("secrets", problem.to_string()),
            }));
            Verifier::Unsigned
        })
    }

    fn check_handshakes(&self, problems: &mut Vec<(&'static str, String)>) {
        for handshake in self.preset.map_or(&[][..], |preset| preset.handshakes) {
            for needed in handshake.needs() {
                let missing = match needed {
                    Needed::VerifyToken if self.verify_token.is_none() => "verify_token = \"env:NAME\"",
                    Needed::PublicUrl if self.public_url.is_none() => "public_url = \"https://…\"",
                    Needed::Secret | Needed::VerifyToken | Needed::PublicUrl | Needed::Account => continue,
                };
                problems.push(("source", format!("its handshake can't be answered without {missing}")));
            }
        }
    }
}
