//! The path of a webhook: [`ingest`] names every stage in order, and nothing else calls a stage.

pub mod answer;
pub mod body;
pub mod client_address;
pub mod listener;
pub mod proxy_protocol;
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
use crate::admission::allowlist::Proof;
use crate::admission::networks::NetworkTable;
use crate::app::Apps;
use crate::ingest::answer::Accepted;
use crate::ingest::body::{Bounds, ReceivedBody, receive};
use crate::ingest::client_address::client_address;
use crate::ingest::rejection::Rejection;
use crate::ingest::route::Route;
use crate::ingest::service::Facts;
use crate::job::{Job, Parts};
use crate::memory::MemoryBudget;
use crate::payload::{Payload, PayloadError};
use crate::signature::SignedRequest;
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
        .await
        .map_err(|refusal| Rejection::from_admission(refusal, route.integration, client.0))?;
    facts.on_no_list = caller.rule().proof == Proof::Report;

    let bounds = Bounds { limit_bytes: caller.integration().body_limit_bytes, timeout: context.body_timeout };
    let ReceivedBody { bytes, mut reservation } = receive(body, bounds, &context.memory).await?;
    facts.body_bytes = bytes.len();

    let verified = caller.integration().verifier.verify(&SignedRequest {
        method: &request.method,
        uri: &request.uri,
        headers: &request.headers,
        body: &bytes,
        now: facts.received_at,
        public_url: None,
    })?;
    let job = off_the_loop(facts.body_bytes, || {
        let options = &caller.integration().payload;
        let payload = Payload::decode(&verified, &request.headers, route.is_xml, options)?;
        Ok::<_, PayloadError>(Job::encode(&Parts {
            id: facts.id,
            app: &app.name,
            integration: route.integration,
            received_at: facts.received_at,
            client: client.0,
            rule: caller.rule(),
            verified: verified.signed(),
            request: &request,
            payload: &payload,
        }))
    })?;
    drop((verified, bytes));

    // From here on it is the job's document that holds memory, and its headers make it larger than the body.
    let growth = job.document.len().saturating_sub(facts.body_bytes);
    context.memory.extend(&mut reservation, growth).map_err(|_| Rejection::Overloaded)?;
    let appending = Instant::now();
    let receipt = app.queue.append(job, reservation, context.queue_timeout).await;
    context.metrics.queue_seconds.observe(appending.elapsed().as_secs_f64());
    Ok(Accepted { receipt: receipt? })
}

/// Work on a body from this size on is done where no other connection waits for the thread.
const LONG_BODY_BYTES: usize = 256 << 10;

fn off_the_loop<T>(body_bytes: usize, work: impl FnOnce() -> T) -> T {
    if body_bytes < LONG_BODY_BYTES { work() } else { tokio::task::block_in_place(work) }
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
