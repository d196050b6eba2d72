//! Proofs that stand in the body. They are the one reason to read a body before its sender is known, so each is read
//! by a reader with the limits of [`crate::payload`], and nothing but the proof is kept.

use std::borrow::Cow;

use http::header::CONTENT_TYPE;
use md5::{Digest, Md5};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::SignedRequest;
use super::encoding::Encoding;
use super::headers;
use super::mac::{Fingerprint, MacAlgorithm, MacKey};
use super::pointer;
use super::reason::{Reason, Unverified};
use super::scheme::BodyFormat;
use super::timestamp::{Clock, Unit};
use crate::payload::media_type::MediaType;
use crate::payload::xml::{self, XmlLimits, XmlOptions};
use crate::payload::{Limits, multipart};

/// A secret, or an account's id, that every part of the body must carry.
#[derive(Debug, Clone)]
pub(super) struct InBodyCheck {
    pub format: BodyFormat,
    pub pointer: Box<str>,
    pub secrets: Vec<Fingerprint>,
}

impl InBodyCheck {
    pub(super) fn check(&self, request: &SignedRequest<'_>) -> Result<usize, Unverified> {
        let body = match self.format {
            BodyFormat::Json => Cow::Borrowed(&request.body[..]),
            BodyFormat::Xml => Cow::Owned(json_of_xml(request.body)?),
        };
        let given = pointer::find_all(&body, &self.pointer).ok_or(Reason::MissingMember)?;
        let fits = |secret: &Fingerprint| given.iter().all(|given| secret.is_of(given.as_bytes()));
        self.secrets.iter().position(fits).ok_or_else(|| Reason::CredentialMismatch.into())
    }
}

/// The reader of XML payloads, so that nothing is found here that a worker would find elsewhere.
pub(crate) fn json_of_xml(body: &[u8]) -> Result<Vec<u8>, Unverified> {
    let options = XmlOptions { strip_prefixes: true, ..XmlOptions::default() };
    let text = xml::decode(body, None).map_err(|_| Reason::UnreadableBody)?;
    let json = xml::convert(&text, &options, &XmlLimits::default()).map_err(|_| Reason::UnreadableBody)?;
    Ok(json.into_bytes())
}

/// Mailgun signs a time and a token, not the body (its documentation, "Securing webhooks"). The token is good for one
/// delivery: it is the delivery id of the preset, by which a repeat can be dropped.
#[derive(Debug, Clone)]
pub(super) struct MailgunCheck {
    pub keys: Vec<(usize, MacKey)>,
}

#[derive(Deserialize)]
struct MailgunBody<'b> {
    #[serde(borrow)]
    signature: MailgunSignature<'b>,
}

#[derive(Deserialize, Default)]
struct MailgunSignature<'b> {
    #[serde(borrow)]
    timestamp: Cow<'b, str>,
    #[serde(borrow)]
    token: Cow<'b, str>,
    #[serde(borrow)]
    signature: Cow<'b, str>,
}

impl MailgunCheck {
    pub(super) fn new(secrets: &[SecretString]) -> MailgunCheck {
        let keys = secrets.iter().enumerate().filter_map(|(index, secret)| {
            let key = MacKey::new(MacAlgorithm::HmacSha256, secret.expose_secret().as_bytes())?;
            Some((index, key))
        });
        MailgunCheck { keys: keys.collect() }
    }

    pub(super) fn check(&self, request: &SignedRequest<'_>) -> Result<usize, Unverified> {
        let signed = read_mailgun(request)?;
        // Retries go on for eight hours, and Mailgun doesn't say whether they are signed anew: the form is checked,
        // the age isn't.
        Clock { unit: Unit::Seconds, tolerance: None }.check(&signed.timestamp, request.now)?;
        // Nothing separates the two. With another number of digits, the token's first one could be the time's last, and
        // the same signature would verify another token.
        if signed.timestamp.len() != 10 || !(32..=128).contains(&signed.token.len()) {
            return Err(Reason::MalformedId.into());
        }
        let code = Encoding::Hex.decode(&signed.signature).ok_or(Reason::WrongEncoding)?;
        if code.len() != MacAlgorithm::HmacSha256.length() {
            return Err(Reason::WrongLength.into());
        }
        let message = [signed.timestamp.as_bytes().into(), signed.token.as_bytes().into()];
        let codes = [code];
        let verifying = self.keys.iter().find(|(_, key)| key.verifies(&message, &codes));
        verifying.map(|(index, _)| *index).ok_or_else(|| Reason::Mismatch.into())
    }
}

/// Today's JSON, or the fields of the same names of older webhooks: a form, or multipart where there are attachments.
fn read_mailgun<'r>(request: &SignedRequest<'r>) -> Result<MailgunSignature<'r>, Unverified> {
    let body = request.body;
    let media_type = headers::find(request.headers, &CONTENT_TYPE)?.and_then(MediaType::parse);
    if let Some(MediaType { boundary: Some(boundary), .. }) =
        media_type.filter(|media_type| media_type.essence == "multipart/form-data")
    {
        return read_mailgun_multipart(body, &boundary);
    }
    if body.first().is_some_and(|byte| *byte == b'{' || byte.is_ascii_whitespace()) {
        let body: MailgunBody<'_> = serde_json::from_slice(body).map_err(|_| Reason::UnreadableBody)?;
        return Ok(body.signature);
    }
    let form = std::str::from_utf8(body).map_err(|_| Reason::UnreadableBody)?;
    let field = |name| {
        let value = headers::parameter(form, name)?.ok_or(Reason::MissingMember)?;
        let text = String::from_utf8(value.into_owned()).map_err(|_| Reason::UnreadableBody)?;
        Ok::<_, Unverified>(Cow::Owned(text))
    };
    Ok(MailgunSignature {
        timestamp: field("timestamp")?,
        token: field("token")?,
        signature: field("signature")?,
    })
}

fn read_mailgun_multipart<'r>(body: &'r [u8], boundary: &str) -> Result<MailgunSignature<'r>, Unverified> {
    let fields = multipart::fields(body, boundary, &Limits::DEFAULT).map_err(|_| Reason::UnreadableBody)?;
    let field = |name| {
        let mut values = fields.iter().filter(|(other, _)| other == name);
        let (_, value) = values.next().ok_or(Reason::MissingMember)?;
        let text = std::str::from_utf8(value).map_err(|_| Reason::UnreadableBody)?;
        if values.next().is_some() { Err(Reason::DuplicateField) } else { Ok(Cow::Borrowed(text)) }
    };
    Ok(MailgunSignature {
        timestamp: field("timestamp")?,
        token: field("token")?,
        signature: field("signature")?,
    })
}

/// eBay's Platform Notifications: base64 of MD5 over the time, then the application's `DevID`, `AppID` and `CertID`
/// (eBay's "Working with Platform Notifications"). The secret is those three in a row. The body isn't signed.
#[derive(Debug, Clone)]
pub(super) struct EbayPlatformCheck {
    pub secrets: Vec<SecretString>,
}

impl EbayPlatformCheck {
    pub(super) fn check(&self, request: &SignedRequest<'_>) -> Result<usize, Unverified> {
        let json = json_of_xml(request.body)?;
        let header = "/Envelope/Header/RequesterCredentials/NotificationSignature";
        let signature = text_at(&json, header).ok_or(Reason::MissingMember)?;
        let given = Encoding::Base64.decode(&signature).ok_or(Reason::WrongEncoding)?;
        // The one element of the SOAP body is named after the call.
        let timestamp = text_at(&json, "/Envelope/Body/+/Timestamp").ok_or(Reason::MissingTimestamp)?;
        // eBay's own rule: ten minutes.
        let tolerance = Some(std::time::Duration::from_secs(600));
        Clock { unit: Unit::Rfc3339, tolerance }.check(&timestamp, request.now)?;
        let fits = |secret: &SecretString| {
            let hash = Md5::new_with_prefix(&timestamp).chain_update(secret.expose_secret()).finalize();
            bool::from(hash.as_slice().ct_eq(&given))
        };
        self.secrets.iter().position(fits).ok_or_else(|| Reason::Mismatch.into())
    }
}

/// An element's text, with or without attributes beside it.
fn text_at(json: &[u8], pointer: &str) -> Option<String> {
    pointer::find(json, pointer).or_else(|| pointer::find(json, &format!("{pointer}/#text")))
}
