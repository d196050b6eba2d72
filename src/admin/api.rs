//! `GET /api/jobs`: the queue, read in order. `POST /api/jobs/ack`: what of it was handled.
//!
//! `?after=<position>` (`0` is the begin, the default; `$` the end as it is now), `&limit=` (100, up to 1000),
//! `&wait=10s` (up to 30 s: waits for a first job). The answer is one JSON object a line,
//! `{"id":"<position>","job":{…}}`; the header `x-retrieve-last-id` holds the position to read on from. At the end the
//! page is empty, and that position is where it was.
//!
//! The body of an acknowledgement is `{"last":"<position>"}`: everything up to this position was handled. It is
//! answered `{"acknowledged":"<position>"}` once that is durable; from then on reading begins behind it. To
//! acknowledge again, or less, changes nothing, and the answer is the position that counts. The content type has to be
//! `application/json`, which a page in a browser on this machine can't send to another site unasked.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Query, State};
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;

use super::{AdminState, problem};
use crate::job::{one_line, write_string};
use crate::queue::{AcknowledgeError, Page, ReadError, ReadRequest, START};

/// The header with the position to read on from.
pub const LAST_ID: &str = "x-retrieve-last-id";

/// Stands for the end of the queue.
pub const END: &str = "$";

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
const MAX_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobsQuery {
    after: Option<String>,
    limit: Option<usize>,
    wait: Option<String>,
}

pub(super) async fn jobs(
    State(state): State<AdminState>,
    query: Result<Query<JobsQuery>, axum::extract::rejection::QueryRejection>,
) -> Response<Body> {
    let request = match query.map_err(|error| error.body_text()).and_then(|Query(query)| read_request(query))
    {
        Ok(request) => request,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error),
    };
    // One app to a process today; several will be told apart by a parameter.
    let Some(app) = state.context.apps.iter().next() else {
        return problem(StatusCode::NOT_FOUND, "there is no app");
    };
    match app.queue.read(request).await {
        Ok(page) => lines(&page).into_response(),
        Err(error @ ReadError::Position(_)) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(error @ ReadError::Unavailable(_)) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Acknowledgement {
    last: String,
}

pub(super) async fn acknowledge(
    State(state): State<AdminState>,
    body: Result<Json<Acknowledgement>, JsonRejection>,
) -> Response<Body> {
    let Json(acknowledgement) = match body {
        Ok(body) => body,
        Err(error) => return problem(error.status(), &error.body_text()),
    };
    let Some(app) = state.context.apps.iter().next() else {
        return problem(StatusCode::NOT_FOUND, "there is no app");
    };
    match app.queue.acknowledge(&acknowledgement.last).await {
        Ok(position) => Json(serde_json::json!({ "acknowledged": position })).into_response(),
        Err(error) => problem(status_of(&error), &error.to_string()),
    }
}

fn status_of(error: &AcknowledgeError) -> StatusCode {
    match error {
        AcknowledgeError::Position(_) | AcknowledgeError::BeyondEnd(_) => StatusCode::BAD_REQUEST,
        AcknowledgeError::Elsewhere => StatusCode::CONFLICT,
        AcknowledgeError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn read_request(query: JobsQuery) -> Result<ReadRequest, String> {
    let wait = match query.wait.as_deref() {
        None | Some("0") => Duration::ZERO,
        Some(text) => {
            let wait =
                humantime::parse_duration(text).map_err(|_| "wait is a duration such as 10s".to_owned())?;
            wait.min(MAX_WAIT)
        }
    };
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if limit == 0 || limit > MAX_LIMIT {
        return Err(format!("limit is a number from 1 to {MAX_LIMIT}"));
    }
    let after = query.after.unwrap_or_else(|| START.to_owned());
    Ok(ReadRequest { after: (after != END).then_some(after), limit, wait })
}

fn lines(page: &Page) -> impl IntoResponse {
    let mut body = Vec::new();
    for entry in &page.entries {
        body.extend_from_slice(b"{\"id\":");
        write_string(&mut body, &entry.position);
        body.extend_from_slice(b",\"job\":");
        body.extend_from_slice(&one_line(&entry.document));
        body.extend_from_slice(b"}\n");
    }
    ([(header::CONTENT_TYPE.as_str(), "application/x-ndjson"), (LAST_ID, page.last.as_str())], body)
        .into_response()
}
