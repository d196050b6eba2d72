//! The ways in which senders try a URL out. Such a request is answered and never queued.

use http::HeaderMap;
use prometheus_client::encoding::EncodeLabelValue;

/// How a sender tries a URL out. Those that answer with the secret's hash of a chosen text are oracles: who answers
/// them must restrict that text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Handshake {
    /// WooCommerce: `POST webhook_id=<n>` without a signature, answered exactly 200 ([`is_woocommerce_ping`]).
    WooCommercePing,
    /// Slack: signed `POST {"type":"url_verification","challenge":…}`, answered with the challenge.
    SlackUrlVerification,
    /// Meta: `GET ?hub.mode=subscribe&hub.challenge=…&hub.verify_token=…`, answered with the challenge.
    MetaSubscribe,
    /// Dropbox: `GET ?challenge=…`, answered with it.
    DropboxChallenge,
    /// Adobe I/O: `GET ?challenge=…`, answered with it.
    AdobeIoChallenge,
    /// Adobe I/O: `POST {"validationUrl":…}`, answered 200; somebody must open that URL within five minutes.
    AdobeIoValidationUrl,
    /// eBay: `GET ?challenge_code=…`, answered with SHA-256 over it, the token and the URL.
    EbayChallenge,
    /// X: `GET ?crc_token=…`, answered with HMAC-SHA-256 of it. An oracle.
    XCrc,
    /// Zoom: `POST {"event":"endpoint.url_validation",…}`, answered with HMAC-SHA-256 of its token. An oracle.
    ZoomUrlValidation,
    /// Discord: signed `POST {"type":1}` (answered in kind) or `{"type":0}` (answered 204).
    DiscordPing,
    /// Microsoft Graph: `POST ?validationToken=…`, answered with it.
    GraphValidationToken,
    /// Amazon SNS: signed `POST` of the type `SubscriptionConfirmation`; its URL is to be opened.
    SnsSubscriptionConfirmation,
    /// Xero: signed `POST` without events, right or wrong: answered 200 or 401.
    XeroIntentToReceive,
    /// Several: `HEAD`, answered 200.
    HeadProbe,
    /// Mandrill: `POST mandrill_events=[]` after its `HEAD`, answered 200.
    MandrillNoEvents,
    /// Okta: `GET` with `X-Okta-Verification-Challenge`, answered in JSON.
    OktaChallenge,
    /// Adobe Acrobat Sign: `GET` with `X-AdobeSign-ClientId`, echoed as a header.
    AcrobatSignClientId,
    /// Twitch: `POST` with `Twitch-Eventsub-Message-Type: webhook_callback_verification`, answered with its challenge.
    TwitchCallbackVerification,
    /// monday.com: `POST {"challenge":…}`, answered with the same JSON.
    MondayChallenge,
    /// Asana: `POST` with `X-Hook-Secret`, echoed as a header.
    AsanaHookSecret,
    /// Braintree: `GET ?bt_challenge=…`, answered with its HMAC. An oracle.
    BraintreeChallenge,
    /// CloudEvents: `OPTIONS` with `WebHook-Request-Origin`, answered with `WebHook-Allowed-Origin`.
    CloudEventsOptions,
    /// Azure Event Grid: `POST` of a `SubscriptionValidationEvent`, answered with its code.
    EventGridValidation,
}

/// Whether a request is WooCommerce's ping: on activation it posts `webhook_id=<n>` unsigned and without any of its
/// headers, and a webhook whose ping isn't answered exactly 200 shows an error (`class-wc-webhook.php`,
/// `deliver_ping`).
pub fn is_woocommerce_ping(headers: &HeaderMap, body: &[u8]) -> bool {
    let digits = body.strip_prefix(b"webhook_id=");
    let is_number = digits.is_some_and(|digits| {
        (1..=20).contains(&digits.len()) && digits.iter().all(|digit| digit.is_ascii_digit())
    });
    is_number && !headers.keys().any(|name| name.as_str().starts_with("x-wc-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_that_and_nothing_else() {
        let mut headers = HeaderMap::new();
        for (body, expect) in [
            ("webhook_id=42", true),
            ("webhook_id=", false),
            ("webhook_id=4x", false),
            ("webhook_id=42&x=1", false),
            ("webhook_id=42\n", false),
            ("webhook_id=123456789012345678901", false),
            ("", false),
        ] {
            assert_eq!(is_woocommerce_ping(&headers, body.as_bytes()), expect, "{body:?}");
        }
        headers.insert("x-wc-webhook-signature", "x".parse().unwrap());
        assert!(!is_woocommerce_ping(&headers, b"webhook_id=42"));
    }
}
