//! The private plane: `/live`, `/ready`, `/metrics` for machines, `/api` for `tail` and for people.
//!
//! It runs on a thread and a runtime of its own, so that it answers when the public plane is busy.

pub mod access;
pub mod api;
pub mod health;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{Request, Response, StatusCode, header};
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use hyper::body::Incoming;
use secrecy::SecretString;
use tower::ServiceExt;

use crate::admin::health::Readiness;
use crate::ingest::Context;
use crate::telemetry::metrics;

/// What the private plane shows.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The apps and metrics of the public plane.
    pub context: Arc<Context>,
    /// Whether the process takes webhooks.
    pub readiness: Readiness,
    /// `RETRIEVE_ADMIN_TOKEN`.
    pub token: Option<Arc<SecretString>>,
}

/// The routes of the private plane.
pub fn router(state: AdminState) -> Router {
    let api = Router::new()
        .route("/jobs", get(api::jobs))
        .route("/jobs/ack", post(api::acknowledge))
        .route_layer(middleware::from_fn_with_state(state.clone(), access::require_access));
    Router::new()
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
        .route("/metrics", get(show_metrics))
        .nest("/api", api)
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .with_state(state)
}

/// The router as the service of one connection.
pub fn private_service(
    router: Router,
    peer: SocketAddr,
) -> impl tower::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send {
    tower::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    })
}

async fn show_metrics(State(state): State<AdminState>) -> impl IntoResponse {
    let queue_is_up = health::queue_health(&state.context).is_ok();
    if let Some(app) = state.context.apps.iter().next()
        && let Some(backlog) = app.queue.embedded_backlog().await
    {
        state.context.metrics.set_embedded_backlog(backlog);
    }
    let text = state.context.metrics.encode(state.context.memory.used_bytes(), queue_is_up);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text)
}

/// An error of the private plane.
fn problem(status: StatusCode, error: &str) -> Response<Body> {
    (status, axum::Json(serde_json::json!({ "error": error }))).into_response()
}
