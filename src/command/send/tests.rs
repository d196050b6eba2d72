//! What `send` would send, read by the verifiers and presets that receive it.

use std::sync::Arc;

use clap::Parser;
use futures_util::FutureExt;
use http_body_util::BodyExt;

use super::super::{Command, CommandLine};
use super::*;
use crate::outbound::stand_in::StandIn;
use crate::signature::keys::KeyCache;
use crate::signature::{Unverified, Verified, Verifier};

const URL: &str = "https://hooks.example/integration/demo";

fn flags(arguments: &[&str]) -> SendArgs {
    let all = ["retrieve-gateway", "send"].iter().chain(arguments);
    match CommandLine::try_parse_from(all).unwrap().command {
        Some(Command::Send(flags)) => *flags,
        other => panic!("{other:?}"),
    }
}

fn sent(arguments: &[&str]) -> Result<Request<Full<Bytes>>, String> {
    request(&flags(arguments), Timestamp::now())
}

/// A request as it arrives.
struct Arrived {
    head: http::request::Parts,
    body: Bytes,
}

impl Arrived {
    fn of(request: Request<Full<Bytes>>) -> Arrived {
        let (head, body) = request.into_parts();
        Arrived { head, body: body.collect().now_or_never().unwrap().unwrap().to_bytes() }
    }

    fn verify(&self, preset: &Preset, secret: &str) -> Result<Verified, Unverified> {
        let verifier = Verifier::new(&preset.scheme, &[secret.into()], &Arc::<KeyCache>::default()).unwrap();
        verifier.verify(&SignedRequest {
            method: &self.head.method,
            uri: &self.head.uri,
            headers: &self.head.headers,
            body: &self.body,
            now: Timestamp::now(),
            public_url: Some(URL),
        })
    }
}

fn secret(name: &str) -> String {
    match name {
        "authorize-net" => "0123456789abcdef".repeat(8),
        "standard-webhooks" | "svix" => "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned(),
        "basic" => "user:a long password".to_owned(),
        _ => "a shared <secret> & more".to_owned(),
    }
}

/// For every preset whose secret suffices, the sample is verified, and event and id are found where the preset looks.
#[test]
fn every_sample_is_what_its_preset_expects() {
    let mut checked = Vec::new();
    for preset in presets() {
        let secret = secret(preset.name);
        let arguments = [
            URL,
            "--source",
            preset.name,
            "--event",
            "an.event",
            "--id",
            "an-id-of-ours",
            "--secret",
            &secret,
        ];
        let request = match sent(&arguments) {
            Ok(request) => request,
            Err(problem) => {
                let own = problem.contains("a key that only it has") || problem.contains("private key");
                assert!(own, "{}: {problem}", preset.name);
                continue;
            }
        };
        let arrived = Arrived::of(request);
        let verified = arrived.verify(preset, &secret);
        let verified = verified.unwrap_or_else(|unverified| panic!("{}: {unverified}", preset.name));
        assert!(verified.signed(), "{}", preset.name);
        let headers = &arrived.head.headers;
        if preset.event != crate::source::Locator::Nowhere {
            let event = preset.labels(headers, &verified).event;
            assert!(
                event.as_deref().is_some_and(|event| event.contains("an.event")),
                "{}: {event:?}",
                preset.name
            );
        }
        if preset.delivery_id != crate::source::Locator::Nowhere {
            assert!(preset.labels(headers, &verified).delivery_id.is_some(), "{}", preset.name);
        }
        checked.push(preset.name);
    }
    for name in
        ["shopify", "woocommerce", "stripe", "mailgun", "salesforce", "cxml", "ebay-platform", "twilio"]
    {
        assert!(checked.contains(&name), "{name} is none of {checked:?}");
    }
    assert!(checked.len() >= 40, "{}", checked.len());
}

#[test]
fn shopifys_sample_looks_like_shopifys() {
    let request = sent(&[URL, "--source", "shopify", "--secret", "a shared secret", "--id", "e-1"]).unwrap();
    let headers = request.headers();
    assert_eq!(headers["x-shopify-topic"], "orders/create");
    assert_eq!(headers["x-shopify-event-id"], "e-1");
    assert_eq!(headers["user-agent"], "Shopify-Captain-Hook");
    assert_eq!(headers["content-type"], "application/json");
    assert!(headers.contains_key("x-shopify-hmac-sha256") && !headers.contains_key("shopify-hmac-sha256"));
    assert!(!format!("{request:?}").contains("a shared secret"));
}

/// The published signature of Shopify's own tests, over a body from a file.
#[test]
fn a_body_of_the_users_is_sent_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("body.json");
    std::fs::write(&path, r#"{"foo": "bar"}"#).unwrap();
    let data = path.to_str().unwrap();
    let request = sent(&[URL, "--source", "shopify", "--secret", "test_secret_key", "--data", data]).unwrap();
    assert_eq!(request.headers()["x-shopify-hmac-sha256"], "B23tXN681gZ0qIWNRrgtzBE9XSDo5yaUu6wfmhu3a7g=");
    assert_eq!(Arrived::of(request).body, r#"{"foo": "bar"}"#);

    for (body, expect) in [
        ("<a/>", "application/xml"),
        (" [1]", "application/json"),
        ("a=1", "application/x-www-form-urlencoded"),
    ] {
        std::fs::write(&path, body).unwrap();
        assert_eq!(sent(&[URL, "--data", data]).unwrap().headers()["content-type"], expect);
    }
    let typed = sent(&[URL, "--data", data, "--content-type", "text/csv"]).unwrap();
    assert_eq!(typed.headers()["content-type"], "text/csv");
}

#[test]
fn a_secret_comes_from_a_file_or_the_environment_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "token-0123456789\n").unwrap();
    let from = format!("file:{}", path.display());
    let request = sent(&[URL, "--source", "bearer", "--secret", &from]).unwrap();
    assert_eq!(request.headers()["authorization"], "Bearer token-0123456789");
    // Every test has this one.
    let request = sent(&[URL, "--source", "bearer", "--secret", "env:CARGO_PKG_NAME"]).unwrap();
    assert_eq!(request.headers()["authorization"], "Bearer retrieve-gateway");
    for (from, expect) in
        [("env:RETRIEVE_NO_SUCH", "RETRIEVE_NO_SUCH"), ("file:/no/such", "/no/such"), ("", "it is empty")]
    {
        let problem = sent(&[URL, "--source", "bearer", "--secret", from]).unwrap_err();
        assert!(problem.contains(expect), "{problem}");
    }
}

#[test]
fn what_cannot_be_sent_is_said_in_words() {
    for (arguments, expect) in [
        (&["hooks.example"][..], "`hooks.example` isn't a URL; write http://host/integration/id"),
        (&["ftp://hooks.example/"], "isn't a URL"),
        (&[URL, "--source", "shopfy"], "there is no source `shopfy`; did you mean `shopify`?"),
        (&[URL, "--source", "shopify"], "shopify signs: give --secret (the app's API secret key"),
        (&[URL, "--source", "aws-sns", "--secret", "arn:aws:sns:x"], "a key that only it has"),
        (&[URL, "--source", "discord", "--secret", "00"], "signs with a private key"),
        (&[URL, "--source", "authorize-net", "--secret", "not hex"], "the secret isn't hexadecimal"),
        (&[URL, "--data", "/no/such/file"], "--data: /no/such/file: "),
        (&[URL, "--header", "no colon"], "a --header is written `name: value`"),
    ] {
        let problem = sent(arguments).unwrap_err();
        assert!(problem.contains(expect), "{arguments:?}: {problem}");
    }
}

#[test]
fn the_token_of_a_url_joins_the_query() {
    let url = format!("{URL}?a=b");
    let request = sent(&[&url, "--header", "x-more: 1"]).unwrap();
    assert_eq!(
        (request.uri().query(), &request.headers()["x-more"]),
        (Some("a=b"), &HeaderValue::from_static("1"))
    );
    assert_eq!(with_query(&url.parse().unwrap(), "token=x%26y").unwrap().query(), Some("a=b&token=x%26y"));
    assert_eq!(with_query(&URL.parse().unwrap(), "token=x").unwrap().query(), Some("token=x"));
}

#[test]
fn the_list_names_every_preset_and_its_secret() {
    let list = list();
    for preset in presets() {
        assert!(list.contains(&format!("{:<18} {}\n", preset.name, preset.title)), "{}", preset.name);
    }
    assert!(flags(&["--list"]).list);
    assert!(CommandLine::try_parse_from(["retrieve-gateway", "send"]).is_err(), "a URL or --list");
}

#[test]
fn an_answer_is_printed_without_commands_for_the_terminal() {
    let mut headers = HeaderMap::new();
    headers.insert("x-retrieve-job-id", HeaderValue::from_static("j"));
    let answer =
        Answer { status: http::StatusCode::OK, headers, body: Bytes::from_static(b"a\x1b[2Jb\xff\n") };
    assert_eq!(written(&answer), "200 OK\nx-retrieve-job-id: j\n\na[2Jb\u{fffd}\n");
}

/// By https with an authority of the user's, and from the name's addresses the one that answers.
#[tokio::test]
async fn a_private_authority_is_trusted_if_it_is_named() {
    let server = StandIn::start(&["localhost"], |request| {
        assert_eq!(request.headers()["authorization"], "Bearer token-0123456789");
        http::Response::new(Full::new(Bytes::from_static(b"taken")))
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, server.certificate_pem()).unwrap();
    let url = format!("https://localhost:{}/integration/demo?token=secret", server.address.port());
    let run = |more: &[&str]| {
        let all = [&[url.as_str(), "--source", "bearer", "--secret", "token-0123456789"], more].concat();
        let flags = flags(&all);
        tokio::task::spawn_blocking(move || exchange(&flags))
    };
    let answer = run(&["--ca", path.to_str().unwrap()]).await.unwrap().unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (200, &b"taken"[..]));
    let problem = run(&[]).await.unwrap().unwrap_err();
    assert!(problem.starts_with("no answer from localhost:") && problem.contains("TLS failed"), "{problem}");
    assert!(!problem.contains("token"), "{problem}");
    let problem = run(&["--ca", "Cargo.toml"]).await.unwrap().unwrap_err();
    assert!(problem.contains("it holds no certificate"), "{problem}");
}
