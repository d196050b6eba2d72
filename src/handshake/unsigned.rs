//! Handshakes by `POST` that come before their sender has anything to sign with.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::answer::{HandshakeAnswer, Notice};
use super::challenge::{LINE, Refused, TOKEN, header, parameter};
use super::{Outcome, Request, json};
use crate::source::is_woocommerce_ping;

/// `WC_Webhook::deliver_ping`: `200 !== $response_code` is an error that the shop's owner sees.
pub(super) fn woocommerce(request: &Request<'_>) -> Option<HandshakeAnswer> {
    is_woocommerce_ping(request.headers, request.body).then(HandshakeAnswer::empty)
}

/// Microsoft Graph, "Receive change notifications through webhooks": the decoded token as `text/plain`. A webhook
/// always has a body, so one without is no webhook that is thrown away here.
pub(super) fn graph(request: &Request<'_>) -> Outcome {
    if !request.body.is_empty() {
        return Ok(None);
    }
    let Some(token) = parameter(request.query, "validationToken")? else { return Ok(None) };
    Ok(Some(HandshakeAnswer::text(LINE.check(&token)?.to_owned())))
}

/// A body with anything besides the challenge is a webhook.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnlyChallenge<'r> {
    #[serde(borrow)]
    challenge: Cow<'r, str>,
}

pub(super) fn monday(body: &[u8]) -> Outcome {
    let Some(only) = json::read::<OnlyChallenge<'_>>(body, "challenge") else { return Ok(None) };
    let challenge = TOKEN.check(only.challenge.as_bytes())?;
    Ok(Some(HandshakeAnswer::json(format!(r#"{{"challenge":"{challenge}"}}"#))))
}

/// Asana, "Webhooks", "Handshake". The secret that comes here is also in the answer to whoever created the webhook;
/// it is echoed, and neither kept nor logged.
pub(super) fn asana(headers: &HeaderMap) -> Outcome {
    let name = HeaderName::from_static("x-hook-secret");
    let Some(secret) = header(headers, "x-hook-secret")? else { return Ok(None) };
    let mut value = HeaderValue::from_str(TOKEN.check(secret)?).map_err(|_| Refused::Challenge)?;
    value.set_sensitive(true);
    Ok(Some(HandshakeAnswer::empty().with(name, value)))
}

#[derive(Deserialize)]
struct GridEvent<'r> {
    #[serde(borrow, rename = "eventType")]
    kind: Cow<'r, str>,
    #[serde(borrow)]
    data: GridValidation<'r>,
}

#[derive(Deserialize)]
struct GridValidation<'r> {
    #[serde(borrow, rename = "validationCode")]
    code: Cow<'r, str>,
}

/// Azure Event Grid, "Webhook event delivery", "Synchronous handshake".
pub(super) fn event_grid(body: &[u8]) -> Outcome {
    const KIND: &str = "Microsoft.EventGrid.SubscriptionValidationEvent";
    let Some([event]) = json::read::<[GridEvent<'_>; 1]>(body, KIND) else { return Ok(None) };
    if event.kind != KIND {
        return Ok(None);
    }
    let code = TOKEN.check(event.data.code.as_bytes())?;
    Ok(Some(HandshakeAnswer::json(format!(r#"{{"validationResponse":"{code}"}}"#))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnlyValidationUrl<'r> {
    #[serde(borrow, rename = "validationUrl")]
    url: Cow<'r, str>,
}

/// Adobe I/O Events, "Asynchronous validation". Nobody has signed it, so nothing is visited.
pub(super) fn adobe_io(body: &[u8]) -> Outcome {
    let Some(only) = json::read::<OnlyValidationUrl<'_>>(body, "validationUrl") else {
        return Ok(None);
    };
    let is_link = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?&=%".contains(&byte);
    let url = only.url.into_owned();
    if !url.starts_with("https://csm.adobe.io/") || url.len() > 512 || !url.bytes().all(is_link) {
        return Err(Refused::Challenge);
    }
    Ok(Some(HandshakeAnswer::empty().noting(Notice::ConfirmByHand { sender: "Adobe I/O", url })))
}

/// Mandrill posts an empty list of events to a new URL.
pub(super) fn mandrill(body: &[u8]) -> Option<HandshakeAnswer> {
    matches!(body, b"mandrill_events=[]" | b"mandrill_events=%5B%5D").then(HandshakeAnswer::empty)
}
