//! The service around the path: one request, one outcome. The counter, the log line and the answer are made from
//! the same value; a panic on the path is an outcome like any other.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::answer::{Accepted, Answer, answer};
use super::rejection::{Fault, Rejection};
use super::{Context, ingest};
use crate::telemetry::metrics::Metrics;

/// What is known of a request so far; for its log line and its job.
#[derive(Debug)]
pub struct Facts {
    /// The request's id, and its job's.
    pub id: Uuid,
    /// When its head had been read.
    pub received_at: Timestamp,
    /// The same on the monotonic clock.
    pub started: Instant,
    /// The client's address; the peer's until it is known.
    pub client: IpAddr,
    /// The integration that the path names.
    pub integration: Option<String>,
    /// No allowlist holds the client; it was let in because the lists only report.
    pub on_no_list: bool,
    /// How long the body is.
    pub body_bytes: usize,
}

/// The public plane's service for one connection.
pub fn public_service(
    context: Arc<Context>,
    peer: SocketAddr,
) -> impl tower::Service<Request<Incoming>, Response = Answer, Error = Infallible, Future: Send> + Clone + Send
{
    tower::service_fn(move |request: Request<Incoming>| {
        let (request, body) = request.into_parts();
        serve(Arc::clone(&context), peer, request, body).map(Ok)
    })
}

async fn serve(
    context: Arc<Context>,
    peer: SocketAddr,
    request: http::request::Parts,
    body: Incoming,
) -> Answer {
    let mut facts = Facts::new(peer);
    let outcome = track(&context.metrics, ingest(&context, peer, &request, body, &mut facts)).await;
    let is_shared = context.trusted_proxies.contains(peer.ip());
    conclude(&context.metrics, &facts, outcome, is_shared)
}

/// Counts a request as in flight while it is worked on, and makes an outcome of a panic, which the panic hook has logged
/// with its place in the code. No `async fn`: those hold what they are given twice, and this is moved for each request.
fn track(
    metrics: &Metrics,
    ingesting: impl Future<Output = Result<Accepted, Rejection>>,
) -> impl Future<Output = Result<Accepted, Rejection>> {
    let in_flight = metrics.begin_request();
    AssertUnwindSafe(ingesting).catch_unwind().map(move |outcome| {
        drop(in_flight);
        outcome.unwrap_or(Err(Rejection::Bug))
    })
}

/// One outcome: one counter, one log line, one answer.
fn conclude(
    metrics: &Metrics,
    facts: &Facts,
    outcome: Result<Accepted, Rejection>,
    is_shared: bool,
) -> Answer {
    let elapsed = facts.started.elapsed();
    let (code, status) = match &outcome {
        Ok(accepted) => (accepted.code(), accepted.status()),
        Err(rejection) => (rejection.code(), rejection.status()),
    };
    metrics.count_request(code, status.as_u16(), elapsed);
    if let Ok(Accepted::Handshake(answer)) = &outcome
        && let Some(handshake) = answer.handshake()
    {
        metrics.count_handshake(handshake);
    }
    if facts.on_no_list {
        metrics.allowlist_reported.inc();
    }
    log(facts, elapsed, code, status, &outcome);
    answer(outcome, is_shared)
}

fn log(
    facts: &Facts,
    elapsed: Duration,
    code: &str,
    status: StatusCode,
    outcome: &Result<Accepted, Rejection>,
) {
    let id = facts.id;
    let client = facts.client;
    let integration = facts.integration.as_deref().unwrap_or("-");
    let bytes = facts.body_bytes;
    let status = status.as_u16();
    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    if facts.on_no_list {
        warn!(%id, %client, integration, "would be refused: the client is on no allowlist");
    }
    let Err(rejection) = outcome else {
        info!(%id, %client, integration, bytes, status, micros, "{code}");
        return;
    };
    let detail = rejection.detail();
    match rejection.fault() {
        Fault::Caller => info!(%id, %client, integration, bytes, status, micros, code, detail, "refused"),
        Fault::Service => warn!(%id, %client, integration, bytes, status, micros, code, detail, "refused"),
        Fault::Bug => error!(%id, %client, integration, bytes, status, micros, code, detail, "failed"),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::telemetry::captured::Captured;

    #[tokio::test]
    async fn a_panic_on_the_path_is_one_500_one_count_and_one_line() {
        let lines = Captured::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let _logging = tracing::subscriber::set_default(subscriber);
        let metrics = Metrics::default();
        let facts = Facts::new(([127, 0, 0, 1], 1).into());

        let outcome = track(&metrics, async { panic!("a bug") }).await;
        let answer = conclude(&metrics, &facts, outcome, false);

        assert_eq!(answer.status(), 500);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            body,
            "{\"result\":false,\"error\":\"The gateway failed on this request; the failure was logged\"}"
        );
        let text = metrics.encode(0, true);
        assert!(text.contains("retrieve_requests_total{outcome=\"bug\",status=\"500\"} 1"), "{text}");
        assert!(text.contains("retrieve_requests_in_flight 0"), "a panic leaves nothing in flight");
        let log = lines.take();
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains("ERROR") && log.contains("status=500") && log.contains("code=\"bug\""), "{log}");
    }
}
