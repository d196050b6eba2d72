//! Validly signed webhooks of callers that the lists block. One of them means that a list is stale: the sender is ours,
//! and calls from an address that nobody has listed.
//!
//! The caller isn't told. Its 403 is on its way before the body is looked at, and whether the body is read is decided
//! without the id: by a header that a signature of any integration may stand in. So neither the answer, nor its time,
//! nor how long the connection stays open tells which ids exist.
//!
//! It is no work that a stranger could multiply: a few bodies at once, a few in a second, each small and in memory
//! that is counted. Nothing is parsed, only hashed; static credentials aren't looked at, because that would be a
//! place to guess them, and neither are keys that would have to be fetched.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use http::header::EXPECT;
use hyper::body::{Body, Incoming};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tracing::warn;

use super::Context;
use super::body::{Bounds, receive};
use super::service::Facts;
use crate::admission::rate::{Rate, RateLimit};
use crate::signature::SignedRequest;

/// Nearly every webhook is smaller, and it comes at once. The limits of an integration would tell of it.
const BOUNDS: Bounds = Bounds { limit_bytes: 256 << 10, timeout: Duration::from_secs(1) };

/// How many are looked at. More of them would say nothing new.
const RATE: Rate = Rate { count: NonZeroU32::MIN.saturating_add(15), per: Duration::from_secs(1) };

/// How many at once.
const AT_ONCE: usize = 8;

/// The bounds of the looking.
#[derive(Debug)]
pub struct Limits {
    rate: RateLimit,
    places: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { rate: RateLimit::new(RATE, Instant::now()), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

/// Looks at a blocked webhook after its answer, if it may be a signed one. One that waits for `100 Continue`, or
/// declares a body over the bound, is none: the sender would see that it was asked for the body.
pub fn look_at(context: &Arc<Context>, facts: &Facts, request: &http::request::Parts, body: Incoming) {
    let integrations = &context.apps.select(&request.headers).integrations;
    let may_be_signed = integrations.signature_headers().any(|name| request.headers.contains_key(name));
    let is_small = body.size_hint().exact().is_none_or(|length| length <= BOUNDS.limit_bytes as u64);
    let is_webhook = request.method == Method::POST;
    if !is_webhook || !may_be_signed || !is_small || request.headers.contains_key(EXPECT) {
        return;
    }
    let Some(id) = facts.integration.clone() else { return };
    let Ok(place) = Arc::clone(&context.blocked.places).try_acquire_owned() else { return };
    if context.blocked.rate.take(Instant::now()).is_err() {
        return;
    }
    let (context, request) = (Arc::clone(context), request.clone());
    let (client, received_at) = (facts.client, facts.received_at);
    tokio::spawn(async move {
        if is_signed(&context, &id, &request, body, received_at).await {
            context.metrics.count_signed_but_blocked(&id);
            warn!(
                integration = id,
                %client,
                "blocked a validly signed webhook, the lists may be stale: put the client's address, network or domain into \
                 RETRIEVE_ALLOWED_LIST or the integration's allowed_list, or let signatures admit (admit = \"signature\")"
            );
        }
        drop(place);
    });
}

async fn is_signed(
    context: &Context,
    id: &str,
    request: &http::request::Parts,
    body: Incoming,
    now: Timestamp,
) -> bool {
    // Read before the id is looked up, or the connection would stay open for the known ones alone.
    let Ok(received) = receive(body, BOUNDS, &context.memory).await else { return false };
    let integration = context.apps.select(&request.headers).integrations.get(id);
    let Some(integration) = integration.filter(|integration| integration.enabled) else { return false };
    let signed = SignedRequest {
        method: &request.method,
        uri: &request.uri,
        headers: &request.headers,
        body: &received.bytes,
        now,
        public_url: integration.public_url.as_deref(),
    };
    integration.verifier.signs_in_header(&signed) && !integration.answers_with(&received.bytes)
}
