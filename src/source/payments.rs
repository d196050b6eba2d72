//! Payments and accounting.

use super::schemes::SECONDS;
use super::{Answer, BODY, BodyRules, Handshake, Locator, PLAIN, Preset, Secret};
use crate::signature::scheme::{Algorithm, Form, Message, Signed};
use crate::signature::{Clock, Encoding, KeyForm, MacAlgorithm, Scheme, Unit};

const STRIPE: Signed<'_> = Signed {
    form: Form::Fields { separator: ',', signature: "v1", timestamp: Some("t") },
    message: Message::Template("{timestamp}.{body}"),
    clock: Some(SECONDS),
    // The whole `whsec_…` is the key: Stripe's isn't base64, unlike that of Standard Webhooks.
    ..Signed::body("stripe-signature", "", Encoding::Hex)
};

/// Paddle's own SDK allows five seconds, which a clock of no more than a container's precision misses.
const PADDLE: Signed<'_> = Signed {
    form: Form::Fields { separator: ';', signature: "h1", timestamp: Some("ts") },
    message: Message::Template("{timestamp}:{body}"),
    clock: Some(SECONDS),
    ..Signed::body("paddle-signature", "", Encoding::Hex)
};

pub(super) static PRESETS: [Preset; 8] = [
    Preset {
        name: "stripe",
        title: "Stripe",
        facts: "stripe-node src/Webhooks.ts, stripe-dotnet EventUtilityTest.cs",
        scheme: Scheme::Signed(STRIPE),
        secret: Secret::Required("the endpoint's signing secret, whsec_ included"),
        event: Locator::Body("/type"),
        delivery_id: Locator::Body("/id"),
        domains: &["stripe.com"],
        ..PLAIN
    },
    Preset {
        name: "square",
        title: "Square",
        facts: "square-nodejs-sdk WebhooksHelper and tests/integration/webhooks.test.ts",
        scheme: Scheme::Signed(Signed {
            message: Message::Template("{url}{body}"),
            ..Signed::body("x-square-hmacsha256-signature", "", Encoding::Base64)
        }),
        secret: Secret::Required("the subscription's signature key"),
        event: Locator::Body("/type"),
        delivery_id: Locator::Body("/event_id"),
        domains: &["squareup.com"],
        ..PLAIN
    },
    Preset {
        name: "paddle",
        title: "Paddle Billing",
        facts: "paddle-node-sdk webhooks-validator, developer.paddle.com respond-to-webhooks",
        scheme: Scheme::Signed(PADDLE),
        secret: Secret::Required("the notification destination's secret key"),
        event: Locator::Body("/event_type"),
        delivery_id: Locator::Body("/event_id"),
        domains: &["paddle.com"],
        ..PLAIN
    },
    Preset {
        name: "paypal",
        title: "PayPal",
        facts: "PayPal's \"Integrate webhooks\", as webhook-co/webhook adapters/bespoke/paypal.ts reads it",
        scheme: Scheme::PayPal,
        secret: Secret::Required("the webhook's id from the dashboard"),
        event: Locator::Body("/event_type"),
        // The transmission id may change when an event is sent again.
        delivery_id: Locator::Body("/id"),
        domains: &["paypal.com"],
        ..PLAIN
    },
    Preset {
        name: "mercado-pago",
        title: "Mercado Pago",
        facts: "Mercado Pago's documentation of webhooks, as webhook-co/webhook reads it (w3b-mercadopago)",
        scheme: Scheme::Signed(Signed {
            form: Form::Fields { separator: ',', signature: "v1", timestamp: Some("ts") },
            message: Message::MercadoPago,
            // Seconds in older accounts, milliseconds in newer ones. Retries go on for days.
            clock: Some(Clock { unit: Unit::SecondsOrMilliseconds, tolerance: None }),
            ..Signed::body("x-signature", "", Encoding::Hex)
        }),
        secret: Secret::Required("the application's webhook secret"),
        event: Locator::FirstOf(&[Locator::Body("/action"), Locator::Body("/type")]),
        delivery_id: Locator::FirstOf(&[Locator::Body("/id"), Locator::Header(&["x-request-id"])]),
        body: BodyRules { empty: true, ..BODY },
        ..PLAIN
    },
    Preset {
        name: "authorize-net",
        title: "Authorize.Net",
        facts: "Authorize.Net's samples, as webhook-co/webhook reads them; support.authorize.net",
        scheme: Scheme::Signed(Signed {
            algorithm: Algorithm::Mac(MacAlgorithm::HmacSha512),
            key: KeyForm::Hex,
            ..Signed::body("x-anet-signature", "sha512=", Encoding::Hex)
        }),
        secret: Secret::Required("the Signature Key: 128 hexadecimal digits"),
        event: Locator::Body("/eventType"),
        delivery_id: Locator::Body("/notificationId"),
        domains: &["authorize.net"],
        ..PLAIN
    },
    Preset {
        name: "xero",
        title: "Xero",
        facts: "developer.xero.com documentation/webhooks/configuring-your-server",
        scheme: Scheme::Signed(Signed::body("x-xero-signature", "", Encoding::Base64)),
        secret: Secret::Required("the webhook signing key"),
        event: Locator::Body("/events/0/eventType"),
        delivery_id: Locator::Joined(&[
            Locator::Body("/firstEventSequence"),
            Locator::Body("/lastEventSequence"),
        ]),
        domains: &["xero.com"],
        answer: Answer::Empty200,
        handshakes: &[Handshake::XeroIntentToReceive],
        ..PLAIN
    },
    Preset {
        name: "intuit",
        title: "QuickBooks (Intuit)",
        facts: "developer.intuit.com webhooks/best-practices; the header as webhook-co/webhook reads it",
        scheme: Scheme::Signed(Signed::body("intuit-signature", "", Encoding::Base64)),
        secret: Secret::Required("the app's verifier token"),
        // An array of CloudEvents, or the older shape; only an array of one has one id.
        event: Locator::Body("/*/type"),
        delivery_id: Locator::Body("/*/id"),
        domains: &["intuit.com"],
        ..PLAIN
    },
];
