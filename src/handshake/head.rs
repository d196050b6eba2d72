//! Handshakes without a body: `GET`, `HEAD` and `OPTIONS`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::answer::HandshakeAnswer;
use super::challenge::{BRAINTREE, Refused, TOKEN, UNSIGNABLE, header, parameter, require_token};
use super::{HandshakeSettings, Outcome};

/// Meta, Webhooks, "Verification Requests". The token is compared before the challenge is looked at, so that only
/// who knows it learns how challenges are checked.
pub(super) fn meta(query: &str, settings: &HandshakeSettings) -> Outcome {
    if parameter(query, "hub.mode")?.as_deref() != Some(b"subscribe") {
        return Ok(None);
    }
    let token = parameter(query, "hub.verify_token")?;
    require_token(token.as_deref(), settings.verify_token.as_ref())?;
    let challenge = parameter(query, "hub.challenge")?.unwrap_or_default();
    Ok(Some(HandshakeAnswer::text(TOKEN.check(&challenge)?.to_owned())))
}

/// Dropbox, Webhooks, "The verification request"; Adobe I/O Events takes the same answer.
pub(super) fn echo(query: &str) -> Outcome {
    let Some(challenge) = parameter(query, "challenge")? else { return Ok(None) };
    Ok(Some(HandshakeAnswer::text(TOKEN.check(&challenge)?.to_owned())))
}

/// eBay event-notification-nodejs-sdk: SHA-256 of challenge code, verification token and endpoint, in this order.
pub(super) fn ebay(query: &str, settings: &HandshakeSettings) -> Outcome {
    let Some(code) = parameter(query, "challenge_code")? else { return Ok(None) };
    let code = TOKEN.check(&code)?;
    let token = settings.verify_token.as_ref().or(settings.secrets.first());
    let (Some(token), Some(url)) = (token, &settings.public_url) else {
        return Err(Refused::Settings);
    };
    let hash =
        Sha256::new().chain_update(code).chain_update(token.expose_secret()).chain_update(url).finalize();
    Ok(Some(HandshakeAnswer::json(format!(r#"{{"challengeResponse":"{}"}}"#, hex::encode(hash)))))
}

/// X, "Securing webhooks": the challenge-response check, hourly. The secret that signs webhooks signs the token, so
/// the token's alphabet is narrow.
pub(super) fn x(query: &str, settings: &HandshakeSettings) -> Outcome {
    let Some(token) = parameter(query, "crc_token")? else { return Ok(None) };
    let token = UNSIGNABLE.check(&token)?;
    let secret = settings.secrets.first().ok_or(Refused::Settings)?;
    let code = hmac_sha256(secret.expose_secret().as_bytes(), token.as_bytes())?;
    Ok(Some(HandshakeAnswer::json(format!(r#"{{"response_token":"sha256={}"}}"#, STANDARD.encode(code)))))
}

/// Okta, Event hooks, "One-time verification request".
pub(super) fn okta(headers: &HeaderMap) -> Outcome {
    let Some(challenge) = header(headers, "x-okta-verification-challenge")? else { return Ok(None) };
    Ok(Some(HandshakeAnswer::json(format!(r#"{{"verification":"{}"}}"#, TOKEN.check(challenge)?))))
}

/// Acrobat Sign, "Verification of intent". Every customer of Adobe could point a webhook here, so the client id has
/// to be the agreed one where the settings name one.
pub(super) fn acrobat_sign(headers: &HeaderMap, settings: &HandshakeSettings) -> Outcome {
    let name = HeaderName::from_static("x-adobesign-clientid");
    let Some(client) = header(headers, "x-adobesign-clientid")? else { return Ok(None) };
    let client = UNSIGNABLE.check(client)?;
    if settings.verify_token.is_some() {
        require_token(Some(client.as_bytes()), settings.verify_token.as_ref())?;
    }
    let value = HeaderValue::from_str(client).map_err(|_| Refused::Challenge)?;
    Ok(Some(HandshakeAnswer::empty().with(name, value)))
}

/// Braintree's SDKs, `WebhookNotification.verify`: HMAC-SHA-1 under the SHA-1 of the private key.
pub(super) fn braintree(query: &str, settings: &HandshakeSettings) -> Outcome {
    let Some(challenge) = parameter(query, "bt_challenge")? else { return Ok(None) };
    let challenge = BRAINTREE.check(&challenge)?;
    let (Some(private), Some(public)) = (settings.secrets.first(), &settings.account) else {
        return Err(Refused::Settings);
    };
    let key = Sha1::digest(private.expose_secret());
    let mut code = <Hmac<Sha1>>::new_from_slice(&key).map_err(|_| Refused::Settings)?;
    code.update(challenge.as_bytes());
    let code = hex::encode(code.finalize().into_bytes());
    Ok(Some(HandshakeAnswer::text(format!("{public}|{code}"))))
}

/// CloudEvents, HTTP 1.1 Web Hooks, sections 4.1 and 4.2. The rate that was asked for is granted: an integration's
/// own limit answers 429.
pub(super) fn cloud_events(headers: &HeaderMap) -> Outcome {
    let Some(origin) = header(headers, "webhook-request-origin")? else { return Ok(None) };
    let origin = UNSIGNABLE.check(origin)?;
    let origin = HeaderValue::from_str(origin).map_err(|_| Refused::Challenge)?;
    let answer = HandshakeAnswer::empty()
        .allowing("OPTIONS, POST")
        .with(HeaderName::from_static("webhook-allowed-origin"), origin);
    if header(headers, "webhook-request-rate")?.is_none() {
        return Ok(Some(answer));
    }
    let any = HeaderValue::from_static("*");
    Ok(Some(answer.with(HeaderName::from_static("webhook-allowed-rate"), any)))
}

pub(super) fn hmac_sha256(key: &[u8], message: &[u8]) -> Result<Vec<u8>, Refused> {
    // HMAC takes keys of any length.
    let mut code = <Hmac<Sha256>>::new_from_slice(key).map_err(|_| Refused::Settings)?;
    code.update(message);
    Ok(code.finalize().into_bytes().to_vec())
}
