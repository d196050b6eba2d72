//! Why a request is refused: the one public error type of the path.
//!
//! `Display` is the text that the caller sees; what only the operator should know goes to the log by `detail`. All
//! four tables below name every variant, so a new one can't slip into somebody else's answer.

#![deny(clippy::wildcard_enum_match_arm)]

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;

use super::body::BodyError;
use super::client_address::Untraceable;
use super::conversions::NoTurn;
use super::route::Unrouted;
use crate::admission;
use crate::handshake::Refused;
use crate::payload::PayloadError;
use crate::payload::inflate::InflateError;
use crate::queue::QueueError;
use crate::signature::Unverified;

/// A refused request.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// There is nothing at the path.
    #[error("There is nothing at this path; webhooks go to POST /integration/<id> or /integration/<id>/xml")]
    UnknownPath,
    /// The path is known, but not for this method.
    #[error("This method isn't allowed here; webhooks are sent with POST")]
    MethodNotAllowed {
        /// The value of `Allow`.
        allow: String,
    },
    /// The proxies' headers name no client.
    #[error(transparent)]
    UntraceableClient(#[from] Untraceable),
    /// The caller is on no allowlist.
    #[error("This domain/IP ({0}) isn't authorized on Retrieve")]
    CallerNotAllowed(IpAddr),
    /// It couldn't be found out in time whether the caller belongs to a listed domain.
    #[error(
        "Whether this domain/IP ({0}) is authorized on Retrieve couldn't be looked up in time; send the webhook again later"
    )]
    CallerUndecided(IpAddr),
    /// The app has no such integration.
    #[error("Integration ({0}) doesn't exist on Retrieve")]
    UnknownIntegration(String),
    /// The integration is switched off.
    #[error("Integration ({0}) is disabled on Retrieve")]
    DisabledIntegration(String),
    /// The integration's rate is used up.
    #[error("Integration ({id}) gets more webhooks than its rate allows; send this one again later")]
    RateLimited {
        /// The integration.
        id: String,
        /// When it may be sent again.
        retry_after: Duration,
    },
    /// The body is larger than the limit.
    #[error("The body is larger than {0} bytes")]
    BodyTooLarge(usize),
    /// The body came too slowly.
    #[error("The body didn't arrive within {} seconds", .0.as_secs_f32())]
    BodyTooSlow(Duration),
    /// The body ended early or its chunks are malformed.
    #[error("The body ended early or its transfer coding is malformed")]
    BrokenBody(#[source] hyper::Error),
    /// A required signature or credential is missing or wrong; why is for the log alone.
    #[error("The webhook signature is missing or doesn't match")]
    Unverified(#[source] Unverified),
    /// The sender's public key isn't here yet.
    #[error("The sender's public key couldn't be fetched in time; send the webhook again later")]
    KeyUnavailable,
    /// A handshake that must not be answered.
    #[error(transparent)]
    Handshake(#[from] Refused),
    /// What `Content-Encoding` says can't be undone.
    #[error(transparent)]
    Encoding(InflateError),
    /// The payload can't become JSON.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The gateway holds as many bodies as it may, or works on as many.
    #[error("The gateway is overloaded; send the webhook again later")]
    Overloaded,
    /// The queue can't take the job.
    #[error("The queue can't take the job now; send the webhook again later")]
    Queue(#[from] QueueError),
    /// A bug of the gateway.
    #[error("The gateway failed on this request; the failure was logged")]
    Bug,
}

/// Whose doing a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller sent something that can't be accepted.
    Caller,
    /// The gateway or its queue can't accept anything now.
    Service,
    /// The gateway is wrong.
    Bug,
}

/// How long a caller should wait when the queue or the gateway can't take its webhook.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long when a domain or a key is still being looked up: longer than that takes where the network works.
const LOOK_UP_RETRY_AFTER: Duration = Duration::from_secs(2);

impl Rejection {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Rejection::UnknownPath | Rejection::UnknownIntegration(_) => StatusCode::NOT_FOUND,
            Rejection::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Rejection::UntraceableClient(_) | Rejection::BrokenBody(_) => StatusCode::BAD_REQUEST,
            Rejection::CallerNotAllowed(_) | Rejection::DisabledIntegration(_) => StatusCode::FORBIDDEN,
            Rejection::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Rejection::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Rejection::BodyTooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Rejection::Unverified(_) => StatusCode::UNAUTHORIZED,
            Rejection::Handshake(Refused::VerifyToken) => StatusCode::FORBIDDEN,
            Rejection::Handshake(Refused::Challenge) => StatusCode::BAD_REQUEST,
            Rejection::Handshake(Refused::Settings) => StatusCode::UNAUTHORIZED,
            Rejection::Payload(PayloadError::Malformed { .. } | PayloadError::Empty) => {
                StatusCode::BAD_REQUEST
            }
            Rejection::Payload(
                PayloadError::ContentType(_) | PayloadError::Charset(_) | PayloadError::File(_),
            ) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Rejection::Encoding(InflateError::Unsupported(_)) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Rejection::Encoding(InflateError::Malformed(_)) => StatusCode::BAD_REQUEST,
            Rejection::Encoding(InflateError::TooLarge(_) | InflateError::TooDense(_)) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Rejection::CallerUndecided(_)
            | Rejection::KeyUnavailable
            | Rejection::Overloaded
            | Rejection::Encoding(InflateError::NoMemory)
            | Rejection::Queue(_) => StatusCode::SERVICE_UNAVAILABLE,
            Rejection::Bug => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The outcome's name in metrics and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Rejection::UnknownPath => "unknown_path",
            Rejection::MethodNotAllowed { .. } => "method_not_allowed",
            Rejection::UntraceableClient(_) => "untraceable_client",
            Rejection::CallerNotAllowed(_) => "caller_not_allowed",
            Rejection::CallerUndecided(_) => "caller_undecided",
            Rejection::UnknownIntegration(_) => "unknown_integration",
            Rejection::DisabledIntegration(_) => "disabled_integration",
            Rejection::RateLimited { .. } => "rate_limited",
            Rejection::BodyTooLarge(_) => "body_too_large",
            Rejection::BodyTooSlow(_) => "body_too_slow",
            Rejection::BrokenBody(_) => "broken_body",
            Rejection::Unverified(unverified) => unverified.code(),
            Rejection::KeyUnavailable => "key_unavailable",
            Rejection::Handshake(_) => "refused_handshake",
            Rejection::Payload(PayloadError::Malformed { .. } | PayloadError::Empty) => "malformed_payload",
            Rejection::Payload(PayloadError::ContentType(_) | PayloadError::Charset(_)) => {
                "unsupported_content_type"
            }
            Rejection::Payload(PayloadError::File(_)) => "unsupported_file",
            Rejection::Encoding(InflateError::Unsupported(_)) => "unsupported_content_encoding",
            Rejection::Encoding(InflateError::Malformed(_)) => "malformed_payload",
            Rejection::Encoding(InflateError::TooLarge(_) | InflateError::TooDense(_)) => "body_too_large",
            Rejection::Overloaded | Rejection::Encoding(InflateError::NoMemory) => "overloaded",
            Rejection::Queue(QueueError::Unavailable(_)) => "queue_unavailable",
            Rejection::Queue(QueueError::Full) => "queue_full",
            Rejection::Queue(QueueError::Busy) => "queue_busy",
            Rejection::Queue(QueueError::Unconfirmed) => "queue_unconfirmed",
            Rejection::Bug => "bug",
        }
    }

    /// When the caller should send the webhook again, where that would help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Rejection::RateLimited { retry_after, .. } => Some(*retry_after),
            Rejection::CallerUndecided(_) | Rejection::KeyUnavailable => Some(LOOK_UP_RETRY_AFTER),
            Rejection::Overloaded | Rejection::Queue(_) => Some(BUSY_RETRY_AFTER),
            Rejection::UnknownPath
            | Rejection::MethodNotAllowed { .. }
            | Rejection::UntraceableClient(_)
            | Rejection::CallerNotAllowed(_)
            | Rejection::UnknownIntegration(_)
            | Rejection::DisabledIntegration(_)
            | Rejection::BodyTooLarge(_)
            | Rejection::BodyTooSlow(_)
            | Rejection::BrokenBody(_)
            | Rejection::Unverified(_)
            | Rejection::Handshake(_)
            | Rejection::Encoding(_)
            | Rejection::Payload(_)
            | Rejection::Bug => None,
        }
    }

    /// Whose doing it is; decides the level of the log line.
    pub fn fault(&self) -> Fault {
        match self {
            Rejection::UnknownPath
            | Rejection::MethodNotAllowed { .. }
            | Rejection::UntraceableClient(_)
            | Rejection::CallerNotAllowed(_)
            | Rejection::UnknownIntegration(_)
            | Rejection::DisabledIntegration(_)
            | Rejection::RateLimited { .. }
            | Rejection::BodyTooLarge(_)
            | Rejection::BodyTooSlow(_)
            | Rejection::BrokenBody(_)
            | Rejection::Unverified(_)
            | Rejection::Handshake(_)
            | Rejection::Encoding(_)
            | Rejection::Payload(_) => Fault::Caller,
            Rejection::CallerUndecided(_)
            | Rejection::KeyUnavailable
            | Rejection::Overloaded
            | Rejection::Queue(_) => Fault::Service,
            Rejection::Bug => Fault::Bug,
        }
    }

    /// What the log says beyond the public text.
    pub fn detail(&self) -> String {
        if let Rejection::Queue(error) = self {
            return error.to_string();
        }
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }

    /// Whether the caller has no business here, so that it shall keep no place among the connections.
    pub fn turns_caller_away(&self) -> bool {
        matches!(
            self,
            Rejection::UnknownPath | Rejection::UntraceableClient(_) | Rejection::CallerNotAllowed(_)
        )
    }

    /// Whether bytes of the body may still be on their way, so that the connection can't be used again.
    pub fn leaves_body_unread(&self) -> bool {
        matches!(
            self,
            Rejection::BodyTooLarge(_)
                | Rejection::BodyTooSlow(_)
                | Rejection::BrokenBody(_)
                | Rejection::Overloaded
                | Rejection::Bug
        )
    }

    /// What admission refused, told about this integration and this client.
    pub fn from_admission(refusal: admission::Refusal, id: &str, client: IpAddr) -> Rejection {
        match refusal {
            admission::Refusal::Caller => Rejection::CallerNotAllowed(client),
            admission::Refusal::Undecided => Rejection::CallerUndecided(client),
            admission::Refusal::UnknownIntegration => Rejection::UnknownIntegration(id.to_owned()),
            admission::Refusal::Disabled => Rejection::DisabledIntegration(id.to_owned()),
            admission::Refusal::Rate(retry_after) => {
                Rejection::RateLimited { id: id.to_owned(), retry_after }
            }
        }
    }
}

impl From<Unrouted> for Rejection {
    fn from(unrouted: Unrouted) -> Self {
        match unrouted {
            Unrouted::Path => Rejection::UnknownPath,
            Unrouted::Method => Rejection::MethodNotAllowed { allow: "POST".to_owned() },
        }
    }
}

impl From<BodyError> for Rejection {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge(limit) => Rejection::BodyTooLarge(limit),
            BodyError::TooSlow(timeout) => Rejection::BodyTooSlow(timeout),
            BodyError::Broken(error) => Rejection::BrokenBody(error),
            BodyError::NoMemory => Rejection::Overloaded,
        }
    }
}

impl From<NoTurn> for Rejection {
    fn from(_: NoTurn) -> Self {
        Rejection::Overloaded
    }
}

impl From<Unverified> for Rejection {
    fn from(unverified: Unverified) -> Self {
        if unverified.is_temporary() { Rejection::KeyUnavailable } else { Rejection::Unverified(unverified) }
    }
}

impl From<InflateError> for Rejection {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::NoMemory => Rejection::Overloaded,
            InflateError::Unsupported(_)
            | InflateError::Malformed(_)
            | InflateError::TooLarge(_)
            | InflateError::TooDense(_) => Rejection::Encoding(error),
        }
    }
}
