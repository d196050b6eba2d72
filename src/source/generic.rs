//! Senders that aren't in the table.

use super::{Locator, PLAIN, Preset, Secret};
use crate::signature::scheme::Signed;
use crate::signature::{CredentialPlace, Encoding, Scheme};

pub(super) static PRESETS: [Preset; 4] = [
    Preset {
        name: "basic",
        title: "HTTP Basic",
        facts: "RFC 7617",
        scheme: Scheme::Credential { first: CredentialPlace::Basic, others: &[] },
        secret: Secret::Required("user:password"),
        ..PLAIN
    },
    Preset {
        name: "bearer",
        title: "Bearer token",
        facts: "RFC 6750",
        scheme: Scheme::Credential { first: CredentialPlace::Bearer, others: &[] },
        secret: Secret::Required("the token"),
        ..PLAIN
    },
    Preset {
        name: "api-key",
        title: "API key in a header or the query",
        facts: "the commonest names; set signature.header for another",
        scheme: Scheme::Credential {
            first: CredentialPlace::Header("x-api-key"),
            others: &[CredentialPlace::Query("api_key"), CredentialPlace::Query("token")],
        },
        secret: Secret::Required("the key"),
        ..PLAIN
    },
    Preset {
        name: "hmac",
        title: "HMAC-SHA-256 of the body",
        facts: "a default to write `signature` over",
        scheme: Scheme::Signed(Signed::body("x-signature", "", Encoding::Hex)),
        secret: Secret::Required("the secret"),
        delivery_id: Locator::Nowhere,
        ..PLAIN
    },
];
