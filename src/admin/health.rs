//! `/live` and `/ready`, for orchestrators: liveness says that the process answers, readiness that it takes webhooks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;

use super::AdminState;
use crate::ingest::Context;
use crate::queue::Health;

/// Whether the public listener takes requests; off from the moment the process begins to stop.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    listening: Arc<AtomicBool>,
}

impl Readiness {
    /// Sets the listener's probe.
    pub fn set_listening(&self, listening: bool) {
        self.listening.store(listening, Ordering::Release);
    }

    fn listener(&self) -> Result<(), String> {
        if self.listening.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err("not listening, or stopping".to_owned())
        }
    }
}

/// The first app whose queue takes no jobs, and why; or else what there is to say of one that does.
pub(super) fn queue_health(context: &Context) -> Result<Option<String>, String> {
    context.apps.iter().try_fold(None, |note, app| match app.queue.health() {
        Health::Up => Ok(note),
        Health::Journaling(why) => Ok(Some(format!("jobs go to the outage journal: {why}"))),
        Health::Down(why) => Err(why),
    })
}

pub(super) async fn live() -> impl IntoResponse {
    Json(json!({ "live": true }))
}

pub(super) async fn ready(State(state): State<AdminState>) -> impl IntoResponse {
    let listener = state.readiness.listener().map(|()| None);
    let probes = [("listener", listener), ("queue", queue_health(&state.context))];
    let ready = probes.iter().all(|(_, result)| result.is_ok());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let probes: serde_json::Map<String, serde_json::Value> = probes
        .into_iter()
        .map(|(name, result)| {
            let probe = match result {
                Ok(None) => json!({ "ready": true }),
                Ok(Some(note)) => json!({ "ready": true, "note": note }),
                Err(why) => json!({ "ready": false, "why": why }),
            };
            (name.to_owned(), probe)
        })
        .collect();
    (status, Json(json!({ "ready": ready, "probes": probes })))
}
