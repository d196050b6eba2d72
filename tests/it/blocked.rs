//! A validly signed webhook that the lists block is counted and logged, and whoever sent it can't tell.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::support::client::Connection;
use crate::support::eventually;
use crate::support::gateway::TestGateway;
use crate::support::log::Lines;

const SECRET: &str = "a-secret-of-some-length";
const NOBODY: [(&str, &str); 2] = [("RETRIEVE_ALLOWED_LIST", "203.0.113.5"), ("SENDER_SECRET", SECRET)];
const COUNTER: &str = "retrieve_signed_but_blocked_total{integration=\"shop\"}";

fn integrations() -> String {
    let integration = |id: &str, lines: &str| {
        format!("[[integration]]\nid = \"{id}\"\nsecrets = [\"env:SENDER_SECRET\"]\n{lines}\n")
    };
    [
        integration("shop", "source = \"shopify\""),
        integration("off", "source = \"shopify\"\nenabled = false"),
        integration("token", "source = \"api-key\""),
    ]
    .concat()
}

fn signature(body: &str) -> String {
    use ::base64::Engine;
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    ::base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes())
}

/// All that comes back on a connection of its own, to its end.
async fn answer_to(gateway: &TestGateway, id: &str, headers: &str, body: &str) -> String {
    let mut connection = Connection::open(gateway.address).await;
    let head = format!("POST /integration/{id} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    connection.send(head + body).await;
    without_date(connection.closed().await)
}

fn without_date(answer: Vec<u8>) -> String {
    let text = String::from_utf8(answer).unwrap();
    text.split_inclusive("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("date:")).collect()
}

fn signed(body: &str, length: usize) -> String {
    format!("X-Shopify-Hmac-Sha256: {}\r\nContent-Length: {length}\r\n", signature(body))
}

// On one thread, so that the subscriber of this thread sees all of the gateway's lines and no other test's.
#[tokio::test]
async fn a_stale_list_is_counted_and_logged_with_what_to_do() {
    let (lines, _logging) = Lines::of_this_thread();
    let gateway = TestGateway::with_integrations(&integrations(), &NOBODY).await;
    let body = "{\"id\":1}";
    let wrong = format!("X-Shopify-Hmac-Sha256: {}\r\nContent-Length: 8\r\n", signature("{\"id\":2}"));
    let refused = answer_to(&gateway, "shop", &wrong, body).await;
    assert!(
        refused.starts_with("HTTP/1.1 403 ") && refused.contains("(127.0.0.1) isn't authorized"),
        "{refused}"
    );
    for (id, headers) in [
        ("off", signed(body, 8)),
        ("none", signed(body, 8)),
        ("shop", "Content-Length: 8\r\n".to_owned()),
        ("token", format!("X-Api-Key: {SECRET}\r\nAuthorization: {SECRET}\r\nContent-Length: 8\r\n")),
        ("shop", signed(body, 8)),
    ] {
        assert_eq!(answer_to(&gateway, id, &headers, body).await, refused, "{id}");
    }
    let mut connection = Connection::open(gateway.address).await;
    connection.send(format!("GET /integration/shop HTTP/1.1\r\nHost: x\r\n{}\r\n", signed("", 0))).await;
    assert_eq!(connection.answer().await.status, 403, "no webhook, so it isn't looked at");
    eventually("the signed one is counted", || async {
        (gateway.metric(COUNTER).await == Some(1.0)).then_some(())
    })
    .await;
    lines.until(&["WARN", "validly signed"]).await;
    let said = lines.with(&["validly signed"]);
    let [line] = said.as_slice() else { panic!("{said:?}") };
    for text in ["shop", "127.0.0.1", "RETRIEVE_ALLOWED_LIST", "allowed_list"] {
        assert!(line.contains(text), "{line}");
    }
    assert!(gateway.jobs().await.is_empty());
}

/// Nothing that a stranger sends has an answer that depends on the id: not a body that it begins and doesn't end, nor
/// one that it announces, nor one that is too large to be looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_sees_no_difference_between_ids() {
    let gateway = TestGateway::with_integrations(&integrations(), &NOBODY).await;
    let whole = "{\"id\":1}";
    let chunked = format!("X-Shopify-Hmac-Sha256: {}\r\nTransfer-Encoding: chunked\r\n", signature(whole));
    let large = " ".repeat(300 << 10);
    for (headers, body) in [
        (signed(whole, 8), whole),
        (signed(whole, 1000), whole),
        (signed("", 0), ""),
        (signed(whole, 8) + "Expect: 100-continue\r\n", ""),
        (signed(whole, 8 << 20), whole),
        (signed(&large, large.len()), large.as_str()),
        (chunked.clone(), "8\r\n{\"id\":1}\r\n0\r\n\r\n"),
        (chunked.clone(), "8\r\n{\"id\":1}\r\n"),
        (chunked, "no chunk"),
    ] {
        let known = answer_to(&gateway, "shop", &headers, body).await;
        let unknown = answer_to(&gateway, "none", &headers, body).await;
        assert_eq!(known, unknown, "{headers}");
        assert!(known.starts_with("HTTP/1.1 403 "), "{headers}: {known}");
        assert_eq!(known.matches("HTTP/1.1").count(), 1, "nothing but the one answer: {known}");
    }
    eventually("the whole ones are counted", || async {
        (gateway.metric(COUNTER).await == Some(3.0)).then_some(())
    })
    .await;
}

/// Behind a proxy the connection is kept, and the next request of another sender finds it in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxys_connection_is_kept() {
    let settings = [NOBODY[0], NOBODY[1], ("RETRIEVE_TRUSTED_PROXIES", "127.0.0.1")];
    let gateway = TestGateway::with_integrations(&integrations(), &settings).await;
    let body = "{\"id\":1}";
    let mut connection = Connection::open(gateway.address).await;
    for (client, status) in
        [("192.0.2.1", 403), ("203.0.113.5", 200), ("192.0.2.1", 403), ("203.0.113.5", 200)]
    {
        let head = "POST /integration/shop HTTP/1.1\r\nHost: x\r\nX-Forwarded-For:";
        connection.send(format!("{head} {client}\r\n{}\r\n{body}", signed(body, 8))).await;
        assert_eq!(connection.answer().await.status, status, "{client}");
    }
    eventually("both are counted", || async { (gateway.metric(COUNTER).await == Some(2.0)).then_some(()) })
        .await;
    assert_eq!(gateway.jobs().await.len(), 2);
}
