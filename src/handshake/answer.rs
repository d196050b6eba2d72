//! The answer to a handshake, and what an operator should know of it.

use std::fmt;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;

use crate::source::Handshake;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// The answer to a handshake.
#[derive(Debug, Clone)]
pub struct HandshakeAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) notice: Option<Notice>,
    pub(super) handshake: Option<Handshake>,
}

impl HandshakeAnswer {
    /// 200 with nothing in it.
    pub(super) fn empty() -> HandshakeAnswer {
        HandshakeAnswer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            notice: None,
            handshake: None,
        }
    }

    pub(super) fn text(body: impl Into<Bytes>) -> HandshakeAnswer {
        HandshakeAnswer { body: body.into(), ..HandshakeAnswer::empty() }.with(CONTENT_TYPE, TEXT)
    }

    /// The pieces are JSON already.
    pub(super) fn json(body: impl Into<Bytes>) -> HandshakeAnswer {
        HandshakeAnswer { body: body.into(), ..HandshakeAnswer::empty() }.with(CONTENT_TYPE, JSON)
    }

    /// 204, which Discord wants together with a content type.
    pub(super) fn no_content() -> HandshakeAnswer {
        HandshakeAnswer { status: StatusCode::NO_CONTENT, ..HandshakeAnswer::empty() }
            .with(CONTENT_TYPE, JSON)
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> HandshakeAnswer {
        self.headers.insert(name, value);
        self
    }

    pub(super) fn allowing(self, methods: &'static str) -> HandshakeAnswer {
        self.with(ALLOW, HeaderValue::from_static(methods))
    }

    pub(super) fn noting(mut self, notice: Notice) -> HandshakeAnswer {
        self.notice = Some(notice);
        self
    }

    /// Which handshake is answered.
    pub fn handshake(&self) -> Option<Handshake> {
        self.handshake
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What an operator should know, or a worker do.
    pub fn notice(&self) -> Option<&Notice> {
        self.notice.as_ref()
    }

    /// The response, which no browser takes for anything but its declared type.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        response
    }
}

/// What a handshake leaves to be done.
///
/// `Display` is for the log. It shows the URL that has to be visited: that isn't a secret of ours, and without it
/// nobody could finish the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The settings name the topic and the URL is the sender's: a worker may visit it.
    Confirm {
        /// On the sender's own host, by https.
        url: String,
    },
    /// An operator has to decide, and to visit the URL.
    ConfirmByHand {
        /// The sender.
        sender: &'static str,
        /// On the sender's own host, by https.
        url: String,
    },
    /// The sender has ended the subscription; its webhooks have stopped.
    Unsubscribed {
        /// The ARN of the topic.
        topic: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Confirm { .. } => formatter.write_str("the subscription is being confirmed"),
            Notice::ConfirmByHand { sender, url } => {
                write!(
                    formatter,
                    "{sender} waits until somebody visits {url}; do so if you want its webhooks"
                )
            }
            Notice::Unsubscribed { topic } => {
                write!(formatter, "the subscription of {topic} has ended; no more webhooks will come of it")
            }
        }
    }
}
