//! The path of a webhook: [`ingest`] names every stage in order, and nothing else calls a stage.

pub mod answer;
pub mod blocked;
pub mod body;
pub mod client_address;
pub mod conversions;
pub mod listener;
pub mod proxy_protocol;
pub mod rejection;
pub mod route;
pub mod service;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use crate::admission::allowlist::Proof;
use crate::admission::networks::NetworkTable;
use crate::admission::{self, Caller, Refusal};
use crate::app::{App, Apps};
use crate::handshake::{self, HandshakeAnswer, Notice, Stage};
use crate::ingest::answer::Accepted;
use crate::ingest::body::{Bounds, ReceivedBody, decompress, receive};
use crate::ingest::client_address::client_address;
use crate::ingest::conversions::{Conversions, Turn};
use crate::ingest::rejection::Rejection;
use crate::ingest::route::Route;
use crate::ingest::service::Facts;
use crate::integration::DedupeBy;
use crate::integration::Integration;
use crate::job::{Dedupe, Job, Parts};
use crate::memory::{MemoryBudget, Reservation};
use crate::payload::inflate::{self, Coding};
use crate::payload::{Payload, PayloadError};
use crate::signature::fetch::{KEY_WAIT, Keys};
use crate::signature::{Reason, SignedRequest, Unverified, Verified};
use crate::source;
use crate::telemetry::metrics::Metrics;

/// What the path needs besides the request.
#[derive(Debug)]
pub struct Context {
    /// The apps of this process.
    pub apps: Apps,
    /// The proxies whose word on the client's address counts.
    pub trusted_proxies: NetworkTable<()>,
    /// The longest time for a body.
    pub body_timeout: Duration,
    /// How long the queue may take to confirm a job.
    pub queue_timeout: Duration,
    /// The bytes that bodies in flight may hold.
    pub memory: MemoryBudget,
    /// The long bodies that may be worked on at once.
    pub conversions: Conversions,
    /// Senders' public keys; none if no integration needs one.
    pub keys: Option<Keys>,
    /// The bounds of looking at webhooks that the lists block.
    pub blocked: blocked::Limits,
    /// Where outcomes are counted.
    pub metrics: Metrics,
}

/// Takes one webhook from its head to its receipt.
///
/// # Errors
/// The first stage that refuses it. Nothing of a refused request reaches the queue.
pub async fn ingest(
    context: &Arc<Context>,
    peer: SocketAddr,
    request: &http::request::Parts,
    body: Incoming,
    facts: &mut Facts,
) -> Result<Accepted, Rejection> {
    let route = Route::parse(&request.method, request.uri.path())?;
    facts.integration = Some(route.integration.to_owned());

    let client = client_address(peer.ip(), &request.headers, &context.trusted_proxies)?;
    facts.client = client.0;

    let app = context.apps.select(&request.headers);
    let caller = match admission::admit(app, route.integration, client.0, facts.started.into_std()).await {
        Ok(caller) => caller,
        Err(refusal) => {
            let rejection = Rejection::from_admission(refusal, route.integration, client.0);
            if refusal == Refusal::Caller {
                blocked::look_at(context, facts, request, body);
            }
            return Err(rejection);
        }
    };
    facts.on_no_list = caller.rule().proof == Proof::Report;
    let integration = caller.integration();
    if request.method != Method::POST {
        let answer = handshake_at(Stage::Head, integration, request, b"")?;
        let allow = || handshake::allow(integration.handshakes());
        return answer.map(Accepted::Handshake).ok_or_else(|| Rejection::MethodNotAllowed { allow: allow() });
    }

    let bounds = Bounds { limit_bytes: integration.body_limit_bytes, timeout: context.body_timeout };
    let ReceivedBody { bytes, mut reservation } = receive(body, bounds, &context.memory).await?;
    facts.body_bytes = bytes.len();
    if let Some(answer) = handshake_at(Stage::Received, integration, request, &bytes)? {
        note(context, &answer);
        return Ok(Accepted::Handshake(answer));
    }

    let verified = verify(context, &caller, request, &bytes, facts.received_at).await?;
    drop(bytes);
    let coding = inflate::coding(&request.headers)?;
    let mut turn = context.conversions.turn(coding, verified.body().len()).await?;
    let verified = content(context, integration, coding, verified, &turn, &mut reservation)?;
    if verified.signed()
        && let Some(answer) = handshake_at(Stage::Verified, integration, request, verified.body())?
    {
        note(context, &answer);
        return Ok(Accepted::Handshake(answer));
    }

    context.conversions.extend(&mut turn, verified.body().len()).await?;
    let job = turn.work(|| make_job(facts, app, route, &caller, request, &verified))?;
    drop((verified, turn));

    // From here on it is the job's document that holds memory, and its headers make it larger than the body.
    let growth = job.document.len().saturating_sub(reservation.bytes());
    context.memory.extend(&mut reservation, growth).map_err(|_| Rejection::Overloaded)?;
    let appending = Instant::now();
    let order_key = (!integration.is_unordered).then_some(route.integration);
    let receipt = app.queue.append(job, order_key, reservation, context.queue_timeout).await;
    context.metrics.queue_seconds.observe(appending.elapsed().as_secs_f64());
    let answer = integration.source.map_or(source::Answer::Standard, |source| source.answer);
    Ok(Accepted::Job { receipt: receipt?, answer })
}

/// A verified body without its content coding, if it has one.
fn content(
    context: &Context,
    integration: &Integration,
    coding: Option<Coding>,
    verified: Verified,
    turn: &Turn<'_>,
    reservation: &mut Reservation,
) -> Result<Verified, Rejection> {
    let Some(coding) = coding else { return Ok(verified) };
    let bounds = inflate::Bounds::new(integration.body_limit_bytes, &integration.payload.limits);
    Ok(turn.work(|| decompress(verified, coding, bounds, &context.memory, reservation))?)
}

/// A verified body becomes a payload, and with what is known of the request a job.
fn make_job(
    facts: &Facts,
    app: &App,
    route: Route<'_>,
    caller: &Caller<'_>,
    request: &http::request::Parts,
    verified: &Verified,
) -> Result<Job, PayloadError> {
    let integration = caller.integration();
    let payload = Payload::decode(verified, &request.headers, route.is_xml, &integration.payload)?;
    let source = integration.source;
    let labels = source.map(|source| source.labels(&request.headers, verified)).unwrap_or_default();
    let repeats = integration.dedupe.and_then(|dedupe| {
        let of = match dedupe.by {
            DedupeBy::DeliveryId => labels.delivery_id.as_deref()?.as_bytes(),
            DedupeBy::Body => verified.body(),
        };
        Some(Dedupe::new(route.integration, of, dedupe.within))
    });
    let job = Job::encode(&Parts {
        id: facts.id,
        app: &app.name,
        integration: route.integration,
        received_at: facts.received_at,
        client: facts.client,
        rule: caller.rule(),
        preset: source.map(|source| source.name),
        event: labels.event.as_deref(),
        delivery_id: labels.delivery_id.as_deref(),
        verifier: &integration.verifier,
        verified: verified.signed(),
        request,
        payload: &payload,
    });
    Ok(Job { dedupe: repeats, ..job })
}

/// The raw bytes of a body become a [`Verified`] one, or the request ends here.
async fn verify(
    context: &Context,
    caller: &Caller<'_>,
    request: &http::request::Parts,
    body: &Bytes,
    now: Timestamp,
) -> Result<Verified, Rejection> {
    let integration = caller.integration();
    let signed = SignedRequest {
        method: &request.method,
        uri: &request.uri,
        headers: &request.headers,
        body,
        now,
        public_url: integration.public_url.as_deref(),
    };
    // Watched before the first look, or a key that is fetched may come in between.
    let mut arrivals = context.keys.as_ref().map(|keys| (keys.arrivals(), Instant::now() + KEY_WAIT));
    let verified = loop {
        let outcome = integration.verifier.verify(&signed);
        let may_wait = outcome.as_ref().is_err_and(Unverified::is_temporary);
        match &mut arrivals {
            Some((arrivals, until)) if may_wait => {
                if !arrivals.next(*until).await {
                    break outcome?;
                }
            }
            _ => break outcome?,
        }
    };
    if integration.answers_with(body) || (caller.needs_signature() && !verified.signed()) {
        return Err(Unverified::from(Reason::Mismatch).into());
    }
    Ok(verified)
}

/// What a handshake leaves to be done: by the worker, or by somebody who reads the log.
fn note(context: &Context, answer: &HandshakeAnswer) {
    match (answer.notice(), &context.keys) {
        (Some(Notice::Confirm { url }), Some(keys)) if keys.confirm(url.clone()) => {}
        (Some(notice), _) => tracing::warn!("{notice}"),
        (None, _) => {}
    }
}

fn handshake_at(
    stage: Stage,
    integration: &Integration,
    request: &http::request::Parts,
    body: &[u8],
) -> Result<Option<HandshakeAnswer>, Rejection> {
    let query = request.uri.query().unwrap_or("");
    let request = handshake::Request { method: &request.method, query, headers: &request.headers, body };
    handshake::respond(integration.handshakes(), stage, &request, &integration.handshake)
        .map_err(Rejection::from)
}

impl Facts {
    fn new(peer: SocketAddr) -> Facts {
        Facts {
            id: Uuid::now_v7(),
            received_at: Timestamp::now(),
            started: Instant::now(),
            client: peer.ip(),
            integration: None,
            on_no_list: false,
            body_bytes: 0,
        }
    }
}
