//! Senders that sign with keys of their own, which a request names and [`super::keys`] pins to their hosts. Such a
//! signature proves the sender and not yet that the webhook is meant for this integration: anybody may be that
//! sender's customer. So each compares what names the recipient with the secret of the settings.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::HeaderName;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::SignedRequest;
use super::encoding::Encoding;
use super::headers;
use super::keys::{KeyCache, KeyUrl};
use super::mac::Fingerprint;
use super::pointer;
use super::public_key::{PublicAlgorithm, PublicKey};
use super::reason::{Reason, Unverified};
use super::timestamp::{Clock, Unit};

const ADOBE_PAIRS: [(HeaderName, HeaderName); 2] = [
    (
        HeaderName::from_static("x-adobe-digital-signature-1"),
        HeaderName::from_static("x-adobe-public-key1-path"),
    ),
    (
        HeaderName::from_static("x-adobe-digital-signature-2"),
        HeaderName::from_static("x-adobe-public-key2-path"),
    ),
];
const PAYPAL_SIGNATURE: HeaderName = HeaderName::from_static("paypal-transmission-sig");
const PAYPAL_ID: HeaderName = HeaderName::from_static("paypal-transmission-id");
const PAYPAL_TIME: HeaderName = HeaderName::from_static("paypal-transmission-time");
const PAYPAL_CERTIFICATE: HeaderName = HeaderName::from_static("paypal-cert-url");
const PAYPAL_ALGORITHM: HeaderName = HeaderName::from_static("paypal-auth-algo");
const EBAY_SIGNATURE: HeaderName = HeaderName::from_static("x-ebay-signature");
const SNS_RAW: HeaderName = HeaderName::from_static("x-amz-sns-rawdelivery");

/// Whose keys, and what names the recipient.
#[derive(Debug, Clone)]
pub(super) struct FetchedCheck {
    pub sender: Sender,
    pub secrets: Vec<SecretString>,
    pub keys: Arc<KeyCache>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    AdobeIo,
    PayPal,
    Sns,
    Ebay,
}

impl FetchedCheck {
    pub(super) fn check(&self, request: &SignedRequest<'_>) -> Result<usize, Unverified> {
        match self.sender {
            Sender::AdobeIo => self.adobe_io(request),
            Sender::PayPal => self.paypal(request),
            Sender::Sns => self.sns(request),
            Sender::Ebay => self.ebay(request),
        }
    }

    pub(super) fn carries(header: &HeaderName) -> bool {
        let adobe = ADOBE_PAIRS.iter().any(|(signature, _)| signature == header);
        adobe || *header == PAYPAL_SIGNATURE || *header == EBAY_SIGNATURE
    }

    fn key(&self, url: &KeyUrl, now: Timestamp) -> Result<Arc<PublicKey>, Unverified> {
        self.keys.key(url, now).ok_or_else(|| Reason::KeyUnavailable.into())
    }

    /// The index of the secret that names this recipient.
    fn recipient(&self, given: &[u8]) -> Result<usize, Unverified> {
        let fits = |secret: &SecretString| Fingerprint::of(secret.expose_secret().as_bytes()).is_of(given);
        self.secrets.iter().position(fits).ok_or_else(|| Reason::WrongRecipient.into())
    }

    /// RSA over the body, by either of two keys (Adobe's guide to webhooks, "Digital signatures"). All of Adobe's
    /// customers share the keys, so the client id in the body must be ours; the secret is that id.
    fn adobe_io(&self, request: &SignedRequest<'_>) -> Result<usize, Unverified> {
        let mut worst = Unverified::at(Reason::MissingHeader, &ADOBE_PAIRS[0].0);
        for (signature, path) in &ADOBE_PAIRS {
            if !request.headers.contains_key(signature) {
                continue;
            }
            let given = signature_of(request, signature, PublicAlgorithm::RsaSha256)?;
            let url = KeyUrl::adobe_io(headers::require(request.headers, path)?)
                .map_err(|reason| Unverified::at(reason, path))?;
            match self.key(&url, request.now) {
                Ok(key) if key.verifies(PublicAlgorithm::RsaSha256, request.body, &given) => {
                    return self.recipient(adobe_recipient(request.body)?.as_bytes());
                }
                // A key that isn't here yet may be the one that verifies; this outranks the other one's mismatch.
                Ok(_) if !worst.is_temporary() => worst = Unverified::at(Reason::Mismatch, signature),
                Ok(_) => {}
                Err(unverified) => worst = unverified,
            }
        }
        Err(worst)
    }

    /// RSA over `id|time|webhook id|crc32` by the key of a certificate (PayPal's "Integrate webhooks", "Message
    /// verification"). The webhook id is the secret, and so the recipient.
    fn paypal(&self, request: &SignedRequest<'_>) -> Result<usize, Unverified> {
        let given = signature_of(request, &PAYPAL_SIGNATURE, PublicAlgorithm::RsaSha256)?;
        if headers::require(request.headers, &PAYPAL_ALGORITHM)? != "SHA256withRSA" {
            return Err(Unverified::at(Reason::UnknownAlgorithm, &PAYPAL_ALGORITHM));
        }
        let id = headers::require(request.headers, &PAYPAL_ID)?;
        let time = headers::require(request.headers, &PAYPAL_TIME)?;
        if id.contains('|') || time.contains('|') {
            return Err(Unverified::at(Reason::MalformedId, &PAYPAL_ID));
        }
        // Retries go on for three days with the first attempt's time, so only its form is checked.
        Clock { unit: Unit::Rfc3339, tolerance: None }.check(time, request.now)?;
        let url = KeyUrl::paypal(headers::require(request.headers, &PAYPAL_CERTIFICATE)?)
            .map_err(|reason| Unverified::at(reason, &PAYPAL_CERTIFICATE))?;
        let key = self.key(&url, request.now)?;
        let verifies = |secret: &SecretString| {
            let message = paypal_message(id, time, secret.expose_secret(), request.body);
            key.verifies(PublicAlgorithm::RsaSha256, message.as_bytes(), &given)
        };
        let mismatch = || Unverified::at(Reason::Mismatch, &PAYPAL_SIGNATURE);
        self.secrets.iter().position(verifies).ok_or_else(mismatch)
    }

    /// RSA over some members of the body by the key of a certificate (Amazon SNS developer guide, "Verifying the
    /// signatures of messages"). Anybody can have Amazon sign messages of a topic of his own, so the topic must be
    /// ours; the secret is its ARN.
    fn sns(&self, request: &SignedRequest<'_>) -> Result<usize, Unverified> {
        if headers::find(request.headers, &SNS_RAW)?.is_some_and(|raw| raw.eq_ignore_ascii_case("true")) {
            return Err(Unverified::at(Reason::UnsignedDelivery, &SNS_RAW));
        }
        let message: SnsMessage<'_> =
            serde_json::from_slice(request.body).map_err(|_| Reason::UnreadableBody)?;
        let algorithm = match message.signature_version.as_ref() {
            "1" => PublicAlgorithm::RsaSha1,
            "2" => PublicAlgorithm::RsaSha256,
            _ => return Err(Reason::UnknownAlgorithm.into()),
        };
        let given = decode(&message.signature, algorithm)?;
        // The time is that of publishing; retries may come up to an hour later, and repeats have one message id.
        Clock { unit: Unit::Rfc3339, tolerance: None }.check(&message.timestamp, request.now)?;
        let key = self.key(&KeyUrl::sns(&message.signing_cert_url)?, request.now)?;
        if !key.verifies(algorithm, message.canonical()?.as_bytes(), &given) {
            return Err(Reason::Mismatch.into());
        }
        self.recipient(message.topic_arn.as_bytes())
    }

    /// ECDSA over the body (`event-notification-nodejs-sdk`). The signature names no recipient; eBay sends only to
    /// URLs that answered its challenge with our token, which the handshake checks.
    fn ebay(&self, request: &SignedRequest<'_>) -> Result<usize, Unverified> {
        #[derive(Deserialize)]
        struct Header<'h> {
            #[serde(borrow)]
            alg: Cow<'h, str>,
            #[serde(borrow)]
            kid: Cow<'h, str>,
            #[serde(borrow)]
            signature: Cow<'h, str>,
            #[serde(borrow)]
            digest: Cow<'h, str>,
        }
        let at = |reason| Unverified::at(reason, &EBAY_SIGNATURE);
        let value = headers::require(request.headers, &EBAY_SIGNATURE)?;
        let json = Encoding::Base64.decode(value).ok_or_else(|| at(Reason::WrongEncoding))?;
        let header: Header<'_> = serde_json::from_slice(&json).map_err(|_| at(Reason::WrongEncoding))?;
        let algorithm = match (header.alg.as_ref(), header.digest.as_ref()) {
            ("ecdsa", "SHA1") => PublicAlgorithm::EcdsaP256Sha1,
            ("ecdsa", "SHA256") => PublicAlgorithm::EcdsaP256Sha256,
            _ => return Err(at(Reason::UnknownAlgorithm)),
        };
        let given = decode(&header.signature, algorithm).map_err(at)?;
        let key = self.key(&KeyUrl::ebay(&header.kid).map_err(at)?, request.now)?;
        if key.verifies(algorithm, request.body, &given) { Ok(0) } else { Err(at(Reason::Mismatch)) }
    }
}

fn signature_of(
    request: &SignedRequest<'_>,
    name: &HeaderName,
    algorithm: PublicAlgorithm,
) -> Result<Vec<u8>, Unverified> {
    let text = headers::require(request.headers, name)?;
    decode(text, algorithm).map_err(|reason| Unverified::at(reason, name))
}

fn decode(text: &str, algorithm: PublicAlgorithm) -> Result<Vec<u8>, Reason> {
    if text.is_empty() {
        return Err(Reason::EmptySignature);
    }
    let bytes = Encoding::Base64.decode(text).ok_or(Reason::WrongEncoding)?;
    if algorithm.takes_length(bytes.len()) { Ok(bytes) } else { Err(Reason::WrongLength) }
}

/// The client id that every event of the body is for; batches are arrays. The older spelling has underscores.
fn adobe_recipient(body: &[u8]) -> Result<String, Unverified> {
    let names = ["/*/recipientclientid", "/*/recipient_client_id"];
    let ids = names.iter().find_map(|name| pointer::find_all(body, name)).ok_or(Reason::MissingMember)?;
    let (first, others) = ids.split_first().ok_or(Reason::MissingMember)?;
    if others.iter().all(|other| other == first) {
        Ok(first.clone())
    } else {
        Err(Reason::WrongRecipient.into())
    }
}

/// The string that PayPal signs.
pub(super) fn paypal_message(id: &str, time: &str, webhook_id: &str, body: &[u8]) -> String {
    format!("{id}|{time}|{webhook_id}|{}", crc32(body))
}

/// CRC-32 as in zlib. It is no protection: PayPal signs it in the body's place, so a body can be made to fit. A worker
/// should ask PayPal for what matters.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { (value >> 1) ^ 0xEDB8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        TABLE[usize::from(low ^ byte)] ^ (crc >> 8)
    })
}

/// The members of a message that count. serde refuses one that is there twice.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SnsMessage<'b> {
    #[serde(borrow)]
    message: Cow<'b, str>,
    #[serde(borrow)]
    message_id: Cow<'b, str>,
    #[serde(borrow, default)]
    subject: Option<Cow<'b, str>>,
    #[serde(borrow, default, rename = "SubscribeURL")]
    subscribe_url: Option<Cow<'b, str>>,
    #[serde(borrow)]
    timestamp: Cow<'b, str>,
    #[serde(borrow, default)]
    token: Option<Cow<'b, str>>,
    #[serde(borrow)]
    topic_arn: Cow<'b, str>,
    #[serde(borrow, rename = "Type")]
    kind: Cow<'b, str>,
    #[serde(borrow)]
    signature_version: Cow<'b, str>,
    #[serde(borrow)]
    signature: Cow<'b, str>,
    #[serde(borrow, rename = "SigningCertURL")]
    signing_cert_url: Cow<'b, str>,
}

impl SnsMessage<'_> {
    /// The signed text: names and values on lines of their own, in this order. Which of them are signed depends on
    /// the type, so a notification can't carry a `SubscribeURL` that nobody signed, nor the other way round.
    pub(super) fn canonical(&self) -> Result<String, Reason> {
        let mut text = String::new();
        let mut push = |name: &str, value: &str| text.extend([name, "\n", value, "\n"]);
        push("Message", &self.message);
        push("MessageId", &self.message_id);
        let is_notification = match self.kind.as_ref() {
            "Notification" => true,
            "SubscriptionConfirmation" | "UnsubscribeConfirmation" => false,
            _ => return Err(Reason::UnsignedDelivery),
        };
        match (&self.subscribe_url, &self.token) {
            (None, None) if is_notification => {
                if let Some(subject) = &self.subject {
                    push("Subject", subject);
                }
                push("Timestamp", &self.timestamp);
            }
            (Some(subscribe_url), Some(token)) if !is_notification => {
                push("SubscribeURL", subscribe_url);
                push("Timestamp", &self.timestamp);
                push("Token", token);
            }
            _ => return Err(Reason::MissingMember),
        }
        push("TopicArn", &self.topic_arn);
        push("Type", &self.kind);
        Ok(text)
    }
}
