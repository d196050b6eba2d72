//! Shops.

use super::schemes::STANDARD_WEBHOOKS;
use super::{Answer, BODY, BodyRules, Handshake, Locator, PLAIN, Preset, Secret};
use crate::signature::scheme::{Algorithm, Headers, Message, Signed};
use crate::signature::{CredentialPlace, Encoding, KeyForm, PublicAlgorithm, Scheme};

/// Shopify's newer "Events" have the same headers without `x-`; its SDK looks for those first.
const SHOPIFY: Signed<'_> = Signed {
    others: &[Headers { signature: "x-shopify-hmac-sha256", timestamp: None, id: None }],
    ..Signed::body("shopify-hmac-sha256", "", Encoding::Base64)
};

/// BigCommerce keys Standard Webhooks with its client secret as it stands.
const BIGCOMMERCE: Signed<'_> = Signed { key: KeyForm::Utf8, ..STANDARD_WEBHOOKS };

pub(super) static PRESETS: [Preset; 7] = [
    Preset {
        name: "shopify",
        title: "Shopify",
        facts: "shopify-app-js lib/webhooks/validate.ts, shopify-api-ruby hmac_validator.rb, shopify.dev webhooks/https and ignore-duplicates",
        scheme: Scheme::Signed(SHOPIFY),
        secret: Secret::Required(
            "the app's API secret key, or the key shown on Settings > Notifications > Webhooks",
        ),
        event: Locator::Header(&["shopify-topic", "x-shopify-topic"]),
        // "The same value across more than one webhook indicates a duplicate"; two subscriptions to one topic are
        // two deliveries of one event.
        delivery_id: Locator::Header(&[
            "shopify-event-id",
            "x-shopify-event-id",
            "shopify-webhook-id",
            "x-shopify-webhook-id",
        ]),
        domains: &["shopify.com", "myshopify.com"],
        ..PLAIN
    },
    Preset {
        name: "woocommerce",
        title: "WooCommerce",
        facts: "woocommerce class-wc-webhook.php (generate_signature, get_new_delivery_id, deliver_ping), wc-webhook-functions.php",
        scheme: Scheme::Signed(Signed {
            key: KeyForm::HtmlDecoded,
            ..Signed::body("x-wc-webhook-signature", "", Encoding::Base64)
        }),
        secret: Secret::Required("the webhook's secret"),
        event: Locator::Header(&["x-wc-webhook-topic"]),
        // The delivery id is a hash of the webhook's id and the second, so two deliveries in one second share it.
        delivery_id: Locator::Joined(&[
            Locator::Header(&["x-wc-webhook-source"]),
            Locator::Header(&["x-wc-webhook-id"]),
            Locator::Header(&["x-wc-webhook-delivery-id"]),
            Locator::BodyHash,
        ]),
        handshakes: &[Handshake::WooCommercePing],
        ..PLAIN
    },
    Preset {
        name: "adobe-commerce",
        title: "Adobe Commerce (webhooks)",
        facts: "AdobeDocs/commerce-extensibility webhooks/signature-verification.md and responses.md",
        scheme: Scheme::Signed(Signed {
            algorithm: Algorithm::Public(PublicAlgorithm::RsaSha256),
            key: KeyForm::Pem,
            // The prose says HMAC; the sample verifies RSA over the base64 text of the body.
            message: Message::Template("{base64_body}"),
            ..Signed::body("x-adobe-commerce-webhook-signature", "", Encoding::Base64)
        }),
        secret: Secret::Required("the public key shown in the Admin, in PEM"),
        answer: Answer::AdobeOp,
        // No id, and equal bodies are legitimate: the same cart twice.
        ..PLAIN
    },
    Preset {
        name: "adobe-io-events",
        title: "Adobe I/O Events",
        facts: "AdobeDocs/adobe-io-events guides/index.md, common/retry-doc.md, support/faq.md",
        scheme: Scheme::AdobeIo,
        secret: Secret::Required("the client id of the registration, which every event names"),
        event: Locator::FirstOf(&[Locator::Header(&["x-adobe-event-code"]), Locator::Body("/type")]),
        delivery_id: Locator::Header(&["x-adobe-event-id"]),
        // Recalled: which of Adobe's names its users would list.
        domains: &["adobe.com", "adobe.io", "adobeioevents.com"],
        handshakes: &[Handshake::AdobeIoChallenge, Handshake::AdobeIoValidationUrl],
        ..PLAIN
    },
    Preset {
        name: "magento-mageplaza",
        title: "Magento 2 with Mageplaza's Webhook",
        facts: "mageplaza/magento-2-webhook Helper/Data.php and Model/Config/Source: no signature; Basic, a fixed Digest, or headers of the user's choice",
        scheme: Scheme::Credential {
            first: CredentialPlace::Header("x-webhook-secret"),
            others: &[
                CredentialPlace::Basic,
                CredentialPlace::Authorization,
                CredentialPlace::Query("token"),
            ],
        },
        secret: Secret::Optional("the value of the header x-webhook-secret, or user:password of Basic"),
        delivery_id: Locator::BodyHash,
        body: BodyRules { any_content_type: true, ..BODY },
        ..PLAIN
    },
    Preset {
        name: "bigcommerce",
        title: "BigCommerce",
        facts: "bigcommerce/docs integrations/webhooks/overview.mdx and https-webhook-overview.mdx",
        scheme: Scheme::Signed(BIGCOMMERCE),
        secret: Secret::Required("the app's client secret, as it stands"),
        event: Locator::Body("/scope"),
        delivery_id: Locator::FirstOf(&[Locator::Body("/hash"), Locator::Header(&["webhook-id"])]),
        domains: &["bigcommerce.com", "mybigcommerce.com"],
        answer: Answer::Empty200,
        ..PLAIN
    },
    Preset {
        name: "prestashop",
        title: "PrestaShop",
        facts: "docs.cloud.prestashop.com: the cloud delivers by Svix; recalled: PrestaShop itself has no webhooks, and each module its own header",
        scheme: Scheme::AnyOf(&[
            Scheme::Signed(STANDARD_WEBHOOKS),
            Scheme::Signed(Signed {
                others: &[Headers { signature: "x-webhook-signature", timestamp: None, id: None }],
                ..Signed::body("x-prestashop-signature", "", Encoding::Hex)
            }),
            Scheme::Credential { first: CredentialPlace::Header("x-webhook-secret"), others: &[] },
        ]),
        secret: Secret::Required("the secret of the Svix endpoint, or the module's"),
        delivery_id: Locator::FirstOf(&[Locator::Header(&["webhook-id", "svix-id"]), Locator::BodyHash]),
        ..PLAIN
    },
];
