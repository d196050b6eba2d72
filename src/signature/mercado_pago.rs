//! Mercado Pago's manifest: `id:<data.id of the query>;request-id:<x-request-id>;ts:<ts>;`, each part only if the
//! request has it (Mercado Pago's documentation of webhooks, "Verify the origin of the notification"). The body isn't
//! signed: a worker should fetch what the id names.

use std::borrow::Cow;

use http::header::HeaderName;

use super::SignedRequest;
use super::headers;
use super::mac::Pieces;
use super::message::Given;
use super::reason::{Reason, Unverified};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) fn message<'r>(request: &SignedRequest<'r>, given: Given<'r>) -> Result<Pieces<'r>, Unverified> {
    let id = headers::parameter(request.uri.query().unwrap_or(""), "data.id")?;
    let request_id = headers::find(request.headers, &REQUEST_ID)?;
    let timestamp = given.timestamp.ok_or(Reason::MissingTimestamp)?;
    // Without both, the signature would cover nothing but a time.
    if id.is_none() && request_id.is_none() {
        return Err(Reason::MissingField.into());
    }
    let mut manifest = Vec::new();
    let mut push = |name: &str, value: &[u8]| {
        // A value with a `;` could pass for another part.
        if value.contains(&b';') {
            return Err(Unverified::from(Reason::MalformedId));
        }
        manifest.extend_from_slice(name.as_bytes());
        manifest.extend_from_slice(value);
        manifest.push(b';');
        Ok(())
    };
    if let Some(id) = id {
        push("id:", &id.to_ascii_lowercase())?;
    }
    if let Some(request_id) = request_id {
        push("request-id:", request_id.as_bytes())?;
    }
    push("ts:", timestamp.as_bytes())?;
    Ok(vec![Cow::Owned(manifest)])
}
