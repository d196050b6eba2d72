//! The path of a webhook: [`ingest`] names every stage in order, and nothing else calls a stage.

pub mod answer;
pub mod body;
pub mod client_address;
pub mod listener;
pub mod rejection;
pub mod route;
pub mod service;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use crate::admission;
use crate::admission::networks::NetworkTable;
use crate::app::Apps;
use crate::ingest::answer::Accepted;
use crate::ingest::body::{Bounds, receive};
use crate::ingest::client_address::client_address;
use crate::ingest::rejection::Rejection;
use crate::ingest::route::Route;
use crate::ingest::service::Facts;
use crate::job::{Job, Parts};
use crate::memory::MemoryBudget;
use crate::payload::{Payload, PayloadOptions};
use crate::signature::{SignedRequest, Verified};
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
    /// How long after the body's end the queue may take to confirm the job.
    pub queue_timeout: Duration,
    /// The bytes that bodies in flight may hold.
    pub memory: MemoryBudget,
    /// Where outcomes are counted.
    pub metrics: Metrics,
}

/// Takes one webhook from its head to its receipt.
///
/// # Errors
/// The first stage that refuses it. Nothing of a refused request reaches the queue.
pub async fn ingest(
    context: &Context,
    peer: SocketAddr,
    request: Request<Incoming>,
    facts: &mut Facts,
) -> Result<Accepted, Rejection> {
    let (request, body) = request.into_parts();
    let route = Route::parse(&request.method, request.uri.path())?;
    facts.integration = Some(route.integration.to_owned());

    let client = client_address(peer.ip(), &request.headers, &context.trusted_proxies)?;
    facts.client = client.0;

    let app = context.apps.select(&request.headers);
    let caller = admission::admit(app, route.integration, client.0, facts.started.into_std())
        .map_err(|refusal| Rejection::from_admission(refusal, route.integration, client.0))?;

    let bounds = Bounds { limit_bytes: caller.integration().body_limit_bytes, timeout: context.body_timeout };
    let received = receive(body, bounds, &context.memory).await?;
    let deadline = Instant::now() + context.queue_timeout;
    facts.body_bytes = received.bytes.len();

    let verified = caller.integration().verifier.verify(&SignedRequest {
        method: &request.method,
        uri: &request.uri,
        headers: &request.headers,
        body: &received.bytes,
        now: facts.received_at,
        public_url: None,
    })?;
    let payload = decode(verified.clone(), &request, route.is_xml, &caller.integration().payload).await?;

    let job = Job::encode(&Parts {
        id: facts.id,
        app: &app.name,
        integration: route.integration,
        received_at: facts.received_at,
        client: client.0,
        rule: caller.rule(),
        verified: verified.signed(),
        request: &request,
        payload: &payload,
    });
    drop((payload, verified));

    let appending = Instant::now();
    let receipt = app.queue.append(job, received.reservation, deadline).await;
    context.metrics.queue_seconds.observe(appending.elapsed().as_secs_f64());
    Ok(Accepted { receipt: receipt? })
}

/// From this size on, decoding leaves the thread that other connections wait for.
const LONG_BODY_BYTES: usize = 256 << 10;

async fn decode(
    body: Verified,
    request: &http::request::Parts,
    is_xml: bool,
    options: &PayloadOptions,
) -> Result<Payload, Rejection> {
    if body.body().len() < LONG_BODY_BYTES {
        return Ok(Payload::decode(&body, &request.headers, is_xml, options)?);
    }
    let (headers, options) = (request.headers.clone(), options.clone());
    let decoding = tokio::task::spawn_blocking(move || Payload::decode(&body, &headers, is_xml, &options));
    match decoding.await {
        Ok(payload) => Ok(payload?),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Err(Rejection::Overloaded),
        },
    }
}

impl Facts {
    fn new(peer: SocketAddr) -> Facts {
        Facts {
            id: Uuid::now_v7(),
            received_at: Timestamp::now(),
            started: Instant::now(),
            client: peer.ip(),
            integration: None,
            body_bytes: 0,
        }
    }
}
