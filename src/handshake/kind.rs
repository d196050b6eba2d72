//! The kinds of handshakes.

/// How a sender tries a URL out. Those that answer with the secret's hash of a chosen text are oracles: who answers
/// them must restrict that text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Handshake {
    /// WooCommerce: `POST webhook_id=<n>` without a signature, answered exactly 200.
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
