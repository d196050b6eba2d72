//! Handshakes by `POST` whose signature has been found valid: only the sender can ask for these.

use std::borrow::Cow;

use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use subtle::ConstantTimeEq;

use super::answer::{HandshakeAnswer, Notice};
use super::challenge::{Refused, TOKEN, UNSIGNABLE, header, require_token};
use super::head::hmac_sha256;
use super::{HandshakeSettings, Outcome, Request, json};
use crate::signature::keys::is_sns_url;

#[derive(Deserialize)]
struct SlackBody<'r> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'r, str>,
    #[serde(borrow)]
    challenge: Cow<'r, str>,
}

/// Slack, Events API, `url_verification`.
pub(super) fn slack(body: &[u8]) -> Outcome {
    let Some(body) = json::read::<SlackBody<'_>>(body, "url_verification") else { return Ok(None) };
    if body.kind != "url_verification" {
        return Ok(None);
    }
    Ok(Some(HandshakeAnswer::text(TOKEN.check(body.challenge.as_bytes())?.to_owned())))
}

#[derive(Deserialize)]
struct ZoomBody<'r> {
    #[serde(borrow)]
    event: Cow<'r, str>,
    #[serde(borrow)]
    payload: ZoomPayload<'r>,
}

#[derive(Deserialize)]
struct ZoomPayload<'r> {
    #[serde(borrow, rename = "plainToken")]
    plain_token: Cow<'r, str>,
}

/// Zoom, "Validate your webhook endpoint" (zoom/webhook-sample). The secret that signs webhooks signs the token.
pub(super) fn zoom(request: &Request<'_>, settings: &HandshakeSettings) -> Outcome {
    const EVENT: &str = "endpoint.url_validation";
    let Some(body) = json::read::<ZoomBody<'_>>(request.body, EVENT) else { return Ok(None) };
    if body.event != EVENT {
        return Ok(None);
    }
    let token = UNSIGNABLE.check(body.payload.plain_token.as_bytes())?;
    let secret = zoom_secret(request, &settings.secrets)?.expose_secret();
    let code = hex::encode(hmac_sha256(secret.as_bytes(), token.as_bytes())?);
    Ok(Some(HandshakeAnswer::json(format!(r#"{{"plainToken":"{token}","encryptedToken":"{code}"}}"#))))
}

/// While a secret is being replaced, the answer is made with the one that Zoom asked with.
fn zoom_secret<'s>(request: &Request<'_>, secrets: &'s [SecretString]) -> Result<&'s SecretString, Refused> {
    let signature = header(request.headers, "x-zm-signature")?.unwrap_or_default();
    let timestamp = header(request.headers, "x-zm-request-timestamp")?.unwrap_or_default();
    let message = [b"v0:", timestamp, b":", request.body].concat();
    for secret in secrets {
        let code = hmac_sha256(secret.expose_secret().as_bytes(), &message)?;
        if format!("v0={}", hex::encode(code)).as_bytes().ct_eq(signature).into() {
            return Ok(secret);
        }
    }
    secrets.first().ok_or(Refused::Settings)
}

#[derive(Deserialize)]
struct DiscordBody {
    #[serde(rename = "type")]
    kind: u8,
    event: Option<IgnoredAny>,
}

/// Discord, "Setting up an endpoint" (interactions) and "Preparing for events" (webhook events). A webhook event has
/// type 1 as well, and an `event`.
pub(super) fn discord(body: &[u8]) -> Option<HandshakeAnswer> {
    match json::read(body, "type")? {
        DiscordBody { kind: 0, event: None } => Some(HandshakeAnswer::no_content()),
        DiscordBody { kind: 1, event: None } => Some(HandshakeAnswer::json(&br#"{"type":1}"#[..])),
        DiscordBody { .. } => None,
    }
}

#[derive(Deserialize)]
struct SnsBody<'r> {
    #[serde(borrow, rename = "Type")]
    kind: Cow<'r, str>,
    #[serde(borrow, rename = "TopicArn")]
    topic: Cow<'r, str>,
    #[serde(borrow, rename = "SubscribeURL")]
    url: Cow<'r, str>,
}

/// Amazon SNS, "HTTP/HTTPS subscription confirmation". The subscription is confirmed without an operator only if the
/// settings name the topic: a valid signature says that Amazon sent this, and every customer of Amazon has topics.
pub(super) fn sns(body: &[u8], settings: &HandshakeSettings) -> Outcome {
    let Some(body) = json::read::<SnsBody<'_>>(body, "SubscribeURL") else { return Ok(None) };
    let topic = TOKEN.check(body.topic.as_bytes())?.to_owned();
    let notice = match body.kind.as_ref() {
        "SubscriptionConfirmation" => {
            let url = body.url.into_owned();
            if !is_sns_url(&url) {
                return Err(Refused::Challenge);
            }
            let is_topic = |agreed| require_token(Some(topic.as_bytes()), Some(agreed)).is_ok();
            let is_agreed = settings.secrets.iter().any(is_topic);
            match is_agreed {
                true => Notice::Confirm { url },
                false => Notice::ConfirmByHand { sender: "Amazon SNS", url },
            }
        }
        "UnsubscribeConfirmation" => Notice::Unsubscribed { topic },
        _ => return Ok(None),
    };
    Ok(Some(HandshakeAnswer::empty().noting(notice)))
}

#[derive(Deserialize)]
struct XeroBody<'r> {
    #[serde(borrow)]
    events: &'r RawValue,
    entropy: IgnoredAny,
}

/// Xero, "Intent to receive": the signature decides, and there is nothing to queue.
pub(super) fn xero(body: &[u8]) -> Option<HandshakeAnswer> {
    let XeroBody { events, entropy: IgnoredAny } = json::read(body, "entropy")?;
    let inner = events.get().strip_prefix('[')?.strip_suffix(']')?;
    inner.trim().is_empty().then(HandshakeAnswer::empty)
}

#[derive(Deserialize)]
struct TwitchBody<'r> {
    #[serde(borrow)]
    challenge: Cow<'r, str>,
}

/// Twitch, EventSub, "Responding to a challenge request".
pub(super) fn twitch(request: &Request<'_>) -> Outcome {
    let Some(kind) = message_type(request.headers)? else { return Ok(None) };
    if kind != b"webhook_callback_verification" {
        return Ok(None);
    }
    let Some(body) = json::read::<TwitchBody<'_>>(request.body, "challenge") else { return Ok(None) };
    Ok(Some(HandshakeAnswer::text(TOKEN.check(body.challenge.as_bytes())?.to_owned())))
}

fn message_type(headers: &HeaderMap) -> Result<Option<&[u8]>, Refused> {
    header(headers, "twitch-eventsub-message-type")
}
