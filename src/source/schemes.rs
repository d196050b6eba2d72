//! Schemes that several senders share.

use std::time::Duration;

use crate::signature::scheme::{Algorithm, Form, Headers, Message, Signed};
use crate::signature::{Clock, Encoding, KeyForm, PublicAlgorithm, TOLERANCE, Unit};

/// Seconds since 1970, five minutes.
pub(super) const SECONDS: Clock = Clock { unit: Unit::Seconds, tolerance: Some(TOLERANCE) };

/// Zendesk and others that sign a time of day write it as RFC 3339.
pub(super) const RFC3339: Clock = Clock { unit: Unit::Rfc3339, tolerance: Some(TOLERANCE) };

/// Linear's SDK allows a minute.
pub(super) const LINEAR_CLOCK: Clock =
    Clock { unit: Unit::Milliseconds, tolerance: Some(Duration::from_secs(60)) };

/// A signature beside a header with the seconds since 1970.
pub(super) const fn timed(
    signature: &'static str,
    timestamp: &'static str,
    prefix: &'static str,
    template: &'static str,
) -> Signed<'static> {
    Signed {
        headers: Headers { signature, timestamp: Some(timestamp), id: None },
        message: Message::Template(template),
        clock: Some(SECONDS),
        ..Signed::body(signature, prefix, Encoding::Hex)
    }
}

/// Standard Webhooks v1: HMAC-SHA-256 over id, time and body. Svix sends its own three header names unless told
/// otherwise.
pub(super) const STANDARD_WEBHOOKS: Signed<'_> = Signed {
    key: KeyForm::Whsec,
    headers: Headers {
        signature: "webhook-signature",
        timestamp: Some("webhook-timestamp"),
        id: Some("webhook-id"),
    },
    others: &[Headers {
        signature: "svix-signature",
        timestamp: Some("svix-timestamp"),
        id: Some("svix-id"),
    }],
    form: Form::List { separator: ' ', prefix: "v1," },
    message: Message::Template("{id}.{timestamp}.{body}"),
    clock: Some(Clock { unit: Unit::Seconds, tolerance: Some(TOLERANCE) }),
    ..Signed::body("webhook-signature", "", Encoding::Base64)
};

/// Standard Webhooks v1a: Ed25519 over the same.
pub(super) const STANDARD_WEBHOOKS_PUBLIC: Signed<'_> = Signed {
    algorithm: Algorithm::Public(PublicAlgorithm::Ed25519),
    key: KeyForm::Whpk,
    form: Form::List { separator: ' ', prefix: "v1a," },
    ..STANDARD_WEBHOOKS
};
