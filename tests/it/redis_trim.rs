//! Trimming takes what every group has acknowledged and nothing else; a full stream sends jobs to the journal.

use std::time::Duration;

use retrieve_gateway::config::Backend;

use crate::support::client::get;
use crate::support::gateway::TestGateway;
use crate::support::log::Lines;
use crate::support::redis_server::RedisServer;
use crate::support::{eventually, eventually_within};

const STREAM: &str = "retrieve:{default}:jobs";

async fn send(gateway: &TestGateway, numbers: std::ops::Range<u64>) {
    for number in numbers {
        assert_eq!(gateway.post_json(format!("{{\"n\":{number}}}")).await.status, 200);
    }
}

async fn group(redis: &RedisServer, name: &str, from: &str) {
    redis.command(&["XGROUP", "CREATE", STREAM, name, from]).await;
}

/// Takes so many jobs as a consumer of the group; their entry ids.
async fn take(redis: &RedisServer, group: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    let words = ["XREADGROUP", "GROUP", group, "one", "COUNT", &count, "STREAMS", STREAM, ">"];
    let reply: redis::streams::StreamReadReply =
        redis::from_redis_value(redis.command(&words).await).unwrap();
    reply.keys.into_iter().flat_map(|key| key.ids).map(|entry| entry.id).collect()
}

async fn acknowledge(redis: &RedisServer, group: &str, ids: &[String]) {
    let mut words = vec!["XACK", STREAM, group];
    words.extend(ids.iter().map(String::as_str));
    redis.command(&words).await;
}

async fn numbers(redis: &RedisServer) -> Vec<u64> {
    redis.jobs("default").await.iter().map(|job| job["data"]["data"]["n"].as_u64().unwrap()).collect()
}

/// Waits until the keeper has looked after this moment: it sees a stream that is longer by one foreign entry.
async fn looked(gateway: &TestGateway, redis: &RedisServer) {
    let metric = format!("retrieve_stream_entries{{stream=\"{STREAM}\"}}");
    let added: String =
        redis::from_redis_value(redis.command(&["XADD", STREAM, "*", "a", "b"]).await).unwrap();
    let length: f64 = redis::from_redis_value(redis.command(&["XLEN", STREAM]).await).unwrap();
    eventually_within(30, "the keeper looks", || async {
        let seen = gateway.metric(&metric).await?;
        let removed: f64 = gateway
            .metric(&format!("retrieve_stream_removed_total{{stream=\"{STREAM}\"}}"))
            .await
            .unwrap_or(0.0);
        (seen + removed >= length).then_some(())
    })
    .await;
    redis.command(&["XDEL", STREAM, &added]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_every_group_has_acknowledged_goes() {
    let redis = RedisServer::start().await;
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url())]).await;
    gateway.ready().await;
    send(&gateway, 0..10).await;
    looked(&gateway, &redis).await;
    assert_eq!(numbers(&redis).await.len(), 10, "without a group nothing goes");

    group(&redis, "fast", "0").await;
    group(&redis, "slow", "0").await;
    let fast = take(&redis, "fast", 10).await;
    acknowledge(&redis, "fast", &fast).await;
    let slow = take(&redis, "slow", 6).await;
    // The first, the second and the fourth: the third holds up what comes behind it.
    acknowledge(&redis, "slow", &[slow[0].clone(), slow[1].clone(), slow[3].clone()]).await;
    eventually_within(30, "the first two go", || async {
        (numbers(&redis).await == [2, 3, 4, 5, 6, 7, 8, 9]).then_some(())
    })
    .await;
    let of = |metric: &str, group: &str| {
        format!("retrieve_stream_group_{metric}{{stream=\"{STREAM}\",group=\"{group}\"}}")
    };
    eventually_within(30, "what the slow group holds is counted", || async {
        (gateway.metric(&of("pending", "slow")).await? == 3.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric(&of("dead", "slow")).await, Some(0.0));
    acknowledge(&redis, "slow", &slow).await;
    eventually_within(30, "what the slow group took goes", || async {
        (numbers(&redis).await == [6, 7, 8, 9]).then_some(())
    })
    .await;
    // A group that is gone has no claim and no metric.
    redis.command(&["XGROUP", "DESTROY", STREAM, "slow"]).await;
    eventually_within(30, "the rest goes", || async { numbers(&redis).await.is_empty().then_some(()) }).await;
    eventually_within(30, "its metrics go", || async {
        let metrics = get(gateway.admin, "/metrics").await.body;
        (!metrics.contains("group=\"slow\"") && metrics.contains("group=\"fast\"")).then_some(())
    })
    .await;
    send(&gateway, 10..12).await;
    assert_eq!(numbers(&redis).await, [10, 11], "what comes after a trim is there");
}

#[tokio::test]
async fn a_dead_group_is_named_in_the_log_once() {
    let (lines, _guard) = Lines::of_this_thread();
    let redis = RedisServer::start().await;
    let gateway = TestGateway::start_with(&[("RETRIEVE_QUEUE", &redis.url())], |config| {
        let Backend::Redis(settings) = &mut config.queue else { unreachable!() };
        settings.dead_after = Duration::from_secs(1);
    })
    .await;
    gateway.ready().await;
    send(&gateway, 0..2).await;
    group(&redis, "gone", "0").await;
    assert_eq!(take(&redis, "gone", 1).await.len(), 1);
    let dead = format!("retrieve_stream_group_dead{{stream=\"{STREAM}\",group=\"gone\"}}");
    eventually_within(40, "the group is dead", || async {
        (gateway.metric(&dead).await? == 1.0).then_some(())
    })
    .await;
    looked(&gateway, &redis).await;
    let named = lines.with(&["WARN", "jobs wait for the group", "group=gone", "pending=1", "lag="]);
    assert_eq!(named.len(), 1, "{named:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_marker_on_a_stream_that_was_trimmed_to_nothing_doubles_nothing() {
    let redis = RedisServer::start().await;
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), ("RETRIEVE_TRIM", "off")]).await;
    gateway.ready().await;
    send(&gateway, 0..5).await;
    redis.command(&["XTRIM", STREAM, "MAXLEN", "0"]).await;
    redis.command(&["DEL", "retrieve:{default}:producers"]).await;
    send(&gateway, 5..7).await;
    assert_eq!(numbers(&redis).await, [5, 6]);
    assert_eq!(
        gateway.metric("retrieve_redis_losses_total").await,
        Some(1.0),
        "it is said that this can't be told"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn age_removes_what_nobody_has_read_where_it_is_set() {
    let redis = RedisServer::start().await;
    let age = ("RETRIEVE_STREAM_AGE_LIMIT", "1s");
    let gateway =
        TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), ("RETRIEVE_TRIM", "off"), age]).await;
    gateway.ready().await;
    send(&gateway, 0..3).await;
    group(&redis, "unread", "0").await;
    eventually_within(30, "old entries go", || async { numbers(&redis).await.is_empty().then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_sends_jobs_to_the_journal_and_back_in_order() {
    let redis = RedisServer::start().await;
    let limit = ("RETRIEVE_STREAM_LIMIT", "3");
    let timeout = ("RETRIEVE_QUEUE_TIMEOUT", "400ms");
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), limit, timeout]).await;
    gateway.ready().await;
    send(&gateway, 0..8).await;
    assert_eq!(numbers(&redis).await, [0, 1, 2]);
    assert_eq!(gateway.metric("retrieve_journal_jobs").await, Some(5.0));
    let refusing = TestGateway::start(&[
        ("RETRIEVE_QUEUE", &redis.url()),
        limit,
        ("RETRIEVE_QUEUE_TIMEOUT", "400ms"),
        ("RETRIEVE_DATA_DIR", "off"),
    ])
    .await;
    refusing.ready().await;
    assert_eq!(refusing.post_json("{}").await.status, 503);
    eventually("readiness says so", || async {
        let ready = get(refusing.admin, "/ready").await.json();
        ready["probes"]["queue"]["why"].as_str()?.contains("RETRIEVE_STREAM_LIMIT").then_some(())
    })
    .await;
    // A worker takes jobs off the stream, and others come in their place.
    let mut taken = Vec::new();
    let taking = async {
        while taken.len() < 8 {
            taken.extend(take_off(&redis).await);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), taking).await.expect("not all jobs came");
    assert_eq!(taken, [0, 1, 2, 3, 4, 5, 6, 7]);
    gateway.sent_its_journal().await;
}

/// Reads what is on the stream and deletes it.
async fn take_off(redis: &RedisServer) -> Vec<u64> {
    let reply = redis.command(&["XRANGE", STREAM, "-", "+"]).await;
    let reply: redis::streams::StreamRangeReply = redis::from_redis_value(reply).unwrap();
    let mut numbers = Vec::new();
    for entry in reply.ids {
        let job: serde_json::Value = serde_json::from_str(&entry.get::<String>("job").unwrap()).unwrap();
        numbers.push(job["data"]["data"]["n"].as_u64().unwrap());
        redis.command(&["XDEL", STREAM, &entry.id]).await;
    }
    numbers
}
