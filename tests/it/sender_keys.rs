//! Senders that publish their keys: a running gateway fetches the key of a delivery by TLS from a stand-in for the
//! sender's host, and verifies the delivery with it.

use std::collections::{BTreeMap, HashMap};

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Deserialize;

use crate::support::client::{Answer, exchange};
use crate::support::eventually;
use crate::support::fake_dns::{A, AAAA, FakeDns};
use crate::support::gateway::TestGateway;
use crate::support::log::Lines;
use crate::support::outbound::stand_in::StandIn;
use crate::support::outbound::{Reach, Scope};

const HOSTS: [&str; 4] =
    ["static.adobeioevents.com", "api.paypal.com", "sns.us-west-2.amazonaws.com", "api.ebay.com"];
const NOBODY: (&str, &str) = ("RETRIEVE_ALLOWED_LIST", "203.0.113.5");
const TOKEN_PATH: &str = "/identity/v1/oauth2/token";

/// A delivery of the published ones, with the document in which its sender's host has the key.
#[derive(Deserialize, Clone)]
pub struct Delivery {
    pub preset: String,
    pub secrets: Vec<String>,
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    /// The text of the signature, in a header or in the body.
    pub signature: String,
    #[serde(default)]
    keys: BTreeMap<String, String>,
}

impl Delivery {
    /// All deliveries of the fixtures whose sender publishes its key.
    pub fn all() -> Vec<Delivery> {
        #[derive(Deserialize)]
        struct Fixture {
            requests: Vec<Delivery>,
        }
        let fixture: Fixture =
            serde_json::from_str(include_str!("fixtures/signatures/vectors.json")).unwrap();
        fixture.requests.into_iter().filter(|delivery| !delivery.keys.is_empty()).collect()
    }

    fn of(preset: &str) -> Delivery {
        Delivery::all().into_iter().find(|delivery| delivery.preset == preset).unwrap()
    }

    /// The paths of its keys on their host.
    pub fn documents(&self) -> HashMap<String, String> {
        let path = |name: &str| match name.split_once(':').unwrap() {
            ("ebay", id) => format!("/commerce/notification/v1/public_key/{id}"),
            (_, url) => {
                url.strip_prefix("https://").map_or(url, |rest| &rest[rest.find('/').unwrap()..]).to_owned()
            }
        };
        self.keys.iter().map(|(name, document)| (path(name), document.clone())).collect()
    }

    /// The integration of this id that expects it.
    pub fn integration(&self, id: &str, secret_name: &str) -> String {
        let more = match self.preset.as_str() {
            "ebay" => {
                "public_url = \"https://hooks.example/integration/demo\"\n\
                 application = { id = \"the-app-id\", secret = \"env:CERT_ID\" }\n"
            }
            _ => "",
        };
        let preset = &self.preset;
        format!(
            "[[integration]]\nid = \"{id}\"\nsource = \"{preset}\"\nadmit = \"signature\"\nsecrets = [\"env:{secret_name}\"]\n{more}"
        )
    }

    /// A gateway that expects it, and for which the stand-in is every host.
    async fn gateway(&self, stand_in: &StandIn) -> TestGateway {
        let settings = [NOBODY, ("SECRET", self.secrets[0].as_str()), ("CERT_ID", "canary-cert-id")];
        let scope = Scope { trust: stand_in.trust(), reach: Reach::StandIn(stand_in.address) };
        TestGateway::with_integrations_and(&self.integration("demo", "SECRET"), &settings, |config| {
            config.key_scope = scope
        })
        .await
    }

    /// Its bytes on the wire, for the integration of this id.
    pub fn request(&self, id: &str) -> String {
        let mut text =
            format!("POST /integration/{id} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n", self.body.len());
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        format!("{text}\r\n{}", self.body)
    }

    async fn send(&self, gateway: &TestGateway) -> Answer {
        exchange(gateway.address, self.request("demo")).await
    }

    /// Sends it until it is accepted. The first ones may be told to come again, because the key isn't here yet.
    async fn send_until_accepted(&self, gateway: &TestGateway) {
        eventually("the key is here, and the delivery is verified with it", || async {
            let answer = self.send(gateway).await;
            match answer.status {
                200 => Some(()),
                503 => {
                    assert_eq!(answer.header("retry-after"), Some("2"));
                    assert!(answer.body.contains("public key"), "{answer:?}");
                    None
                }
                _ => panic!("{}: {answer:?}", self.preset),
            }
        })
        .await;
    }
}

fn answer(status: u16, body: impl Into<bytes::Bytes>) -> Response<Full<bytes::Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

/// A host that has these documents, and a token for the one application.
pub async fn host_with(documents: HashMap<String, String>) -> StandIn {
    use ::base64::Engine;
    let credentials = ::base64::engine::general_purpose::STANDARD.encode("the-app-id:canary-cert-id");
    let is = |request: &Request<Incoming>, value: &str| {
        request.headers().get("authorization").is_some_and(|given| given == value)
    };
    StandIn::start(&HOSTS, move |request| match (request.uri().path(), documents.get(request.uri().path())) {
        (TOKEN_PATH, _) if is(request, &format!("Basic {credentials}")) => {
            answer(200, "{\"access_token\":\"canary-token\",\"expires_in\":7200}")
        }
        (path, Some(document)) if !path.starts_with("/commerce/") || is(request, "Bearer canary-token") => {
            answer(200, document.clone())
        }
        ("/", None) => answer(200, "<ConfirmSubscriptionResponse/>"),
        _ => answer(404, ""),
    })
    .await
}

/// Every published delivery of Adobe I/O, PayPal, Amazon SNS and eBay: verified by the key of its sender's host,
/// which is asked once; refused as soon as a byte of it is another.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_verified_by_the_key_of_its_senders_host() {
    let mut presets = Vec::new();
    for delivery in Delivery::all() {
        let documents = delivery.documents();
        let host = host_with(documents.clone()).await;
        let gateway = delivery.gateway(&host).await;
        delivery.send_until_accepted(&gateway).await;
        let kind = if delivery.body.contains("SubscriptionConfirmation") { "handshake" } else { "webhook" };
        let forged = Delivery {
            body: delivery.body.replacen(['h', 'i'], "j", 1).replacen("Message\": \"", "Message\": \"x", 1),
            ..delivery.clone()
        };
        assert_eq!(forged.send(&gateway).await.status, 401, "{}", delivery.preset);
        let jobs = gateway.jobs().await;
        assert_eq!(jobs.len(), usize::from(kind == "webhook"), "{}", delivery.preset);
        assert!(jobs.iter().all(|job| job["source"]["verified"] == true));

        for path in documents.keys() {
            let asked = host.asked();
            let times = asked.iter().filter(|asked| asked.ends_with(path)).count();
            assert_eq!(times, 1, "{}: {asked:?}", delivery.preset);
        }
        let allowed = |asked: &String| HOSTS.iter().any(|host| asked.starts_with(&format!("{host}/")));
        assert!(host.asked().iter().all(allowed), "{:?}", host.asked());
        let name = match delivery.preset.as_str() {
            "adobe-io-events" => "AdobeIo",
            "paypal" => "PayPal",
            "aws-sns" => "Sns",
            _ => "Ebay",
        };
        let line = format!("retrieve_key_fetches_total{{host=\"{name}\",outcome=\"Fetched\"}}");
        let keys = f64::from(u8::try_from(documents.len()).unwrap());
        assert_eq!(gateway.metric(&line).await, Some(keys), "{line}");
        if kind == "handshake" {
            let line = "retrieve_handshakes_total{kind=\"SnsSubscriptionConfirmation\"}";
            assert!(gateway.metric(line).await >= Some(1.0));
            eventually("Amazon's link was visited", || async {
                host.asked().iter().any(|asked| asked.contains("/?Action=ConfirmSubscription")).then_some(())
            })
            .await;
        }
        presets.push(delivery.preset);
    }
    presets.sort_unstable();
    presets.dedup();
    assert_eq!(presets, ["adobe-io-events", "aws-sns", "ebay", "paypal"]);
}

/// While the key can't be fetched, the answer is 503, since the sender may be right; the log and the metrics say why.
#[tokio::test]
async fn a_key_that_cannot_be_fetched_is_logged_and_counted() {
    let (lines, _logging) = Lines::of_this_thread();
    let delivery = Delivery::of("paypal");
    let host = host_with(HashMap::new()).await;
    let gateway = delivery.gateway(&host).await;
    assert_eq!(delivery.send(&gateway).await.status, 503);
    lines.until(&["WARN", "a sender's public key can't be fetched", "api.paypal.com", "404"]).await;
    let counted = gateway.metric("retrieve_key_fetches_total{host=\"PayPal\",outcome=\"Refused\"}").await;
    assert_eq!(counted, Some(1.0));
    // A host whose certificate isn't trusted is nobody's.
    let untrusted = Scope { reach: Reach::StandIn(host.address), ..Scope::default() };
    let settings = [NOBODY, ("SECRET", delivery.secrets[0].as_str())];
    let gateway =
        TestGateway::with_integrations_and(&delivery.integration("demo", "SECRET"), &settings, |config| {
            config.key_scope = untrusted;
        })
        .await;
    assert_eq!(delivery.send(&gateway).await.status, 503);
    eventually("the failure is counted", || async {
        gateway.metric("retrieve_key_fetches_total{host=\"PayPal\",outcome=\"Untrusted\"}").await
    })
    .await;
    assert!(gateway.jobs().await.is_empty());
}

/// The sender's host is looked up at `RETRIEVE_DNS`, and an answer that leads into the own network is not followed.
#[tokio::test(flavor = "multi_thread")]
async fn the_senders_host_is_looked_up_by_the_resolver_of_the_settings() {
    let delivery = Delivery::of("paypal");
    let host = host_with(delivery.documents()).await;
    let dns = FakeDns::start().await;
    dns.host("api.paypal.com", &["127.0.0.1", "10.0.0.1", "fd00::1"], 60);
    let resolver = dns.address.to_string();
    let settings = [NOBODY, ("SECRET", delivery.secrets[0].as_str()), ("RETRIEVE_DNS", resolver.as_str())];
    let gateway =
        TestGateway::with_integrations_and(&delivery.integration("demo", "SECRET"), &settings, |config| {
            config.key_scope.trust = host.trust();
        })
        .await;
    assert_eq!(delivery.send(&gateway).await.status, 503);
    eventually("the failure is counted", || async {
        gateway.metric("retrieve_key_fetches_total{host=\"PayPal\",outcome=\"Unreachable\"}").await
    })
    .await;
    for kind in [A, AAAA] {
        let asked = dns.asked();
        assert!(
            asked.iter().any(|asked| asked.kind == kind && asked.name.eq_ignore_ascii_case("api.paypal.com")),
            "{asked:?}"
        );
    }
    assert!(host.asked().is_empty());
}

/// Whom the gateway trusts and reaches can't be changed by what an operator writes.
#[test]
fn no_setting_leads_elsewhere() {
    let settings = ["SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "RETRIEVE_DNS"]
        .map(|name| (name.to_owned(), "127.0.0.1:5353".to_owned()));
    let config = retrieve_gateway::config::env::read(&BTreeMap::from(settings)).0.unwrap();
    assert_eq!(config.key_scope.reach, Reach::Public);
    assert!(matches!(config.key_scope.trust, retrieve_gateway::outbound::Trust::PublicRoots));
}
