//! Outcomes to answers: their exact bytes.

mod profile;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;

use super::rejection::Rejection;
use crate::handshake::HandshakeAnswer;
use crate::payload::inflate::InflateError;
use crate::queue::Receipt;
use crate::source;

/// The answer of every path of the public plane.
pub type Answer = Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What is answered with success.
#[derive(Debug)]
pub enum Accepted {
    /// A webhook whose job is durable.
    Job {
        /// The proof.
        receipt: Receipt,
        /// What its sender needs to read.
        answer: source::Answer,
    },
    /// A sender's trial of the URL; nothing was queued.
    Handshake(HandshakeAnswer),
}

impl Accepted {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Accepted::Job { answer, .. } => answer.status(),
            Accepted::Handshake(answer) => answer.status(),
        }
    }

    /// The outcome's name in metrics and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Accepted::Job { .. } => "accepted",
            Accepted::Handshake(_) => "handshake",
        }
    }
}

/// Writes the answer. A connection that many callers share (a trusted proxy's) isn't closed for one of them.
pub fn answer(outcome: Result<Accepted, Rejection>, is_shared: bool) -> Answer {
    match outcome {
        Ok(Accepted::Job { receipt, answer }) => profile::accept(answer, receipt.job, Timestamp::now),
        Ok(Accepted::Handshake(answer)) => answer.into_response(),
        Err(rejection) => reject(&rejection, is_shared),
    }
}

fn reject(rejection: &Rejection, is_shared: bool) -> Answer {
    let mut response = Response::new(Full::new(body_of(&rejection.to_string())));
    *response.status_mut() = rejection.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    if let Some(retry_after) = rejection.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(retry_after)));
    }
    if let Rejection::MethodNotAllowed { allow } = rejection
        && let Ok(allow) = HeaderValue::from_str(allow)
    {
        headers.insert(ALLOW, allow);
    }
    // RFC 9110, section 15.5.16: it tells a sender that its coding was refused from one whose content type was.
    if let Rejection::Encoding(InflateError::Unsupported(_)) = rejection {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
    }
    if rejection.leaves_body_unread() || (rejection.turns_caller_away() && !is_shared) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// `Retry-After` counts whole seconds (RFC 9110, section 10.2.3); none is never enough.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn body_of(error: &str) -> Bytes {
    let mut body = br#"{"result":false,"error":"#.to_vec();
    crate::job::write_string(&mut body, error);
    body.push(b'}');
    body.into()
}

/// The answer to a connection over the limit, for a socket on which no HTTP has been spoken yet.
pub fn overloaded_bytes() -> Vec<u8> {
    bytes_of("503 Service Unavailable", "retry-after: 5\r\n", &Rejection::Overloaded.to_string())
}

/// The answer to a head that came too slowly.
pub fn slow_head_bytes() -> Vec<u8> {
    bytes_of("408 Request Timeout", "", "The request's head didn't arrive in time")
}

fn bytes_of(status: &str, headers: &str, error: &str) -> Vec<u8> {
    let body = body_of(error);
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}
