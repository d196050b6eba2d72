//! Sources: the senders that this gateway knows, one table of facts.
//!
//! To add a sender, add a row to the file of its family; a row names what differs from `PLAIN`. `facts` says where
//! they were read. A fact that could only be recalled says so beside it; each of them can be replaced in
//! `integrations.toml` (`signature`). The tests read every row, so a header or placeholder that isn't one doesn't
//! get past them.

mod answer;
mod automation;
mod business;
mod developers;
mod documents;
mod generic;
mod handshake;
mod locator;
mod messaging;
mod payments;
mod platforms;
mod schemes;
mod shops;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use http::HeaderMap;

use crate::signature::{Scheme, Verified};

pub use answer::Answer;
pub use handshake::{Handshake, is_woocommerce_ping};
pub use locator::Locator;

/// What is known about a sender.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preset {
    /// Its name in `integrations.toml`: lower case with hyphens.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// Where the facts come from.
    pub facts: &'static str,
    /// How it proves itself.
    pub scheme: Scheme<'static>,
    /// What has to stand in `secrets`.
    pub secret: Secret,
    /// Where it says what happened. A header beside a signed body isn't itself signed; it names, it doesn't prove.
    pub event: Locator,
    /// Where it numbers a delivery, the same in every repeat.
    pub delivery_id: Locator,
    /// The domains that it speaks for: an entry of the allowlist with this name is met by a valid signature.
    pub domains: &'static [&'static str],
    /// The answer to an accepted webhook.
    pub answer: Answer,
    /// How it tries a URL out.
    pub handshakes: &'static [Handshake],
    /// What its bodies may be besides JSON, XML and forms under their own content types.
    pub body: BodyRules,
}

/// What a sender says of one delivery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// What happened, in the sender's own word.
    pub event: Option<String>,
    /// The delivery's id, the same in every repeat of it.
    pub delivery_id: Option<String>,
}

/// What has to stand in an integration's `secrets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secret {
    /// It can't be verified without, so a missing one is a problem of the settings.
    Required(&'static str),
    /// It may be left out; then nothing is verified, and the allowlist decides alone.
    Optional(&'static str),
}

/// Exceptions in what a body may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyRules {
    /// An empty body is a webhook (JSON `null`).
    pub empty: bool,
    /// The content type says nothing: the body is JSON, XML or a form by what it begins with.
    pub any_content_type: bool,
    /// JSON comes as `text/plain`.
    pub json_in_text: bool,
    /// A body that is neither is taken as text (JSON string).
    pub plain_text: bool,
    /// A form with this field holds JSON in it. The signature is over the form.
    pub form_field: Option<&'static str>,
}

/// A row without a fact of its own.
const PLAIN: Preset = Preset {
    name: "",
    title: "",
    facts: "",
    scheme: Scheme::None,
    secret: Secret::Optional("a secret"),
    event: Locator::Nowhere,
    delivery_id: Locator::Nowhere,
    domains: &[],
    answer: Answer::Standard,
    handshakes: &[],
    body: BODY,
};

/// No exceptions.
const BODY: BodyRules = BodyRules {
    empty: false,
    any_content_type: false,
    json_in_text: false,
    plain_text: false,
    form_field: None,
};

/// Every family, in the order of a list for people.
const FAMILIES: [&[Preset]; 8] = [
    &shops::PRESETS,
    &payments::PRESETS,
    &developers::PRESETS,
    &messaging::PRESETS,
    &business::PRESETS,
    &platforms::PRESETS,
    &documents::PRESETS,
    &automation::PRESETS,
];

/// All presets; the generic ones come last.
pub fn presets() -> impl Iterator<Item = &'static Preset> {
    FAMILIES.into_iter().flatten().chain(&generic::PRESETS)
}

/// The preset of a name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    presets().find(|preset| preset.name == name)
}

/// The names of all presets.
pub fn names() -> impl Iterator<Item = &'static str> {
    presets().map(|preset| preset.name)
}

impl Preset {
    /// Whether its deliveries have a number that all repeats share.
    pub fn names_deliveries(&self) -> bool {
        !matches!(self.delivery_id, Locator::Nowhere)
    }

    /// What the sender says of the delivery. The body is unwrapped once for both facts.
    pub fn labels(&self, headers: &HeaderMap, body: &Verified) -> Labels {
        let content = self.content(body);
        Labels {
            event: self.event.locate(headers, &content),
            delivery_id: self.delivery_id.locate(headers, &content),
        }
    }

    /// The body without the form around it, if this sender wraps JSON into a form and this body is one.
    pub fn content<'b>(&self, body: &'b Verified) -> Cow<'b, [u8]> {
        let unwrapped = self.body.form_field.and_then(|field| locator::form_field(body.body(), field));
        unwrapped.map_or(Cow::Borrowed(body.body()), Cow::Owned)
    }

    /// Whether the preset speaks for the domain of an allowlist's entry (`shopify.com`).
    pub fn speaks_for(&self, domain: &str) -> bool {
        self.domains.iter().any(|own| own.eq_ignore_ascii_case(domain))
    }

    /// Whether the settings must name a secret.
    pub fn needs_secret(&self) -> bool {
        matches!(self.secret, Secret::Required(_))
    }
}
