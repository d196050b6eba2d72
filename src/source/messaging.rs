//! Chat, calls, mail.

use super::schemes::timed;
use super::{Answer, BODY, BodyRules, Handshake, Locator, PLAIN, Preset, Secret};
use crate::signature::scheme::{Algorithm, Message, Signed};
use crate::signature::{Clock, Encoding, KeyForm, MacAlgorithm, PublicAlgorithm, Scheme, Unit};

pub(super) static PRESETS: [Preset; 8] = [
    Preset {
        name: "slack",
        title: "Slack",
        facts: "python-slack-sdk slack_sdk/signature, docs.slack.dev \"Verifying requests from Slack\"",
        scheme: Scheme::Signed(timed(
            "x-slack-signature",
            "x-slack-request-timestamp",
            "v0=",
            "v0:{timestamp}:{body}",
        )),
        secret: Secret::Required("the app's signing secret"),
        event: Locator::FirstOf(&[Locator::Body("/event/type"), Locator::Body("/type")]),
        delivery_id: Locator::Body("/event_id"),
        domains: &["slack.com"],
        handshakes: &[Handshake::SlackUrlVerification],
        // Interactive parts come as a form with `payload`, slash commands as a form of their own.
        body: BodyRules { form_field: Some("payload"), ..BODY },
        ..PLAIN
    },
    Preset {
        name: "discord",
        title: "Discord",
        facts: "discord/discord-api-docs interactions/receiving-and-responding.md and events/webhook-events.md",
        scheme: Scheme::Signed(Signed {
            algorithm: Algorithm::Public(PublicAlgorithm::Ed25519),
            key: KeyForm::Hex,
            ..timed("x-signature-ed25519", "x-signature-timestamp", "", "{timestamp}{body}")
        }),
        secret: Secret::Required("the application's public key: 64 hexadecimal digits"),
        event: Locator::Body("/event/type"),
        delivery_id: Locator::Nowhere,
        domains: &["discord.com"],
        answer: Answer::Empty204,
        handshakes: &[Handshake::DiscordPing],
        ..PLAIN
    },
    Preset {
        name: "zoom",
        title: "Zoom",
        facts: "zoom/webhook-sample, developers.zoom.us",
        scheme: Scheme::Signed(timed(
            "x-zm-signature",
            "x-zm-request-timestamp",
            "v0=",
            "v0:{timestamp}:{body}",
        )),
        secret: Secret::Required("the app's secret token"),
        event: Locator::Body("/event"),
        // Recalled: the tracking id isn't documented as stable, so the time and the object are taken.
        delivery_id: Locator::Joined(&[
            Locator::Body("/event"),
            Locator::Body("/event_ts"),
            Locator::Body("/payload/object/uuid"),
        ]),
        domains: &["zoom.us"],
        handshakes: &[Handshake::ZoomUrlValidation],
        ..PLAIN
    },
    Preset {
        name: "twilio",
        title: "Twilio",
        facts: "twilio-python twilio/request_validator.py; recalled: the idempotency header",
        scheme: Scheme::Signed(Signed {
            algorithm: Algorithm::Mac(MacAlgorithm::HmacSha1),
            message: Message::Twilio,
            ..Signed::body("x-twilio-signature", "", Encoding::Base64)
        }),
        secret: Secret::Required("the account's auth token"),
        event: Locator::Nowhere,
        delivery_id: Locator::Header(&["i-twilio-idempotency-token"]),
        domains: &["twilio.com"],
        // A body would be taken for commands (TwiML).
        answer: Answer::Empty200,
        ..PLAIN
    },
    Preset {
        name: "sendgrid",
        title: "SendGrid",
        facts: "sendgrid-nodejs packages/eventwebhook",
        scheme: Scheme::Signed(Signed {
            algorithm: Algorithm::Public(PublicAlgorithm::EcdsaP256Sha256),
            key: KeyForm::Base64,
            encoding: Encoding::Base64,
            // Retries go on for a day, and whether they are signed anew isn't said; SendGrid's library checks no age.
            clock: Some(Clock { unit: Unit::Seconds, tolerance: None }),
            ..timed(
                "x-twilio-email-event-webhook-signature",
                "x-twilio-email-event-webhook-timestamp",
                "",
                "{timestamp}{body}",
            )
        }),
        secret: Secret::Required("the verification key of the mail settings, in base64"),
        // A batch; only an array of one has one id.
        event: Locator::Body("/*/event"),
        delivery_id: Locator::Body("/*/sg_event_id"),
        domains: &["sendgrid.com", "sendgrid.net"],
        ..PLAIN
    },
    Preset {
        name: "mailgun",
        title: "Mailgun",
        facts: "Mailgun's \"Securing webhooks\"; recalled: the form of older webhooks",
        scheme: Scheme::Mailgun,
        secret: Secret::Required("the HTTP webhook signing key"),
        event: Locator::Body("/event-data/event"),
        // The body isn't signed: a repeat of the token is a copy, whatever id it claims.
        delivery_id: Locator::Body("/signature/token"),
        domains: &["mailgun.com", "mailgun.net", "mailgun.org"],
        ..PLAIN
    },
    Preset {
        name: "intercom",
        title: "Intercom",
        facts: "developers.intercom.com webhook-notifications; recalled: the probe by HEAD",
        scheme: Scheme::Signed(Signed {
            algorithm: Algorithm::Mac(MacAlgorithm::HmacSha1),
            ..Signed::body("x-hub-signature", "sha1=", Encoding::Hex)
        }),
        secret: Secret::Required("the app's client secret"),
        event: Locator::Body("/topic"),
        delivery_id: Locator::Body("/id"),
        domains: &["intercom.io", "intercom.com"],
        handshakes: &[Handshake::HeadProbe],
        ..PLAIN
    },
    Preset {
        name: "meta",
        title: "Meta (Facebook, Instagram, WhatsApp)",
        facts: "developers.facebook.com graph-api/webhooks/getting-started",
        scheme: Scheme::Signed(Signed::body("x-hub-signature-256", "sha256=", Encoding::Hex)),
        secret: Secret::Required("the app secret"),
        event: Locator::Body("/object"),
        // Up to a thousand updates, grouped anew in a retry: only entries have ids.
        delivery_id: Locator::Nowhere,
        domains: &["facebook.com", "meta.com"],
        handshakes: &[Handshake::MetaSubscribe],
        ..PLAIN
    },
];
