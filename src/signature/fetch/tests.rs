//! The worker against a stand-in for the senders' hosts, with keys made for the test.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, Response, Uri};
use hyper::body::Incoming;

use super::super::scheme::Scheme;
use super::super::{Reason, SignedRequest, Verifier};
use super::*;
use crate::outbound::stand_in::StandIn;
use crate::outbound::{Reach, Trust};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

const HOSTS: [&str; 4] =
    ["static.adobeioevents.com", "api.paypal.com", "sns.us-east-1.amazonaws.com", "api.ebay.com"];

fn answer(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

fn public_key_pem() -> String {
    use rcgen::PublicKeyData;
    let key = rcgen::KeyPair::generate().unwrap();
    pem("PUBLIC KEY", &key.subject_public_key_info())
}

fn pem(label: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        super::super::Encoding::Base64.encode(der)
    )
}

fn certificate_pem() -> String {
    rcgen::generate_simple_self_signed(["messages.example".to_owned()]).unwrap().cert.pem()
}

struct Running {
    keys: Keys,
    server: StandIn,
    _worker: tokio_util::task::AbortOnDropHandle<()>,
}

/// A worker whose senders are all the stand-in.
async fn running(
    ebay: Option<EbayApplication>,
    handler: impl Fn(&http::Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
) -> Running {
    let server = StandIn::start(&HOSTS, handler).await;
    let (keys, worker) = KeyFetcher::new(Arc::default(), server.client(), ebay, KeyMetrics::default());
    let worker = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(worker.run()));
    Running { keys, server, _worker: worker }
}

impl Running {
    fn has(&self, url: &KeyUrl) -> bool {
        self.keys.cache().key(url, Timestamp::now()).is_some()
    }

    /// Asks for a key until it is there.
    async fn get(&self, url: &KeyUrl) {
        let mut arrivals = self.keys.arrivals();
        while !self.has(url) {
            assert!(arrivals.next(Instant::now() + PATIENCE).await, "{url:?} didn't come");
        }
    }

    /// Waits until the stand-in was asked so often.
    async fn asked(&self, times: usize) {
        let mut asked = self.server.asked.clone();
        let often = tokio::time::timeout(PATIENCE, asked.wait_for(|asked| asked.len() >= times)).await;
        assert!(often.is_ok(), "asked {:?}", self.server.asked());
    }
}

fn application() -> EbayApplication {
    EbayApplication { client_id: "app".to_owned(), client_secret: "canary-secret".into() }
}

#[tokio::test]
async fn a_wanted_key_is_fetched_from_its_senders_host() {
    let running = running(None, |request| match request.uri().path() {
        "/prod/keys/pub-key-1.pem" => answer(200, public_key_pem()),
        _ => answer(200, certificate_pem()),
    })
    .await;
    for (url, asked) in [
        (KeyUrl::adobe_io("/prod/keys/pub-key-1.pem"), "static.adobeioevents.com/prod/keys/pub-key-1.pem"),
        (
            KeyUrl::paypal("https://api.paypal.com/v1/notifications/certs/CERT-1"),
            "api.paypal.com/v1/notifications/certs/CERT-1",
        ),
        (KeyUrl::sns("https://sns.us-east-1.amazonaws.com/S.pem"), "sns.us-east-1.amazonaws.com/S.pem"),
    ] {
        running.get(&url.unwrap()).await;
        assert_eq!(running.server.asked().last().unwrap(), asked);
    }
}

/// Eight requests want one key at once: it is asked for once, and is there for all of them.
#[tokio::test]
async fn a_key_is_fetched_once_for_all_who_wait() {
    let running = running(None, |_| answer(200, public_key_pem())).await;
    let url = KeyUrl::adobe_io("/prod/keys/pub-key-1.pem").unwrap();
    let waiting = (0..8).map(|_| running.get(&url));
    futures_util::future::join_all(waiting).await;
    assert_eq!(running.server.asked().len(), 1);
}

#[tokio::test]
async fn what_is_no_key_is_not_taken_and_rests() {
    let document = Arc::new(AtomicU64::new(0));
    let current = Arc::clone(&document);
    let running = running(None, move |_| match current.load(Ordering::SeqCst) {
        0 => answer(404, public_key_pem()),
        1 => answer(500, ""),
        2 => answer(200, ""),
        3 => answer(200, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
        4 => answer(200, public_key_pem() + &" ".repeat(DOCUMENT_LIMIT_BYTES)),
        _ => Response::builder()
            .status(302)
            .header("location", "https://static.adobeioevents.com/prod/keys/other.pem")
            .body(Full::new(public_key_pem().into()))
            .unwrap(),
    })
    .await;
    for case in 0..=5 {
        document.store(case, Ordering::SeqCst);
        let url = KeyUrl::adobe_io(&format!("/prod/keys/pub-key-{case}.pem")).unwrap();
        assert!(!running.has(&url));
        let asked = usize::try_from(case).unwrap() + 1;
        running.asked(asked).await;
        // It rests, so wanting it again asks nobody; the next key is asked for all the same.
        assert!(!running.has(&url) && !running.has(&url), "{case}");
    }
    assert_eq!(running.server.asked().len(), 6, "one request each, and no redirect followed");
}

/// The first webhook of eBay's own test, from "no key yet" to "verified", by a key that is fetched with a token.
#[tokio::test]
async fn a_first_webhook_waits_for_its_key() {
    const KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEZhhxXKtR+TOvtDbgTPCkSof02qgBB7IsYOyf76ilExJ/upAa/vKIKheOoCyOpcLmi4t0b4uepb7LLjmMr90FUg==";
    const SIGNATURE: &str = "eyJhbGciOiJlY2RzYSIsImtpZCI6Ijk5MzYyNjFhLTdkN2ItNDYyMS1hMGYxLTk2Y2NiNDI4YWY0OSIsInNpZ25hdHVyZSI6Ik1FWUNJUUNmeGZJV3V4bVdjSUJRSjljNS9YN2lHREpxczJSQ0dzQkVhQWppbnlycmZBSWhBSVY2d0djVGlCdVY1S0pVaWYyaG9reXJMK1E5c3NIa2FkK214Mm5FRTI1dyIsImRpZ2VzdCI6IlNIQTEifQ==";
    const BODY: &[u8] = br#"{"metadata":{"topic":"MARKETPLACE_ACCOUNT_DELETION","schemaVersion":"1.0","deprecated":false},"notification":{"notificationId":"49feeaeb-4982-42d9-a377-9645b8479411_33f7e043-fed8-442b-9d44-791923bd9a6d","eventDate":"2021-03-19T20:43:59.462Z","publishDate":"2021-03-19T20:43:59.679Z","publishAttemptCount":1,"data":{"username":"test_user","userId":"ma8vp1jySJC","eiasToken":"nY+sHZ2PrBmdj6wVnY+sEZ2PrA2dj6wJnY+gAZGEpwmdj6x9nY+seQ=="}}}"#;
    let running = running(Some(application()), |request| match request.uri().path() {
        "/identity/v1/oauth2/token" => {
            assert_eq!(request.headers()["authorization"], "Basic YXBwOmNhbmFyeS1zZWNyZXQ=");
            answer(200, r#"{"access_token":"canary-token","expires_in":7200,"token_type":"Application"}"#)
        }
        _ => {
            assert_eq!(request.headers()["authorization"], "Bearer canary-token");
            let key = format!("-----BEGIN PUBLIC KEY-----{KEY}-----END PUBLIC KEY-----");
            answer(200, format!(r#"{{"algorithm":"ECDSA","digest":"SHA1","key":"{key}"}}"#))
        }
    })
    .await;

    let verifier =
        Verifier::new(&Scheme::Ebay, &["a-verification-token".into()], running.keys.cache()).unwrap();
    let mut headers = http::HeaderMap::new();
    headers.insert("x-ebay-signature", SIGNATURE.parse().unwrap());
    let (uri, body) = (Uri::from_static("/integration/a"), Bytes::from_static(BODY));
    let verify = || {
        let now = Timestamp::now();
        verifier.verify(&SignedRequest {
            method: &Method::POST,
            uri: &uri,
            headers: &headers,
            body: &body,
            now,
            public_url: None,
        })
    };

    let mut arrivals = running.keys.arrivals();
    let unverified = verify().unwrap_err();
    assert!(unverified.is_temporary() && unverified.reason() == Reason::KeyUnavailable);
    assert!(arrivals.next(Instant::now() + PATIENCE).await);
    assert!(verify().unwrap().signed());
    assert_eq!(
        running.server.asked(),
        [
            "api.ebay.com/identity/v1/oauth2/token",
            "api.ebay.com/commerce/notification/v1/public_key/9936261a-7d7b-4621-a0f1-96ccb428af49",
        ]
    );

    // The token is good for another key, too.
    running.get(&KeyUrl::ebay("another").unwrap()).await;
    assert_eq!(running.server.asked().len(), 3);
}

#[tokio::test]
async fn ebays_token_is_asked_for_anew_once_it_is_refused() {
    let tokens = AtomicU64::new(0);
    let running = running(Some(application()), move |request| {
        if request.uri().path() == "/identity/v1/oauth2/token" {
            let token = tokens.fetch_add(1, Ordering::SeqCst);
            return answer(200, format!(r#"{{"access_token":"token-{token}","expires_in":7200}}"#));
        }
        match request.headers()["authorization"].to_str().unwrap() {
            "Bearer token-0" => answer(401, ""),
            _ => answer(200, format!(r#"{{"key":{:?}}}"#, public_key_pem())),
        }
    })
    .await;
    assert!(!running.has(&KeyUrl::ebay("first").unwrap()));
    running.asked(2).await;
    running.get(&KeyUrl::ebay("second").unwrap()).await;
}

#[tokio::test]
async fn without_an_application_ebay_is_not_asked() {
    let running = running(None, |_| answer(200, public_key_pem())).await;
    assert!(!running.has(&KeyUrl::ebay("a").unwrap()));
    running.get(&KeyUrl::adobe_io("/prod/keys/a.pem").unwrap()).await;
    assert_eq!(running.server.asked(), ["static.adobeioevents.com/prod/keys/a.pem"]);
}

#[tokio::test]
async fn nobody_waits_longer_than_asked() {
    let (keys, _worker) = KeyFetcher::new(Arc::default(), client_to_nowhere(), None, KeyMetrics::default());
    let mut arrivals = keys.arrivals();
    assert!(!arrivals.next(Instant::now() + Duration::from_millis(5)).await);
    drop(_worker);
    assert!(!arrivals.next(Instant::now() + PATIENCE).await, "no worker, no wait");
}

fn client_to_nowhere() -> Client {
    Client::new(Trust::PublicRoots, Reach::StandIn(([127, 0, 0, 1], 9).into())).unwrap()
}

/// Whoever invents names gets a few fetches at once, and a burst of them.
#[tokio::test]
async fn a_flood_of_names_is_worked_off_slowly() {
    let (_keys, mut worker) =
        KeyFetcher::new(Arc::default(), client_to_nowhere(), None, KeyMetrics::default());
    let url = |index| KeyUrl::adobe_io(&format!("/prod/keys/{index}.pem")).unwrap();
    worker.waiting.extend((0..64).map(url));
    let mut begun = 0;
    loop {
        let resume = worker.begin();
        begun += worker.running.len();
        assert!(worker.running.len() <= IN_FLIGHT_LIMIT);
        worker.running.shutdown().await;
        if let Some(resume) = resume {
            assert!(resume <= Instant::now() + RATE.per);
            break;
        }
    }
    // The clock went on while the burst was counted.
    assert!((16..32).contains(&begun), "{begun}");
    assert_eq!(worker.waiting.len(), 64 - begun);
}

#[tokio::test]
async fn a_subscription_is_confirmed_on_amazons_host_alone() {
    let running = running(None, |_| answer(200, "<ConfirmSubscriptionResponse/>")).await;
    for url in ["https://evil.example/", "http://sns.us-east-1.amazonaws.com/", "https://api.paypal.com/"] {
        assert!(running.keys.confirm(url.to_owned()));
    }
    let url = "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&Token=1";
    assert!(running.keys.confirm(url.to_owned()));
    running.asked(1).await;
    assert_eq!(running.server.asked(), ["sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&Token=1"]);
}

#[test]
fn no_secret_is_shown() {
    let (keys, worker) =
        KeyFetcher::new(Arc::default(), client_to_nowhere(), Some(application()), KeyMetrics::default());
    for shown in [format!("{keys:?}"), format!("{worker:?}")] {
        assert!(!shown.contains("canary"), "{shown}");
    }
}
