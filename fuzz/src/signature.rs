//! What proves a sender: signatures, handshakes, and the keys that come over the network.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{Method, Uri};
use jiff::Timestamp;
use retrieve_gateway::handshake::{self, ANSWER_LIMIT_BYTES, HandshakeSettings, Stage};
use retrieve_gateway::signature::keys::{KeyCache, KeyUrl, is_sns_url};
use retrieve_gateway::signature::{PublicKey, SignedRequest, Verifier};
use retrieve_gateway::source::{Preset, preset, presets};
use secrecy::SecretString;

use super::{first_line, headers_and_body};

/// 2025-12-10T14:30:00Z
const NOW_SECONDS: i64 = 1_765_377_000;

/// Secrets in every form; a preset gets those that it can read.
const SECRETS: [&str; 9] = [
    "a-secret-of-the-tests",
    "whsec_YS1zZWNyZXQtb2YtdGhlLXRlc3Rz",
    "YS1zZWNyZXQtb2YtdGhlLXRlc3Rz",
    "612d7365637265742d6f662d7468652d7465737473",
    "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "-----BEGIN PUBLIC KEY-----MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEZhhxXKtR+TOvtDbgTPCkSof02qgBB7IsYOyf76ilExJ/upAa/vKIKheOoCyOpcLmi4t0b4uepb7LLjmMr90FUg==-----END PUBLIC KEY-----",
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEZhhxXKtR+TOvtDbgTPCkSof02qgBB7IsYOyf76ilExJ/upAa/vKIKheOoCyOpcLmi4t0b4uepb7LLjmMr90FUg==",
    include_str!("../../tests/it/fixtures/signatures/rsa_public.pem"),
];

struct Sender {
    preset: &'static Preset,
    verifier: Verifier,
}

static SENDERS: LazyLock<Vec<Sender>> = LazyLock::new(|| {
    let keys = Arc::new(KeyCache::default());
    let senders: Vec<Sender> = presets()
        .map(|preset| {
            let verifier = SECRETS.iter().find_map(|secret| verifier(preset, secret, &keys));
            Sender { preset, verifier: verifier.unwrap_or_else(|| panic!("{} has no secret", preset.name)) }
        })
        .collect();
    senders
});

fn verifier(preset: &Preset, secret: &str, keys: &Arc<KeyCache>) -> Option<Verifier> {
    Verifier::new(&preset.scheme, &[SecretString::from(secret)], keys).ok()
}

/// A line `<preset> <path>`, headers, an empty line, a body; without a preset, every one of them. A signature that
/// verifies a body doesn't verify another one.
pub fn signature(input: &[u8]) {
    let (line, rest) = first_line(input);
    let (name, uri) = name_and_uri(line);
    let (headers, body) = headers_and_body(rest);
    let one = preset(&name);
    for sender in SENDERS.iter().filter(|sender| one.is_none_or(|one| one.name == sender.preset.name)) {
        let verify = |body: &[u8]| {
            let body = Bytes::copy_from_slice(body);
            let request = SignedRequest {
                method: &Method::POST,
                uri: &uri,
                headers: &headers,
                body: &body,
                now: Timestamp::new(NOW_SECONDS, 0).expect("a time"),
                public_url: Some("https://hooks.example.com/integration/demo"),
            };
            sender.verifier.verify(&request)
        };
        let Ok(verified) = verify(body) else { continue };
        assert_eq!(verified.body(), body);
        if verified.proof().is_some_and(|proof| proof.covers_body) {
            assert!(
                verify(&[body, b" "].concat()).is_err(),
                "{}: a signature of two bodies",
                sender.preset.name
            );
        }
    }
}

fn name_and_uri(line: &[u8]) -> (String, Uri) {
    let line = String::from_utf8_lossy(line);
    let (name, path) = line.split_once(' ').unwrap_or((&line, ""));
    let uri = path.parse().unwrap_or_else(|_| Uri::from_static("/integration/demo"));
    (name.to_owned(), uri)
}

/// A line `<preset> <path>`, headers, an empty line, a body. An answer is small, and has no line end in a header.
pub fn handshake(input: &[u8]) {
    let (line, rest) = first_line(input);
    let (name, uri) = name_and_uri(line);
    let (headers, body) = headers_and_body(rest);
    let settings = HandshakeSettings {
        secrets: vec![SecretString::from(SECRETS[0])],
        verify_token: Some(SecretString::from("a-token-of-the-tests")),
        public_url: Some("https://hooks.example.com/integration/demo".to_owned()),
        account: Some("an-account".to_owned()),
    };
    let one = preset(&name);
    for preset in presets().filter(|preset| one.is_none_or(|one| one.name == preset.name)) {
        for (stage, method) in [
            (Stage::Head, Method::GET),
            (Stage::Head, Method::HEAD),
            (Stage::Head, Method::OPTIONS),
            (Stage::Received, Method::POST),
            (Stage::Verified, Method::POST),
        ] {
            let query = uri.query().unwrap_or("");
            let request = handshake::Request { method: &method, query, headers: &headers, body };
            let Ok(Some(answer)) = handshake::respond(preset.handshakes, stage, &request, &settings) else {
                continue;
            };
            assert!(handshake::takes(preset.handshakes, &method) || method == Method::POST);
            let response = answer.into_response();
            let length = body_length(&response);
            assert!(length <= ANSWER_LIMIT_BYTES, "{}: {length} bytes", preset.name);
            assert!(response.status().as_u16() < 500, "{}", preset.name);
        }
    }
}

fn body_length<B: hyper::body::Body>(response: &http::Response<B>) -> usize {
    usize::try_from(response.body().size_hint().exact().expect("a whole body")).expect("a length")
}

/// A fetched document, PEM or DER: the key is found alike in both.
pub fn key_document(input: &[u8]) {
    let from_der = PublicKey::from_der(input);
    let from_pem = std::str::from_utf8(input).ok().and_then(PublicKey::from_pem);
    assert!(from_der.is_none() || from_pem.is_none(), "DER and PEM at once");
    let now = Timestamp::new(NOW_SECONDS, 0).expect("a time");
    for url in [
        KeyUrl::sns("https://sns.us-west-2.amazonaws.com/x.pem"),
        KeyUrl::adobe_io("/prod/keys/pub-key-x.pem"),
        KeyUrl::paypal("https://api.paypal.com/v1/notifications/certs/x"),
    ] {
        let (cache, url) = (KeyCache::default(), url.expect("a URL"));
        let taken = cache.insert(&url, input, now).is_ok();
        assert_eq!(taken, from_pem.is_some());
        assert_eq!(cache.key(&url, now).as_deref(), from_pem.as_ref());
    }
    let _ = KeyCache::default().insert(&KeyUrl::ebay("x").expect("an id"), input, now);
}

/// What a request says of where its key is. A URL that is taken leads by HTTPS to its sender's host, as another reader of
/// URLs sees it.
pub fn key_url(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let is_paypal = |host: &str| matches!(host, "api.paypal.com" | "api.sandbox.paypal.com");
    let is_sns = |host: &str| {
        host.starts_with("sns.") && (host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn"))
    };
    type IsHost<'f> = &'f dyn Fn(&str) -> bool;
    let urls: [(_, IsHost<'_>); 4] = [
        (KeyUrl::adobe_io(text), &|host| host == "static.adobeioevents.com"),
        (KeyUrl::paypal(text), &is_paypal),
        (KeyUrl::sns(text), &is_sns),
        (KeyUrl::ebay(text), &|host| host == "api.ebay.com"),
    ];
    for (url, is_host) in &urls {
        let Ok(url) = url else { continue };
        let uri: Uri = url.as_str().parse().expect("a URL");
        assert_eq!(uri.scheme_str(), Some("https"));
        let authority = uri.authority().expect("a host");
        assert_eq!(authority.as_str(), authority.host(), "neither a port nor a user");
        assert!(is_host(authority.host()), "{authority}");
        assert_eq!(uri.query(), None);
        assert!(!uri.path().contains("..") && !uri.path().contains('%'), "{uri}");
    }
    if is_sns_url(text) {
        let uri: Uri = text.parse().expect("a URL");
        let authority = uri.authority().expect("a host");
        assert!(uri.scheme_str() == Some("https") && is_sns(authority.as_str()), "{authority}");
    }
}
