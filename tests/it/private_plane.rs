//! The private plane: probes, metrics, and who may read jobs.

use crate::support::client::{exchange, get};
use crate::support::gateway::TestGateway;
use crate::support::redis_server::RedisServer;

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_need_no_token_and_the_api_does() {
    let gateway = TestGateway::start(&[("RETRIEVE_ADMIN_TOKEN", "s3cret")]).await;
    gateway.ready().await;
    let live = get(gateway.admin, "/live").await;
    assert_eq!((live.status, live.body.as_str()), (200, "{\"live\":true}"));
    let ready = get(gateway.admin, "/ready").await;
    assert_eq!(ready.json()["probes"]["listener"]["ready"], true);
    assert_eq!(ready.json()["probes"]["queue"]["ready"], true);
    assert_eq!(get(gateway.admin, "/metrics").await.status, 200);

    let denied = get(gateway.admin, "/api/jobs").await;
    assert_eq!((denied.status, denied.header("www-authenticate")), (401, Some("Bearer")));
    let with_token = |token: &str| {
        format!("GET /api/jobs HTTP/1.1\r\nHost: anything.example\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    assert_eq!(exchange(gateway.admin, with_token("s3cre")).await.status, 401);
    assert_eq!(exchange(gateway.admin, with_token("s3cret")).await.status, 200);
    assert_eq!(get(gateway.admin, "/nothing").await.status, 404);
    assert_eq!(get(gateway.admin, "/api/nothing").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_a_strangers_name_for_this_machine_is_refused() {
    let gateway = TestGateway::start(&[]).await;
    assert_eq!(get(gateway.admin, "/api/jobs").await.status, 200);
    let rebound = "GET /api/jobs HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    assert_eq!(exchange(gateway.admin, rebound).await.status, 403);
    let proxied =
        format!("GET /api/jobs HTTP/1.1\r\nHost: {}\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n", gateway.admin);
    assert_eq!(exchange(gateway.admin, proxied).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_make_no_sense_are_refused_in_words() {
    let gateway = TestGateway::start(&[]).await;
    for (query, expect) in [
        ("after=abc", "`abc` isn't a position in this queue"),
        ("limit=0", "limit is a number from 1 to 1000"),
        ("limit=1001", "limit is a number from 1 to 1000"),
        ("wait=soon", "wait is a duration such as 10s"),
    ] {
        let answer = get(gateway.admin, &format!("/api/jobs?{query}")).await;
        assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some(expect)), "{query}");
    }
    assert_eq!(get(gateway.admin, "/api/jobs?aftr=0").await.status, 400);
}

fn ack(admin: std::net::SocketAddr, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("POST /api/jobs/ack HTTP/1.1\r\nHost: {admin}\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_position_that_was_given_out_can_be_acknowledged() {
    let gateway = TestGateway::start(&[]).await;
    for _ in 0..3 {
        gateway.post_json("{}").await;
    }
    let json = "Content-Type: application/json\r\n";
    for (headers, body, status, expect) in [
        (json, "{\"last\":\"4\"}", 400, "no job has the position `4` yet"),
        (json, "{\"last\":\"18446744073709551616\"}", 400, "isn't a position in this queue"),
        (json, "{\"last\":\"+1\"}", 400, "`+1` isn't a position in this queue"),
        (json, "{\"last\":\"\"}", 400, "`` isn't a position in this queue"),
        (json, "{\"last\":\"$\"}", 400, "`$` isn't a position in this queue"),
        (json, "{\"last\":2}", 422, "expected a string"),
        (json, "{\"lats\":\"2\"}", 422, "unknown field `lats`"),
        (json, "{", 400, "EOF"),
        // What a page in a browser could send to this machine without being asked.
        ("Content-Type: text/plain\r\n", "{\"last\":\"2\"}", 415, "application/json"),
        ("", "{\"last\":\"2\"}", 415, "application/json"),
        ("X-Forwarded-For: 192.0.2.1\r\n", "{\"last\":\"2\"}", 403, "RETRIEVE_ADMIN_TOKEN"),
    ] {
        let answer = exchange(gateway.admin, ack(gateway.admin, headers, body)).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(expect), "{body}: {error}");
    }
    assert_eq!(gateway.jobs().await.len(), 3, "nothing was acknowledged");
    for (last, expect) in [("2", "2"), ("2", "2"), ("1", "2"), ("0", "2"), ("3", "3")] {
        let body = format!("{{\"last\":\"{last}\"}}");
        let answer = exchange(gateway.admin, ack(gateway.admin, json, &body)).await;
        assert_eq!((answer.status, &answer.json()["acknowledged"]), (200, &expect.into()), "{last}");
    }
    let end = get(gateway.admin, "/api/jobs").await;
    assert_eq!((end.body.as_str(), end.header("x-retrieve-last-id")), ("", Some("3")));
    assert_eq!(get(gateway.admin, "/api/jobs/ack").await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_groups_acknowledge() {
    let redis = RedisServer::start().await;
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url())]).await;
    let request = ack(gateway.admin, "Content-Type: application/json\r\n", "{\"last\":\"0-1\"}");
    let answer = exchange(gateway.admin, request).await;
    assert_eq!(answer.status, 409);
    assert_eq!(
        answer.json()["error"],
        "jobs on Redis are acknowledged there, by their consumer groups (XACK)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_happened() {
    let gateway = TestGateway::start(&[]).await;
    for _ in 0..3 {
        gateway.post_json("{}").await;
    }
    gateway.post_json("{").await;
    for (line, expect) in [
        ("retrieve_requests_total{outcome=\"accepted\",status=\"200\"}", 3.0),
        ("retrieve_requests_total{outcome=\"malformed_payload\",status=\"400\"}", 1.0),
        ("retrieve_request_duration_seconds_count", 4.0),
        ("retrieve_queue_append_duration_seconds_count", 3.0),
        ("retrieve_requests_in_flight", 0.0),
        ("retrieve_in_flight_bytes", 0.0),
        ("retrieve_connections_accepted_total", 4.0),
        ("retrieve_queue_up", 1.0),
        ("retrieve_malformed_heads_total", 0.0),
        ("retrieve_slow_heads_total", 0.0),
    ] {
        assert_eq!(gateway.metric(line).await, Some(expect), "{line}");
    }
    let text = get(gateway.admin, "/metrics").await;
    assert_eq!(
        text.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(text.body.contains(&format!("retrieve_build_info{{version=\"{}\"", retrieve_gateway::VERSION)));
    assert!(text.body.ends_with("# EOF\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_bounded_and_lead_to_the_next() {
    let gateway = TestGateway::start(&[]).await;
    for number in 0..5 {
        gateway.post_json(format!("{{\"n\":{number}}}")).await;
    }
    let first = get(gateway.admin, "/api/jobs?limit=2").await;
    assert_eq!((first.body.lines().count(), first.header("x-retrieve-last-id")), (2, Some("2")));
    let second = get(gateway.admin, "/api/jobs?limit=2&after=2").await;
    let line: serde_json::Value = serde_json::from_str(second.body.lines().next().unwrap()).unwrap();
    assert_eq!((&line["id"], &line["job"]["data"]["data"]["n"]), (&"3".into(), &2.into()));
    let beyond = get(gateway.admin, "/api/jobs?after=5").await;
    assert_eq!((beyond.body.as_str(), beyond.header("x-retrieve-last-id")), ("", Some("5")));
}
