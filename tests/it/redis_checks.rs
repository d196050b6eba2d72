//! What the gateway learns of a Redis before it trusts it with jobs, and says in plain words.

use retrieve_gateway::queue::redis::RIGHTS;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::get;
use crate::support::eventually;
use crate::support::gateway::TestGateway;
use crate::support::process::GatewayProcess;
use crate::support::redis_server::RedisServer;

const NO_JOURNAL: (&str, &str) = ("RETRIEVE_DATA_DIR", "off");
const TIMEOUT: (&str, &str) = ("RETRIEVE_QUEUE_TIMEOUT", "1s");

#[test]
fn every_right_is_documented() {
    let docs = include_str!("../../docs/redis.md");
    assert!(RIGHTS.split_whitespace().all(|right| docs.contains(&format!("`{right}`"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_could_evict_the_stream_is_refused_at_any_time() {
    let redis = RedisServer::start().await;
    let set = async |policy: &str| redis.command(&["CONFIG", "SET", "maxmemory-policy", policy]).await;
    set("allkeys-lru").await;
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), TIMEOUT, NO_JOURNAL]).await;
    let why = gateway.why_not_ready(&["maxmemory-policy is allkeys-lru"]).await;
    assert!(why.contains("noeviction"), "{why}");
    assert_eq!(gateway.post_json("{}").await.status, 503);
    set("volatile-lru").await;
    gateway.ready().await;
    set("allkeys-random").await;
    gateway.why_not_ready(&["maxmemory-policy is allkeys-random"]).await;
    // With a journal the jobs wait there.
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), TIMEOUT]).await;
    assert_eq!(gateway.post_json("{}").await.status, 200);
    assert_eq!(redis.jobs("default").await.len(), 0);
    set("noeviction").await;
    eventually("the job is sent", || async { (redis.jobs("default").await.len() == 1).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_confirm_where_they_are_asked_to() {
    let redis = RedisServer::start().await;
    let replica = RedisServer::start().await;
    let ack = ("RETRIEVE_ACK", "replicas:1");
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), ack, NO_JOURNAL]).await;
    gateway.why_not_ready(&["0 of 1 replicas confirmed"]).await;
    let port = redis.address.port().to_string();
    replica.command(&["REPLICAOF", "127.0.0.1", &port]).await;
    gateway.ready().await;
    assert_eq!(gateway.post_json("{}").await.status, 200);
    assert_eq!(replica.jobs("default").await.len(), 1, "a 200 means that the replica has it");
    // Executed, but not confirmed: sent again it would be a second one. The journal keeps it until the replica is back.
    let journaling = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), ack, TIMEOUT]).await;
    journaling.ready().await;
    replica.freeze();
    assert_eq!(journaling.post_json("{}").await.status, 200);
    assert_eq!(journaling.metric("retrieve_journal_jobs").await, Some(1.0));
    replica.thaw();
    journaling.sent_its_journal().await;
    assert_eq!(redis.jobs("default").await.len(), 2);
    assert_eq!(replica.jobs("default").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_what_a_200_survives() {
    let redis = RedisServer::start().await;
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]).await;
    let folder = TempDir::new().unwrap();
    let mut gateway = GatewayProcess::start(&folder, &[("RETRIEVE_QUEUE", &redis.url()), NO_JOURNAL]).await;
    eventually("the gateway is connected", || async {
        let ready = get(gateway.admin, "/ready").await.json();
        (ready["probes"]["queue"]["ready"] == Value::Bool(true)).then_some(())
    })
    .await;
    gateway.signal(rustix::process::Signal::TERM);
    gateway.ended().await;
    let mut log = gateway.log_before_listening().to_vec();
    log.extend(gateway.log_to_end().await);
    let says = |expect: &str| {
        log.iter().filter(|line| line["message"].as_str().is_some_and(|said| said.contains(expect))).count()
    };
    assert_eq!(says("appendfsync always): it survives a power cut there; it has no replica"), 1, "{log:?}");
    assert_eq!(says("maxmemory-policy is volatile-ttl"), 1, "{log:?}");
}
