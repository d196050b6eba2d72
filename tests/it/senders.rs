//! Senders as they are: signed deliveries, set-up exchanges and forgeries over the wire, through a running gateway.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::support::client::{Answer, exchange};
use crate::support::gateway::TestGateway;

const SECRET: &str = "a-secret-of-some-length";

/// The setting of an integration whose secret stands in the variable `SENDER_SECRET`.
fn integration(id: &str, lines: &str) -> String {
    format!("[[integration]]\nid = \"{id}\"\nsecrets = [\"env:SENDER_SECRET\"]\n{lines}\n")
}

/// Nobody is on the list, so that only a signature admits.
const NOBODY: [(&str, &str); 2] = [("RETRIEVE_ALLOWED_LIST", "203.0.113.5"), ("SENDER_SECRET", SECRET)];

fn hmac(message: impl AsRef<[u8]>) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(message.as_ref());
    mac.finalize().into_bytes().to_vec()
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    format!("{text}\r\n{body}")
}

async fn post(gateway: &TestGateway, id: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    exchange(gateway.address, request("POST", &format!("/integration/{id}"), headers, body)).await
}

fn check(answer: &Answer, status: u16, body: &str) {
    assert_eq!((answer.status, answer.body.as_str()), (status, body));
}

const UNSIGNED: &str = "{\"result\":false,\"error\":\"The webhook signature is missing or doesn't match\"}";

#[tokio::test(flavor = "multi_thread")]
async fn shopify_is_admitted_by_its_domain_and_its_signature_alone() {
    let toml = integration("shop", "source = \"shopify\"");
    let settings = [("RETRIEVE_ALLOWED_LIST", "shopify.com,203.0.113.0,198.51.100.0"), NOBODY[1]];
    let gateway = TestGateway::with_integrations(&toml, &settings).await;
    let body = "{\"id\":820982911946154508,\"name\":\"#9999\"}";
    let signature = base64(&hmac(body));
    let headers = [
        ("Content-Type", "application/json"),
        ("X-Shopify-Topic", "orders/create"),
        ("X-Shopify-Event-Id", "98880550-7158-44d4-b7cd-2c97c8a091b5"),
        ("X-Shopify-Hmac-Sha256", signature.as_str()),
    ];
    check(&post(&gateway, "shop", &headers, body).await, 200, "{\"result\":true,\"error\":\"\"}");
    // The other family of headers.
    let events = [("shopify-hmac-sha256", signature.as_str()), ("shopify-topic", "orders/create")];
    assert_eq!(post(&gateway, "shop", &events, body).await.status, 200);
    // The probe of the app review, and forgeries: nothing of the body is parsed, for it isn't JSON.
    for forged in ["", "B23tXN681gZ0qIWNRrgtzBE9XSDo5yaUu6wfmhu3a7g=", "not base64", &signature[..40]] {
        let headers = [("X-Shopify-Hmac-Sha256", forged)];
        check(&post(&gateway, "shop", &headers, "{").await, 401, UNSIGNED);
    }
    check(&post(&gateway, "shop", &[], "{").await, 401, UNSIGNED);
    let double = [headers[3], headers[3]];
    check(&post(&gateway, "shop", &double, body).await, 401, UNSIGNED);
    // A caller that no rule could admit learns nothing about ids.
    assert_eq!(post(&gateway, "none", &headers, body).await.status, 403);

    let jobs = gateway.jobs().await;
    assert_eq!(jobs.len(), 2);
    let source = &jobs[0]["source"];
    assert_eq!(
        (&source["preset"], &source["admitted_by"], &source["rule"], &source["verified"]),
        (&"shopify".into(), &"signature".into(), &"shopify.com".into(), &true.into())
    );
    assert_eq!((&jobs[0]["event"], &jobs[1]["event"]), (&"orders/create".into(), &"orders/create".into()));
    assert_eq!(jobs[0]["delivery_id"], "98880550-7158-44d4-b7cd-2c97c8a091b5");
    assert!(!serde_json::to_string(&jobs).unwrap().contains(&signature), "no signature reaches a job");
    let counted = gateway.metric("retrieve_requests_total{outcome=\"missing_header\",status=\"401\"}").await;
    assert_eq!(counted, Some(1.0), "the reason is counted, though the caller isn't told");
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_say_whether_list_or_signature_or_both_admit() {
    let toml = [
        integration("list", "source = \"shopify\""),
        integration("signature", "source = \"shopify\"\nadmit = \"signature\""),
        integration("both", "source = \"shopify\"\nadmit = \"allowlist+signature\""),
    ]
    .concat();
    let signature = base64(&hmac("{}"));
    let signed = [("X-Shopify-Hmac-Sha256", signature.as_str())];
    for (list, expect_signed, expect_unsigned) in [
        // Signature and no list; where there is a secret, a signature is required of listed callers as well.
        ("203.0.113.5", [403, 200, 403], [403, 401, 403]),
        ("127.0.0.1", [200, 200, 200], [401, 401, 401]),
    ] {
        let gateway =
            TestGateway::with_integrations(&toml, &[("RETRIEVE_ALLOWED_LIST", list), NOBODY[1]]).await;
        for (index, id) in ["list", "signature", "both"].into_iter().enumerate() {
            assert_eq!(post(&gateway, id, &signed, "{}").await.status, expect_signed[index], "{list} {id}");
            assert_eq!(post(&gateway, id, &[], "{}").await.status, expect_unsigned[index], "{list} {id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn woocommerces_ping_is_answered_exactly_200_and_never_queued() {
    let toml = integration("woo", "source = \"woocommerce\"\nadmit = \"signature\"");
    let gateway = TestGateway::with_integrations(&toml, &NOBODY).await;
    let form =
        [("Content-Type", "application/x-www-form-urlencoded"), ("User-Agent", "WooCommerce/9.9 Hookshot")];
    assert_eq!(post(&gateway, "woo", &form, "webhook_id=42").await.status, 200);
    assert!(gateway.jobs().await.is_empty());
    check(&post(&gateway, "woo", &form, "webhook_id=42&x=1").await, 401, UNSIGNED);

    let body = "{\"id\":727,\"status\":\"processing\"}";
    let signature = base64(&hmac(body));
    let delivery = [
        ("Content-Type", "application/json"),
        ("X-WC-Webhook-Source", "https://shop.example/"),
        ("X-WC-Webhook-Topic", "order.created"),
        ("X-WC-Webhook-ID", "42"),
        ("X-WC-Webhook-Delivery-ID", "a6e5b8ecd7d2ed60ec6e2b9c2b7e4b0d"),
        ("X-WC-Webhook-Signature", signature.as_str()),
    ];
    assert_eq!(post(&gateway, "woo", &delivery, body).await.status, 200);
    let other = "{\"id\":728,\"status\":\"processing\"}";
    let other_signature = base64(&hmac(other));
    let mut same_second = delivery;
    same_second[5].1 = &other_signature;
    assert_eq!(post(&gateway, "woo", &same_second, other).await.status, 200);
    let jobs = gateway.jobs().await;
    assert_eq!(jobs[0]["event"], "order.created");
    assert_ne!(
        jobs[0]["delivery_id"], jobs[1]["delivery_id"],
        "its clock has whole seconds, the id here more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn slacks_set_up_is_answered_with_its_challenge_as_plain_text() {
    let toml = integration("slack", "source = \"slack\"\nadmit = \"signature\"");
    let gateway = TestGateway::with_integrations(&toml, &NOBODY).await;
    let body = "{\"token\":\"Jhj5dZrVaK7ZwHHjRyZWjbDl\",\"challenge\":\"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P\",\"type\":\"url_verification\"}";
    let now = jiff::Timestamp::now().as_second().to_string();
    let signature = format!("v0={}", hex::encode(hmac(format!("v0:{now}:{body}"))));
    let signed = [
        ("Content-Type", "application/json"),
        ("X-Slack-Request-Timestamp", now.as_str()),
        ("X-Slack-Signature", signature.as_str()),
    ];
    let answer = post(&gateway, "slack", &signed, body).await;
    check(&answer, 200, "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P");
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    check(&post(&gateway, "slack", &signed[..1], body).await, 401, UNSIGNED);
    let stale = (jiff::Timestamp::now().as_second() - 301).to_string();
    let old = format!("v0={}", hex::encode(hmac(format!("v0:{stale}:{body}"))));
    let replayed = [("X-Slack-Request-Timestamp", stale.as_str()), ("X-Slack-Signature", old.as_str())];
    check(&post(&gateway, "slack", &replayed, body).await, 401, UNSIGNED);
    assert!(gateway.jobs().await.is_empty(), "handshakes are never queued");
}

#[tokio::test(flavor = "multi_thread")]
async fn metas_subscription_is_a_get_with_the_agreed_token() {
    let toml =
        integration("meta", "source = \"meta\"\nadmit = \"signature\"\nverify_token = \"env:META_TOKEN\"");
    let settings = [NOBODY[0], NOBODY[1], ("META_TOKEN", "meatyhamhock")];
    let gateway = TestGateway::with_integrations(&toml, &settings).await;
    let get = async |query: &str| {
        exchange(gateway.address, request("GET", &format!("/integration/meta?{query}"), &[], "")).await
    };
    let query = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=";
    check(&get(&format!("{query}meatyhamhock")).await, 200, "1158201444");
    for wrong in ["", "meatyhamhoc", "MEATYHAMHOCK"] {
        let answer = get(&format!("{query}{wrong}")).await;
        assert!(answer.status >= 400 && !answer.body.contains("1158201444"), "{wrong}: {answer:?}");
    }
    let body = "{\"object\":\"page\",\"entry\":[]}";
    let signature = format!("sha256={}", hex::encode(hmac(body)));
    assert_eq!(post(&gateway, "meta", &[("X-Hub-Signature-256", &signature)], body).await.status, 200);
    assert_eq!(gateway.jobs().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn zooms_token_is_answered_with_its_hash_and_no_other_text_is_signed() {
    let toml = integration("zoom", "source = \"zoom\"\nadmit = \"signature\"");
    let gateway = TestGateway::with_integrations(&toml, &NOBODY).await;
    let now = jiff::Timestamp::now().as_second().to_string();
    let ask = async |token: &str| {
        let body = format!(
            "{{\"payload\":{{\"plainToken\":\"{token}\"}},\"event_ts\":1654503849680,\"event\":\"endpoint.url_validation\"}}"
        );
        let signature = format!("v0={}", hex::encode(hmac(format!("v0:{now}:{body}"))));
        let headers = [("x-zm-request-timestamp", now.as_str()), ("x-zm-signature", signature.as_str())];
        post(&gateway, "zoom", &headers, &body).await
    };
    let answer = ask("qgg8vlvZRS6UYooatFL8Aw").await;
    let expect = serde_json::json!({
        "plainToken": "qgg8vlvZRS6UYooatFL8Aw",
        "encryptedToken": hex::encode(hmac("qgg8vlvZRS6UYooatFL8Aw")),
    });
    assert_eq!((answer.status, answer.json()), (200, expect));
    let oracle = ask("v0:1700000000:{}").await;
    assert!(oracle.status >= 400, "a text that could be a webhook's isn't signed: {oracle:?}");
    assert!(gateway.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn xeros_intent_to_receive_is_200_without_a_body_or_401() {
    let toml = integration("xero", "source = \"xero\"\nadmit = \"signature\"");
    let gateway = TestGateway::with_integrations(&toml, &NOBODY).await;
    let body =
        "{\"events\":[],\"firstEventSequence\":0,\"lastEventSequence\":0,\"entropy\":\"S0m3r4Nd0mt3xt\"}";
    let signature = base64(&hmac(body));
    check(&post(&gateway, "xero", &[("x-xero-signature", &signature)], body).await, 200, "");
    let wrong = base64(&hmac("something else"));
    assert_eq!(post(&gateway, "xero", &[("x-xero-signature", &wrong)], body).await.status, 401);
    assert!(gateway.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheme_of_ones_own_and_a_rotation_of_secrets() {
    let toml = "[[integration]]\nid = \"own\"\nadmit = \"signature\"\nsecrets = [\"env:NEW_SECRET\", \"env:SENDER_SECRET\"]\n\
                signature = { header = \"x-my-signature\", algorithm = \"hmac-sha256\", encoding = \"hex\", prefix = \"sha256=\", signed = \"{body}\" }\n";
    let settings = [NOBODY[0], NOBODY[1], ("NEW_SECRET", "the-secret-that-replaces-it")];
    let gateway = TestGateway::with_integrations(toml, &settings).await;
    let signature = format!("sha256={}", hex::encode(hmac("{}")));
    assert_eq!(
        post(&gateway, "own", &[("X-My-Signature", &signature)], "{}").await.status,
        200,
        "the old one still verifies"
    );
    check(&post(&gateway, "own", &[("X-My-Signature", &signature)], "{ }").await, 401, UNSIGNED);
    let jobs = gateway.jobs().await;
    assert_eq!(jobs[0]["source"]["rule"], "signature");
    assert!(jobs[0]["request"]["headers"].get("x-my-signature").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_get_the_answer_that_they_read() {
    let toml = [
        integration("mageplaza", "source = \"magento-mageplaza\""),
        integration("github", "source = \"github\""),
    ]
    .concat();
    let settings = [("RETRIEVE_ALLOWED_LIST", "127.0.0.1"), NOBODY[1]];
    let gateway = TestGateway::with_integrations(&toml, &settings).await;
    // GitHub's form is signed as a form, and the job holds what is inside.
    let body = "payload=%7B%22action%22%3A%22opened%22%7D";
    let signature = format!("sha256={}", hex::encode(hmac(body)));
    let headers = [
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("X-GitHub-Event", "issues"),
        ("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("X-Hub-Signature-256", signature.as_str()),
    ];
    assert_eq!(post(&gateway, "github", &headers, body).await.status, 200);
    let job = &gateway.jobs().await[0];
    assert_eq!(job["data"]["data"], serde_json::json!({"action": "opened"}));
    assert_eq!(
        (&job["event"], &job["delivery_id"]),
        (&"issues".into(), &"72d3162e-cc78-11e3-81ab-4c9367dc0958".into())
    );
    // A GET where the sender has no handshake is 405.
    let answer = exchange(gateway.address, request("GET", "/integration/github", &[], "")).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}
