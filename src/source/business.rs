//! Customer relations, support, forms, social media.

use super::schemes::{RFC3339, timed};
use super::{Handshake, Locator, PLAIN, Preset, Secret};
use crate::signature::scheme::{Algorithm, Headers, Message, Signed};
use crate::signature::{Clock, Encoding, MacAlgorithm, Scheme, TOLERANCE, Unit};

/// HubSpot's first two versions are a plain hash after the secret.
const fn hubspot_hash(template: &'static str) -> Scheme<'static> {
    Scheme::Signed(Signed {
        algorithm: Algorithm::Mac(MacAlgorithm::Sha256AfterSecret),
        message: Message::Template(template),
        ..Signed::body("x-hubspot-signature", "", Encoding::Hex)
    })
}

const HUBSPOT: Preset = Preset {
    title: "HubSpot",
    facts: "hubspot-api-nodejs src/utils/signature.ts, developers.hubspot.com \"Validating requests\"; recalled: the list of decoded escapes",
    secret: Secret::Required("the app's client secret"),
    // A batch; only an array of one has one id.
    event: Locator::Body("/*/subscriptionType"),
    delivery_id: Locator::Body("/*/eventId"),
    domains: &["hubspot.com"],
    ..PLAIN
};

pub(super) static PRESETS: [Preset; 7] = [
    Preset {
        name: "hubspot",
        scheme: Scheme::Signed(Signed {
            encoding: Encoding::Base64,
            clock: Some(Clock { unit: Unit::Milliseconds, tolerance: Some(TOLERANCE) }),
            ..timed(
                "x-hubspot-signature-v3",
                "x-hubspot-request-timestamp",
                "",
                "{method}{decoded_url}{body}{timestamp}",
            )
        }),
        ..HUBSPOT
    },
    // HubSpot sends the old header beside the new one. Whoever took both in one preset would lose the new one's
    // time limit: a copy without the new header would verify for ever.
    Preset { name: "hubspot-v1", title: "HubSpot (signature v1)", scheme: hubspot_hash("{body}"), ..HUBSPOT },
    Preset {
        name: "hubspot-v2",
        title: "HubSpot (signature v2)",
        scheme: hubspot_hash("{method}{url}{body}"),
        ..HUBSPOT
    },
    Preset {
        name: "zendesk",
        title: "Zendesk",
        facts: "Zendesk's \"Verifying webhook authenticity\", as webhook-co/webhook reads it",
        scheme: Scheme::Signed(Signed {
            encoding: Encoding::Base64,
            clock: Some(RFC3339),
            ..timed(
                "x-zendesk-webhook-signature",
                "x-zendesk-webhook-signature-timestamp",
                "",
                "{timestamp}{body}",
            )
        }),
        secret: Secret::Required("the webhook's signing secret"),
        event: Locator::Body("/type"),
        delivery_id: Locator::Header(&["x-zendesk-webhook-invocation-id"]),
        domains: &["zendesk.com"],
        ..PLAIN
    },
    Preset {
        name: "typeform",
        title: "Typeform",
        facts: "Typeform's \"Secure your webhooks\", as webhook-co/webhook reads it: base64 after sha256=",
        scheme: Scheme::Signed(Signed::body("typeform-signature", "sha256=", Encoding::Base64)),
        secret: Secret::Required("the webhook's secret"),
        event: Locator::Body("/event_type"),
        delivery_id: Locator::Body("/event_id"),
        domains: &["typeform.com"],
        ..PLAIN
    },
    Preset {
        name: "dropbox",
        title: "Dropbox",
        facts: "dropbox.com/developers/reference/webhooks",
        scheme: Scheme::Signed(Signed::body("x-dropbox-signature", "", Encoding::Hex)),
        secret: Secret::Required("the app secret"),
        // It names accounts that have changed, the same ones again and again.
        delivery_id: Locator::Nowhere,
        domains: &["dropbox.com"],
        handshakes: &[Handshake::DropboxChallenge],
        ..PLAIN
    },
    Preset {
        name: "x",
        title: "X",
        facts: "docs.x.com account activity API; the challenge as webhook-co/webhook tests it",
        scheme: Scheme::Signed(Signed {
            headers: Headers { signature: "x-twitter-webhooks-signature", timestamp: None, id: None },
            ..Signed::body("x-twitter-webhooks-signature", "sha256=", Encoding::Base64)
        }),
        secret: Secret::Required("the app's consumer secret"),
        event: Locator::Nowhere,
        delivery_id: Locator::Nowhere,
        domains: &["x.com", "twitter.com"],
        handshakes: &[Handshake::XCrc],
        ..PLAIN
    },
];
