//! Every answer of README's table, with its exact bytes, in README's order of checks.

use crate::support::client::{Answer, Connection, exchange, post};
use crate::support::gateway::TestGateway;

const INTEGRATIONS: &str = r#"
    [[integration]]
    id = "demo"

    [[integration]]
    id = "off"
    enabled = false

    [[integration]]
    id = "slow"
    rate = "1/h"

    [[integration]]
    id = "small"
    body_limit = "10"
"#;

fn check(answer: &Answer, status: u16, body: &str) {
    assert_eq!((answer.status, answer.body.as_str()), (status, body));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("location"), None, "no redirect is ever sent");
}

fn refused(error: &str) -> String {
    format!("{{\"result\":false,\"error\":{}}}", serde_json::json!(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_webhooks_get_the_constant_and_a_job_id() {
    let gateway = TestGateway::start(&[]).await;
    let mut ids = Vec::new();
    for (path, content_type, body) in [
        ("/integration/demo", "application/json", "{\"a\":1}"),
        ("/integration/demo/", "application/json; charset=utf-8", "[]"),
        ("/integration/demo/xml", "text/plain", "<a/>"),
        ("/integration/demo/xml/", "application/xml", "<a/>"),
        ("/integration/demo", "application/x-www-form-urlencoded", "a=1"),
        ("/integration/demo?token=x", "application/json", "1"),
    ] {
        let answer = exchange(gateway.address, post(path, content_type, body)).await;
        check(&answer, 200, "{\"result\":true,\"error\":\"\"}");
        ids.push(answer.header("x-retrieve-job-id").unwrap().to_owned());
    }
    let queued: Vec<_> =
        gateway.jobs().await.iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(queued, ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_status_its_words_and_its_headers() {
    let gateway = TestGateway::with_integrations(INTEGRATIONS, &[]).await;
    let post_json =
        async |path: &str, body: &str| exchange(gateway.address, post(path, "application/json", body)).await;
    let answer = post_json("/integration/demo", "{\"a\":\n tru}").await;
    check(
        &answer,
        400,
        &refused("The JSON body is malformed: expected `true`, `false` or `null` at line 2, column 2"),
    );
    let answer = exchange(gateway.address, post("/integration/demo/xml", "text/xml", "<a>\n<b></a>")).await;
    check(
        &answer,
        400,
        &refused("The XML body is malformed: the end tag `a` does not match `b` at line 2, column 4"),
    );
    check(&post_json("/integration/demo", "").await, 400, &refused("The body is empty"));
    check(
        &post_json("/integration/off", "{}").await,
        403,
        &refused("Integration (off) is disabled on Retrieve"),
    );
    check(
        &post_json("/integration/none", "{}").await,
        404,
        &refused("Integration (none) doesn't exist on Retrieve"),
    );
    let nothing = refused(
        "There is nothing at this path; webhooks go to POST /integration/<id> or /integration/<id>/xml",
    );
    check(&post_json("/", "{}").await, 404, &nothing);
    check(&post_json("/integration/demo/../demo", "{}").await, 404, &nothing);

    let answer = exchange(gateway.address, "GET /integration/demo HTTP/1.1\r\nHost: x\r\n\r\n").await;
    check(&answer, 405, &refused("This method isn't allowed here; webhooks are sent with POST"));
    assert_eq!(answer.header("allow"), Some("POST"));

    let answer = post_json("/integration/small", "[1,2,3,4,5,6]").await;
    check(&answer, 413, &refused("The body is larger than 10 bytes"));

    let answer = exchange(gateway.address, post("/integration/demo", "image/png", "x")).await;
    check(
        &answer,
        415,
        &refused(
            "The content type image/png can't be turned into JSON; send application/json, application/xml, \
             application/x-www-form-urlencoded, multipart/form-data or text/plain",
        ),
    );
    let brotli =
        "POST /integration/demo HTTP/1.1\r\nHost: x\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\n1";
    let answer = exchange(gateway.address, brotli).await;
    check(
        &answer,
        415,
        &refused(
            "The content encoding br isn't supported; send the body uncompressed, or as gzip or deflate",
        ),
    );

    check(&post_json("/integration/slow", "{}").await, 200, "{\"result\":true,\"error\":\"\"}");
    let answer = post_json("/integration/slow", "{}").await;
    check(
        &answer,
        429,
        &refused("Integration (slow) gets more webhooks than its rate allows; send this one again later"),
    );
    let retry_after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((3590..=3600).contains(&retry_after), "{retry_after}");

    assert_eq!(gateway.jobs().await.len(), 1, "nothing of a refused request reaches the queue");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_on_no_list_learns_nothing_about_integrations() {
    let toml = r#"
        [[integration]]
        id = "demo"
        [[integration]]
        id = "off"
        enabled = false
        [[integration]]
        id = "mine"
        allowed_list = ["127.0.0.1"]
        [[integration]]
        id = "mine-off"
        allowed_list = ["127.0.0.0/8"]
        enabled = false
    "#;
    let gateway = TestGateway::with_integrations(toml, &[("RETRIEVE_ALLOWED_LIST", "203.0.113.5")]).await;
    let forbidden = refused("This domain/IP (127.0.0.1) isn't authorized on Retrieve");
    for path in ["/integration/demo", "/integration/off", "/integration/none", "/integration/demo/xml"] {
        // The body isn't even JSON: no byte of it is looked at.
        let answer = exchange(gateway.address, post(path, "image/png", "{")).await;
        check(&answer, 403, &forbidden);
    }
    let answer = exchange(gateway.address, post("/integration/mine", "application/json", "{}")).await;
    assert_eq!(answer.status, 200, "its own list admits the caller");
    let answer = exchange(gateway.address, post("/integration/mine-off", "application/json", "{}")).await;
    check(&answer, 403, &refused("Integration (mine-off) is disabled on Retrieve"));
    let jobs = gateway.jobs().await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0]["source"]["rule"], "127.0.0.1");
    assert_eq!(jobs[0]["source"]["admitted_by"], "address");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_the_first_untrusted_hop_is_the_client() {
    let settings = [
        ("RETRIEVE_TRUSTED_PROXIES", "127.0.0.1"),
        ("RETRIEVE_ALLOWED_LIST", "203.0.113.0/24,2001:db8::/32"),
    ];
    let gateway = TestGateway::start(&settings).await;
    for (headers, status, client) in [
        ("X-Forwarded-For: 203.0.113.5\r\n", 200, "203.0.113.5"),
        ("X-Forwarded-For: ::ffff:203.0.113.5\r\n", 200, "203.0.113.5"),
        ("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 203.0.113.5\r\n", 200, "203.0.113.5"),
        ("X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-For: 192.0.2.1\r\n", 403, "192.0.2.1"),
        ("X-Forwarded-For: 203.0.113.5, 192.0.2.1\r\n", 403, "192.0.2.1"),
        ("Forwarded: for=\"[2001:db8::7]:4711\";proto=https\r\n", 200, "2001:db8::7"),
        ("Forwarded: for=203.0.113.5, for=192.0.2.1\r\n", 403, "192.0.2.1"),
        ("X-Real-IP: 203.0.113.5\r\n", 403, "127.0.0.1"),
        ("", 403, "127.0.0.1"),
        ("X-Forwarded-For: unknown\r\n", 400, ""),
        ("X-Forwarded-For: 192.0.2.1\r\nForwarded: for=203.0.113.5\r\n", 400, ""),
    ] {
        let request =
            format!("POST /integration/demo HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 2\r\n\r\n{{}}");
        let answer = exchange(gateway.address, request).await;
        assert_eq!(answer.status, status, "{headers}");
        match status {
            200 => assert_eq!(gateway.jobs().await.last().unwrap()["source"]["ip"], client),
            403 => check(
                &answer,
                403,
                &refused(&format!("This domain/IP ({client}) isn't authorized on Retrieve")),
            ),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_is_answered_503_and_the_memory_comes_back() {
    let limits = [("RETRIEVE_IN_FLIGHT_LIMIT", "5MiB"), ("RETRIEVE_BODY_LIMIT", "5MiB")];
    let gateway = TestGateway::start(&limits).await;
    let mut holding = Connection::open(gateway.address).await;
    let head = format!("POST /integration/demo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 5 << 20);
    holding.send(head).await;
    // A length that is only promised takes nothing.
    assert_eq!(gateway.post_json("{}").await.status, 200);
    holding.send(" ".repeat((5 << 20) - 1)).await;
    crate::support::eventually("the large body holds its memory", || async {
        (gateway.metric("retrieve_in_flight_bytes").await? == f64::from((5 << 20) - 1)).then_some(())
    })
    .await;
    let answer = gateway.post_json("{}").await;
    check(&answer, 503, &refused("The gateway is overloaded; send the webhook again later"));
    assert_eq!(answer.header("retry-after"), Some("5"));
    // A body without a declared length is counted as well.
    let chunked = "POST /integration/demo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    assert_eq!(exchange(gateway.address, chunked).await.status, 503);
    drop(holding);
    crate::support::eventually("the memory is free again", || async {
        (gateway.metric("retrieve_in_flight_bytes").await? == 0.0).then_some(())
    })
    .await;
    assert_eq!(gateway.post_json("{}").await.status, 200);
}
