//! Trimming takes what every group has acknowledged and nothing else; a full stream sends jobs to the journal.

use std::time::Duration;

use crate::support::client::get;
use crate::support::eventually_within;
use crate::support::gateway::TestGateway;
use crate::support::groups;
use crate::support::log::Lines;
use crate::support::redis_server::{RedisServer, STREAM};

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
    gateway.take_numbers(0..10).await;
    looked(&gateway, &redis).await;
    assert_eq!(redis.numbers().await.len(), 10, "without a group nothing goes");

    groups::create(&redis, "fast", "0").await;
    groups::create(&redis, "slow", "0").await;
    let fast = groups::take(&redis, "fast", 10).await;
    groups::acknowledge(&redis, "fast", &fast).await;
    let slow = groups::take(&redis, "slow", 6).await;
    // The first, the second and the fourth: the third holds up what comes behind it.
    groups::acknowledge(&redis, "slow", &[slow[0].clone(), slow[1].clone(), slow[3].clone()]).await;
    eventually_within(30, "the first two go", || async {
        (redis.numbers().await == [2, 3, 4, 5, 6, 7, 8, 9]).then_some(())
    })
    .await;
    eventually_within(30, "what the slow group holds is counted", || async {
        (gateway.metric(&groups::metric("pending", "slow")).await? == 3.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric(&groups::metric("dead", "slow")).await, Some(0.0));
    groups::acknowledge(&redis, "slow", &slow).await;
    eventually_within(30, "what the slow group took goes", || async {
        (redis.numbers().await == [6, 7, 8, 9]).then_some(())
    })
    .await;
    // A group that is gone has no claim and no metric.
    redis.command(&["XGROUP", "DESTROY", STREAM, "slow"]).await;
    eventually_within(30, "the rest goes", || async { redis.numbers().await.is_empty().then_some(()) }).await;
    eventually_within(30, "its metrics go", || async {
        let metrics = get(gateway.admin, "/metrics").await.body;
        (!metrics.contains("group=\"slow\"") && metrics.contains("group=\"fast\"")).then_some(())
    })
    .await;
    gateway.take_numbers(10..12).await;
    assert_eq!(redis.numbers().await, [10, 11], "what comes after a trim is there");
}

#[tokio::test]
async fn a_dead_group_is_named_in_the_log_once() {
    let (lines, _guard) = Lines::of_this_thread();
    let redis = RedisServer::start().await;
    let gateway = groups::impatient_gateway(&redis).await;
    gateway.take_numbers(0..2).await;
    groups::create(&redis, "gone", "0").await;
    assert_eq!(groups::take(&redis, "gone", 1).await.len(), 1);
    let dead = groups::metric("dead", "gone");
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
    gateway.take_numbers(0..5).await;
    redis.command(&["XTRIM", STREAM, "MAXLEN", "0"]).await;
    redis.command(&["DEL", "retrieve:{default}:producers"]).await;
    gateway.take_numbers(5..7).await;
    assert_eq!(redis.numbers().await, [5, 6]);
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
    gateway.take_numbers(0..3).await;
    groups::create(&redis, "unread", "0").await;
    eventually_within(30, "old entries go", || async { redis.numbers().await.is_empty().then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_sends_jobs_to_the_journal_and_back_in_order() {
    let redis = RedisServer::start().await;
    let limit = ("RETRIEVE_STREAM_LIMIT", "3");
    let timeout = ("RETRIEVE_QUEUE_TIMEOUT", "400ms");
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), limit, timeout]).await;
    gateway.ready().await;
    gateway.take_numbers(0..8).await;
    assert_eq!(redis.numbers().await, [0, 1, 2]);
    assert_eq!(gateway.metric("retrieve_journal_jobs").await, Some(5.0));
    let refusing =
        TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), limit, timeout, ("RETRIEVE_DATA_DIR", "off")])
            .await;
    refusing.ready().await;
    assert_eq!(refusing.post_json("{}").await.status, 503);
    refusing.why_not_ready(&["RETRIEVE_STREAM_LIMIT"]).await;
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
