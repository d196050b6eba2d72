//! What the tests of handshakes share: requests as short as a table needs them, answers as they go over the wire.

mod exchanges;
mod refusals;

use http::header::HeaderName;
use http_body_util::BodyExt;

use super::*;

/// The whole answer as it goes over the wire, but for what hyper adds: status, headers in order of name, body.
fn wire(answer: HandshakeAnswer) -> String {
    let response = answer.into_response();
    let (head, body) = response.into_parts();
    let mut headers: Vec<String> =
        head.headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect();
    headers.sort();
    let body = futures_util::FutureExt::now_or_never(body.collect()).unwrap().unwrap().to_bytes();
    format!("{}\n{}\n{}", head.status.as_u16(), headers.concat(), std::str::from_utf8(&body).unwrap())
}

fn text(body: &str) -> String {
    format!("200\ncontent-type: text/plain\nx-content-type-options: nosniff\n\n{body}")
}

fn json(body: &str) -> String {
    format!("200\ncontent-type: application/json\nx-content-type-options: nosniff\n\n{body}")
}

fn empty() -> String {
    "200\nx-content-type-options: nosniff\n\n".to_owned()
}

/// A request, as short as a table needs it.
#[derive(Debug, Clone, Default)]
struct Case {
    method: Method,
    query: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Case {
    fn get(query: &str) -> Case {
        Case { query: query.to_owned(), ..Case::default() }
    }

    fn bare(method: Method) -> Case {
        Case { method, ..Case::default() }
    }

    fn post(body: impl AsRef<[u8]>) -> Case {
        Case { method: Method::POST, body: body.as_ref().to_vec(), ..Case::default() }
    }

    fn header(mut self, name: &'static str, value: &str) -> Case {
        self.headers.append(HeaderName::from_static(name), value.parse().unwrap());
        self
    }

    fn ask(
        &self,
        handshake: Handshake,
        stage: Stage,
        settings: &HandshakeSettings,
    ) -> Result<Option<HandshakeAnswer>, Refused> {
        let Case { method, query, headers, body } = self;
        respond(&[handshake], stage, &Request { method, query, headers, body }, settings)
    }

    /// The answer, of which there must be one.
    fn answer(&self, handshake: Handshake, stage: Stage, settings: &HandshakeSettings) -> String {
        wire(self.ask(handshake, stage, settings).unwrap().expect("a handshake"))
    }
}

fn settings(secret: &str) -> HandshakeSettings {
    HandshakeSettings { secrets: vec![secret.into()], ..HandshakeSettings::default() }
}

fn token(token: &str) -> HandshakeSettings {
    HandshakeSettings { verify_token: Some(token.into()), ..HandshakeSettings::default() }
}

const NOTHING: HandshakeSettings =
    HandshakeSettings { secrets: Vec::new(), verify_token: None, public_url: None, account: None };

fn sns(kind: &str, url: &str) -> Case {
    Case::post(format!(
        r#"{{"Type":"{kind}","MessageId":"1","Token":"2","TopicArn":"arn:aws:sns:us-west-2:123456789012:MyTopic","Message":"m","SubscribeURL":"{url}","Timestamp":"2012-04-26T20:45:04.751Z","SignatureVersion":"1","Signature":"s","SigningCertURL":"c"}}"#
    ))
}

const SNS_URL: &str = "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:us-west-2:123456789012:MyTopic&Token=2336412f37";
