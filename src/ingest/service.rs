//! The service around the path: one request, one outcome. The counter, the log line and the answer are made from
//! the same value; a panic on the path is an outcome like any other.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use http::Request;
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::answer::{Accepted, Answer, answer};
use super::rejection::{Fault, Rejection};
use super::{Context, ingest};

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
        let context = Arc::clone(&context);
        async move {
            let mut facts = Facts::new(peer);
            let outcome = {
                let ingesting = ingest(&context, peer, request, &mut facts);
                catch_panic(context.metrics.track_request(ingesting)).await
            };
            record(&context, &facts, &outcome);
            Ok(answer(&outcome))
        }
    })
}

/// The panic itself was logged by the panic hook, with its place in the code.
async fn catch_panic(
    ingesting: impl Future<Output = Result<Accepted, Rejection>>,
) -> Result<Accepted, Rejection> {
    AssertUnwindSafe(ingesting).catch_unwind().await.unwrap_or(Err(Rejection::Bug))
}

fn record(context: &Context, facts: &Facts, outcome: &Result<Accepted, Rejection>) {
    let elapsed = facts.started.elapsed();
    let (code, status) = match outcome {
        Ok(accepted) => ("accepted", accepted.status()),
        Err(rejection) => (rejection.code(), rejection.status()),
    };
    context.metrics.count_request(code, status.as_u16(), elapsed);
    let id = facts.id;
    let client = facts.client;
    let integration = facts.integration.as_deref().unwrap_or("-");
    let bytes = facts.body_bytes;
    let status = status.as_u16();
    let micros = elapsed.as_micros();
    if facts.on_no_list {
        context.metrics.allowlist_reported.inc();
        warn!(%id, %client, integration, "would be refused: the client is on no allowlist");
    }
    let Err(rejection) = outcome else {
        info!(%id, %client, integration, bytes, status, micros, "accepted");
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
    use super::*;

    #[tokio::test]
    async fn a_panic_on_the_path_is_one_500() {
        let outcome = catch_panic(async { panic!("a bug") }).await;
        let answer = answer(&outcome);
        assert_eq!(answer.status(), 500);
        assert_eq!(outcome.unwrap_err().code(), "bug");
    }
}
