//! Handshakes: what a sender asks of a URL before it sends webhooks there, or again and again to see that the URL is
//! still ours. They are answered at once and never queued.
//!
//! Only the integration's source preset switches one on: a URL that echoed any challenge would reflect text for
//! anybody. What is echoed is held to a closed alphabet and answered as `text/plain` (or as the one type that the
//! sender demands) with `nosniff`, at most [`ANSWER_LIMIT_BYTES`] long.
//!
//! Three handshakes make the secret sign what the caller chose (Zoom, X, Braintree). Their challenges can't be a
//! signed text of the same sender: see [`Handshake::would_sign`].
//!
//! Facts come from the senders' own documentation, as their presets name it (`crate::source`); where a line below names
//! an SDK or a specification, it was read there.

mod answer;
mod challenge;
mod head;
mod json;
mod signed;
mod unsigned;

use http::{HeaderMap, Method};
use secrecy::SecretString;

pub use crate::source::Handshake;
pub use answer::{HandshakeAnswer, Notice};
pub use challenge::Refused;

/// The longest body of an answer, in bytes.
pub const ANSWER_LIMIT_BYTES: usize = 1024;

/// How far a request has come when handshakes are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Admitted, and not a `POST`: there is no body to wait for.
    Head,
    /// A `POST` whose body has been received and whose signature hasn't been looked at.
    Received,
    /// A `POST` whose signature was valid.
    Verified,
}

/// What is known of the request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// The method.
    pub method: &'r Method,
    /// The query string, without the question mark; empty if there is none.
    pub query: &'r str,
    /// The headers.
    pub headers: &'r HeaderMap,
    /// The body as received; empty at [`Stage::Head`].
    pub body: &'r [u8],
}

/// What an integration's settings say for handshakes.
#[derive(Debug, Clone, Default)]
pub struct HandshakeSettings {
    /// What webhooks are verified with, the current one first: secrets, and the ARNs of topics (SNS).
    pub secrets: Vec<SecretString>,
    /// The token that was agreed for the handshake alone: Meta's verify token, eBay's verification token (which may
    /// also be the first secret), Acrobat Sign's client id.
    pub verify_token: Option<SecretString>,
    /// The URL as it is registered with the sender.
    pub public_url: Option<String>,
    /// Braintree's public key.
    pub account: Option<String>,
}

/// A setting without which a handshake can't be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// One of the integration's secrets.
    Secret,
    /// [`HandshakeSettings::verify_token`].
    VerifyToken,
    /// [`HandshakeSettings::public_url`].
    PublicUrl,
    /// [`HandshakeSettings::account`].
    Account,
}

impl Handshake {
    /// Where it belongs: the one stage and method at which it is looked for.
    pub fn place(self) -> (Stage, Method) {
        match self {
            Handshake::MetaSubscribe
            | Handshake::DropboxChallenge
            | Handshake::AdobeIoChallenge
            | Handshake::EbayChallenge
            | Handshake::XCrc
            | Handshake::OktaChallenge
            | Handshake::AcrobatSignClientId
            | Handshake::BraintreeChallenge => (Stage::Head, Method::GET),
            Handshake::HeadProbe => (Stage::Head, Method::HEAD),
            Handshake::CloudEventsOptions => (Stage::Head, Method::OPTIONS),
            Handshake::WooCommercePing
            | Handshake::GraphValidationToken
            | Handshake::MondayChallenge
            | Handshake::AsanaHookSecret
            | Handshake::EventGridValidation
            | Handshake::AdobeIoValidationUrl
            | Handshake::MandrillNoEvents => (Stage::Received, Method::POST),
            Handshake::SlackUrlVerification
            | Handshake::ZoomUrlValidation
            | Handshake::DiscordPing
            | Handshake::SnsSubscriptionConfirmation
            | Handshake::XeroIntentToReceive
            | Handshake::TwitchCallbackVerification => (Stage::Verified, Method::POST),
        }
    }

    /// What the settings must have, so that a handshake which could only fail stops the start.
    pub fn needs(self) -> &'static [Needed] {
        match self {
            Handshake::MetaSubscribe => &[Needed::VerifyToken],
            Handshake::EbayChallenge => &[Needed::Secret, Needed::PublicUrl],
            Handshake::XCrc | Handshake::ZoomUrlValidation => &[Needed::Secret],
            Handshake::BraintreeChallenge => &[Needed::Secret, Needed::Account],
            _ => &[],
        }
    }

    /// Whether the handshake would have the secret sign this text if somebody asked for it.
    ///
    /// A body for which this holds must not count as signed: its signature may be one of our own answers. No body
    /// that the sender makes is such a text, since theirs begin with a brace.
    pub fn would_sign(self, signed: &[u8]) -> bool {
        match self {
            Handshake::XCrc => challenge::UNSIGNABLE.check(signed).is_ok(),
            Handshake::BraintreeChallenge => challenge::BRAINTREE.check(signed).is_ok(),
            // What Zoom signs begins with `v0:`, and no token that is answered has a colon.
            _ => false,
        }
    }

    fn answer(self, request: &Request<'_>, settings: &HandshakeSettings) -> Outcome {
        match self {
            Handshake::MetaSubscribe => head::meta(request.query, settings),
            Handshake::DropboxChallenge | Handshake::AdobeIoChallenge => head::echo(request.query),
            Handshake::EbayChallenge => head::ebay(request.query, settings),
            Handshake::XCrc => head::x(request.query, settings),
            Handshake::OktaChallenge => head::okta(request.headers),
            Handshake::AcrobatSignClientId => head::acrobat_sign(request.headers, settings),
            Handshake::BraintreeChallenge => head::braintree(request.query, settings),
            Handshake::HeadProbe => Ok(Some(HandshakeAnswer::empty())),
            Handshake::CloudEventsOptions => head::cloud_events(request.headers),
            Handshake::WooCommercePing => Ok(unsigned::woocommerce(request)),
            Handshake::GraphValidationToken => unsigned::graph(request),
            Handshake::MondayChallenge => unsigned::monday(request.body),
            Handshake::AsanaHookSecret => unsigned::asana(request.headers),
            Handshake::EventGridValidation => unsigned::event_grid(request.body),
            Handshake::AdobeIoValidationUrl => unsigned::adobe_io(request.body),
            Handshake::MandrillNoEvents => Ok(unsigned::mandrill(request.body)),
            Handshake::SlackUrlVerification => signed::slack(request.body),
            Handshake::ZoomUrlValidation => signed::zoom(request, settings),
            Handshake::DiscordPing => Ok(signed::discord(request.body)),
            Handshake::SnsSubscriptionConfirmation => signed::sns(request.body, settings),
            Handshake::XeroIntentToReceive => Ok(signed::xero(request.body)),
            Handshake::TwitchCallbackVerification => signed::twitch(request),
        }
    }
}

type Outcome = Result<Option<HandshakeAnswer>, Refused>;

/// Answers a handshake, if the request is one of these. None if not: then it goes on as a webhook, or, at
/// [`Stage::Head`], is answered 405.
///
/// # Errors
/// A handshake that must not be answered.
pub fn respond(
    handshakes: &[Handshake],
    stage: Stage,
    request: &Request<'_>,
    settings: &HandshakeSettings,
) -> Outcome {
    for handshake in handshakes {
        if handshake.place() != (stage, request.method.clone()) {
            continue;
        }
        match handshake.answer(request, settings)? {
            Some(answer) if answer.body.len() > ANSWER_LIMIT_BYTES => return Err(Refused::Challenge),
            Some(answer) => return Ok(Some(HandshakeAnswer { handshake: Some(*handshake), ..answer })),
            None => {}
        }
    }
    Ok(None)
}

/// Whether a method other than `POST` may be a handshake, which is what makes the path known for it.
pub fn takes(handshakes: &[Handshake], method: &Method) -> bool {
    handshakes.iter().any(|handshake| handshake.place() == (Stage::Head, method.clone()))
}

/// The value of `Allow`: `POST` and the methods of these handshakes.
pub fn allow(handshakes: &[Handshake]) -> String {
    let methods = [Method::GET, Method::HEAD, Method::OPTIONS];
    let mut allow: Vec<&str> =
        methods.iter().filter(|method| takes(handshakes, method)).map(Method::as_str).collect();
    allow.push("POST");
    allow.join(", ")
}

#[cfg(test)]
mod tests;
