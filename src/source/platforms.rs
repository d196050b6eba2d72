//! Clouds and market places.

use super::{Answer, BODY, BodyRules, Handshake, Locator, PLAIN, Preset, Secret};
use crate::signature::Scheme;
use crate::signature::scheme::BodyFormat;

pub(super) static PRESETS: [Preset; 4] = [
    Preset {
        name: "microsoft-graph",
        title: "Microsoft Graph",
        facts: "microsoft-graph-docs-contrib concepts/change-notifications-delivery-webhooks.md",
        // No signature: each notification carries the subscription's client state.
        scheme: Scheme::InBody { format: BodyFormat::Json, pointer: "/value/*/clientState" },
        secret: Secret::Required("the subscription's clientState"),
        event: Locator::Body("/value/*/changeType"),
        delivery_id: Locator::Body("/value/*/id"),
        handshakes: &[Handshake::GraphValidationToken],
        ..PLAIN
    },
    Preset {
        name: "aws-sns",
        title: "Amazon SNS",
        facts: "amazon-sns-developer-guide sns-message-and-json-formats.md and sns-verify-signature-of-message.md, aws-php-sns-message-validator",
        scheme: Scheme::Sns,
        secret: Secret::Required("the topic's ARN"),
        event: Locator::Body("/Type"),
        delivery_id: Locator::Body("/MessageId"),
        domains: &["amazonaws.com"],
        handshakes: &[Handshake::SnsSubscriptionConfirmation],
        body: BodyRules { json_in_text: true, ..BODY },
        ..PLAIN
    },
    Preset {
        name: "ebay",
        title: "eBay (Event Notification API)",
        facts: "eBay/event-notification-nodejs-sdk lib/validator.js and test/test.json",
        scheme: Scheme::Ebay,
        secret: Secret::Required("the verification token of the destination"),
        event: Locator::Body("/metadata/topic"),
        delivery_id: Locator::Body("/notification/notificationId"),
        domains: &["ebay.com"],
        handshakes: &[Handshake::EbayChallenge],
        ..PLAIN
    },
    Preset {
        name: "ebay-platform",
        title: "eBay (Platform Notifications)",
        facts: "developer.ebay.com guide \"Working with Platform Notifications\"",
        scheme: Scheme::EbayPlatform,
        secret: Secret::Required("DevID, AppID and CertID in a row"),
        answer: Answer::Empty200,
        ..PLAIN
    },
];
