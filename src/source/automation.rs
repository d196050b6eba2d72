//! Browser automation.

use super::{BODY, BodyRules, Locator, PLAIN, Preset, Secret};
use crate::signature::scheme::{Headers, Signed};
use crate::signature::{CredentialPlace, Encoding, Scheme};

const fn only(signature: &'static str) -> Headers<'static> {
    Headers { signature, timestamp: None, id: None }
}

pub(super) static PRESETS: [Preset; 3] = [
    Preset {
        name: "rtrvr",
        title: "rtrvr.ai",
        facts: "rtrvr.ai/docs/webhooks; the header's name isn't published, these are guesses: set signature.header",
        scheme: Scheme::Signed(Signed {
            others: &[
                only("x-webhook-signature"),
                only("x-signature"),
                only("x-hub-signature-256"),
                only("webhook-signature"),
            ],
            ..Signed::body("x-rtrvr-signature", "sha256=", Encoding::Hex)
        }),
        secret: Secret::Required("the webhook's secret"),
        event: Locator::Body("/event"),
        delivery_id: Locator::FirstOf(&[
            Locator::Joined(&[
                Locator::Body("/event"),
                Locator::Body("/task/id"),
                Locator::Body("/timestamp"),
            ]),
            Locator::BodyHash,
        ]),
        domains: &["rtrvr.ai"],
        ..PLAIN
    },
    Preset {
        name: "webrun",
        title: "webrun.ai",
        facts: "docs.webrun.ai/usage-guides/webhooks: `auth` is sent as Authorization, as it stands",
        scheme: Scheme::Credential { first: CredentialPlace::Authorization, others: &[] },
        secret: Secret::Required("the webhook's auth value, with or without Bearer"),
        event: Locator::Nowhere,
        // All pings are equal, so not even the body tells two of them apart.
        delivery_id: Locator::Nowhere,
        domains: &["webrun.ai"],
        // `just_ping` has no body; an AI's answer may be text or CSV.
        body: BodyRules { empty: true, any_content_type: true, json_in_text: true, plain_text: true, ..BODY },
        ..PLAIN
    },
    Preset {
        name: "maxun",
        title: "Maxun",
        facts: "getmaxun/maxun server/src/routes/webhook.ts: no signature, no secret, no header of its own",
        // A proxy of the user may add the header; Maxun itself can carry a token in the URL alone.
        scheme: Scheme::Credential {
            first: CredentialPlace::Header("x-webhook-secret"),
            others: &[CredentialPlace::Query("token")],
        },
        secret: Secret::Optional("the token of the URL (?token=…) or of the header x-webhook-secret"),
        event: Locator::Body("/event_type"),
        // Retries send the same bytes, and the body holds the time of the event.
        delivery_id: Locator::BodyHash,
        ..PLAIN
    },
];
