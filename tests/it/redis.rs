//! The Redis queue on a real redis-server that is stopped, frozen, full and restarted.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use crate::support::attempts::Attempts;
use crate::support::client::get;
use crate::support::gateway::{TestGateway, journal_is_sent_within};
use crate::support::random::Random;
use crate::support::redis_server::RedisServer;

/// Without the outage journal: what Redis doesn't take is refused.
const NO_JOURNAL: (&str, &str) = ("RETRIEVE_DATA_DIR", "off");
/// Long enough for a healthy Redis on a busy machine; a frozen one is refused after it.
const TIMEOUT: (&str, &str) = ("RETRIEVE_QUEUE_TIMEOUT", "1s");

async fn refused(gateway: &TestGateway) {
    let answer = gateway.post_json("{}").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert_eq!(
        answer.body,
        "{\"result\":false,\"error\":\"The queue can't take the job now; send the webhook again later\"}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_away_is_503_and_it_comes_back_by_itself() {
    let mut redis = RedisServer::start().await;
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), TIMEOUT, NO_JOURNAL]).await;
    gateway.ready().await;
    assert_eq!(gateway.post_json("{\"n\":1}").await.status, 200);
    redis.kill();
    refused(&gateway).await;
    gateway.why_not_ready(&[]).await;
    assert_eq!(gateway.metric("retrieve_queue_up").await, Some(0.0));
    redis.restart().await;
    gateway.ready().await;
    assert_eq!(gateway.post_json("{\"n\":2}").await.status, 200);
    let payloads: Vec<_> =
        redis.jobs("default").await.iter().map(|job| job["data"]["data"].clone()).collect();
    assert_eq!(payloads, [json!({"n": 1}), json!({"n": 2})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_starts_without_redis_and_waits_for_it() {
    let mut redis = RedisServer::start().await;
    redis.kill();
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), TIMEOUT, NO_JOURNAL]).await;
    refused(&gateway).await;
    gateway.why_not_ready(&[]).await;
    redis.restart().await;
    gateway.ready().await;
    assert_eq!(gateway.post_json("{}").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_is_503_and_thaws() {
    let redis = RedisServer::start().await;
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), TIMEOUT, NO_JOURNAL]).await;
    gateway.ready().await;
    assert_eq!(gateway.post_json("{\"n\":1}").await.status, 200);
    redis.freeze();
    for _ in 0..3 {
        refused(&gateway).await;
    }
    gateway.why_not_ready(&[]).await;
    redis.thaw();
    gateway.ready().await;
    assert_eq!(gateway.post_json("{\"n\":2}").await.status, 200);
    // Of the refused ones, those that were on their way may have been stored: their answers didn't say otherwise.
    let stored = redis.jobs("default").await.len();
    assert!((2..=4).contains(&stored), "{stored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_refuses_writes_is_503_and_readiness_returns_without_traffic() {
    let redis = RedisServer::start().await;
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), TIMEOUT, NO_JOURNAL]).await;
    gateway.ready().await;
    for (name, breaking, mending, expect) in [
        ("full", vec!["CONFIG", "SET", "maxmemory", "1"], vec!["CONFIG", "SET", "maxmemory", "0"], "OOM"),
        ("read-only", vec!["REPLICAOF", "127.0.0.1", "1"], vec!["REPLICAOF", "NO", "ONE"], "READONLY"),
        (
            "too few replicas",
            vec!["CONFIG", "SET", "min-replicas-to-write", "1"],
            vec!["CONFIG", "SET", "min-replicas-to-write", "0"],
            "NOREPLICAS",
        ),
        (
            "another type",
            vec!["SET", "retrieve:{default}:jobs", "mine"],
            vec!["DEL", "retrieve:{default}:jobs"],
            "holds a string, not a stream",
        ),
    ] {
        redis.command(&breaking).await;
        // Redis 6.2 lets scripts write without replicas, until the next second's plain write is refused.
        let why = gateway.why_not_ready(&[]).await;
        refused(&gateway).await;
        assert!(why.contains(expect) || why.contains("WRONGTYPE"), "{name}: {why}");
        redis.command(&mending).await;
        gateway.ready().await;
        let answer = gateway.post_json("{}").await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_without_the_password() {
    let redis = RedisServer::start().await;
    redis.command(&["CONFIG", "SET", "requirepass", "right"]).await;
    let url = redis.url().replace("redis://", "redis://:hunter2@");
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &url), TIMEOUT, NO_JOURNAL]).await;
    refused(&gateway).await;
    let why = gateway.why_not_ready(&[]).await;
    assert!(!why.contains("hunter2"), "{why}");
    assert!(why.to_lowercase().contains("auth") || why.contains("WRONGPASS"), "{why}");
    let url = redis.url().replace("redis://", "redis://:right@");
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &url), TIMEOUT, NO_JOURNAL]).await;
    gateway.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_and_freezes_under_load_are_all_answered_200_and_lose_and_double_nothing() {
    let mut redis = RedisServer::start().await;
    // Freezes last longer than what batches have before they go to the journal (three quarters of this), and a busy
    // machine's fsync takes less.
    let timeout = ("RETRIEVE_QUEUE_TIMEOUT", "400ms");
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), timeout]).await;
    gateway.ready().await;
    let attempts = Arc::new(Attempts::default());
    let clients = attempts.start_clients(gateway.address, 8);
    let mut random = Random::from_environment();
    for round in 0..10 {
        attempts.go_on_within(10, 20).await;
        let moment = random.moment(700);
        if round % 2 == 0 {
            redis.freeze();
            tokio::time::sleep(moment).await;
            redis.thaw();
        } else {
            redis.kill();
            tokio::time::sleep(moment).await;
            redis.restart().await;
        }
        gateway.ready().await;
    }
    attempts.finish();
    clients.join_all().await;
    assert_eq!(attempts.refused(), HashMap::new(), "what Redis doesn't take lies in the journal");
    journal_is_sent_within(10, gateway.admin).await;
    let accepted = attempts.check(&redis.jobs("default").await);
    assert!(accepted > 200, "{accepted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_foreign_entries_are_read_page_by_page() {
    let redis = RedisServer::start().await;
    let gateway =
        TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), ("RETRIEVE_QUEUE_TIMEOUT", "10s")]).await;
    gateway.ready().await;
    for number in 0..5 {
        let filler = " ".repeat(700_000);
        assert_eq!(gateway.post_json(format!("{{\"n\":{number},\"x\":\"{filler}\"}}")).await.status, 200);
        redis.command(&["XADD", "retrieve:{default}:jobs", "*", "job", "not json"]).await;
        redis.command(&["XADD", "retrieve:{default}:jobs", "*", "other", "field"]).await;
    }
    let first = get(gateway.admin, "/api/jobs?limit=1000").await;
    assert_eq!(first.body.lines().count(), 2, "a page ends behind its first MiB");
    let numbers: Vec<_> = gateway.jobs().await.iter().map(|job| job["data"]["data"]["n"].clone()).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_of_another_queue_are_refused() {
    let redis = RedisServer::start().await;
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), TIMEOUT, NO_JOURNAL]).await;
    gateway.ready().await;
    for after in ["abc", "1-", "-1", "1-2-3", "99999999999999999999"] {
        let answer = get(gateway.admin, &format!("/api/jobs?after={after}")).await;
        assert_eq!(answer.status, 400, "{after}: {}", answer.body);
    }
}
