//! Every way in which Redis or the network can fail a command, under load: each webhook is answered 200, and its job
//! comes out once. docs/redis.md has the table.

use std::time::Duration;

use crate::support::eventually_within;
use crate::support::gateway::TestGateway;
use crate::support::load::Load;
use crate::support::random::Random;
use crate::support::redis_server::RedisServer;
use crate::support::tcp_proxy::{Replies, TcpProxy};

const TIMEOUT: (&str, &str) = ("RETRIEVE_QUEUE_TIMEOUT", "2s");

#[tokio::test(flavor = "multi_thread")]
async fn errors_that_redis_answers_lose_and_double_nothing() {
    let redis = RedisServer::start().await;
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), TIMEOUT]).await;
    gateway.ready().await;
    let load = Load::start(gateway.address);
    let set = |name: &'static str, value: &'static str| vec!["CONFIG", "SET", name, value];
    for (breaking, mending) in [
        (set("maxmemory", "1"), set("maxmemory", "0")),
        (vec!["REPLICAOF", "127.0.0.1", "1"], vec!["REPLICAOF", "NO", "ONE"]),
        (set("min-replicas-to-write", "1"), set("min-replicas-to-write", "0")),
        (set("maxmemory-policy", "allkeys-lru"), set("maxmemory-policy", "noeviction")),
        (vec!["ACL", "SETUSER", "default", "-xadd"], vec!["ACL", "SETUSER", "default", "+@all"]),
        (vec!["ACL", "SETUSER", "default", "-evalsha"], vec!["ACL", "SETUSER", "default", "+@all"]),
        (vec!["CLIENT", "PAUSE", "600", "ALL"], vec!["PING"]),
        (vec!["SCRIPT", "FLUSH"], vec!["PING"]),
        (vec!["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"], vec!["PING"]),
    ] {
        redis.command(&breaking).await;
        load.goes_on().await;
        eventually_within(30, "Redis answers", || async { redis.try_command(&mending).await.ok() }).await;
        load.goes_on().await;
    }
    // A script that doesn't end: BUSY.
    redis.command(&["CONFIG", "SET", "lua-time-limit", "10"]).await;
    let busy = async { redis.try_command(&["EVAL", "while true do end", "0"]).await };
    let ending = async {
        load.goes_on().await;
        redis.command(&["SCRIPT", "KILL"]).await;
    };
    let (ended, ()) = tokio::join!(busy, ending);
    assert!(ended.is_err());
    load.goes_on().await;
    load.finish(&gateway).await.check(&redis.jobs("default").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_are_lost_halved_or_swallowed_lose_and_double_nothing() {
    let redis = RedisServer::start().await;
    let proxy = TcpProxy::start(redis.address).await;
    let url = format!("redis://{}", proxy.address);
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &url), TIMEOUT]).await;
    gateway.ready().await;
    let load = Load::start(gateway.address);
    let mut random = Random::from_environment();
    for round in 0..60 {
        proxy.set([Replies::Lost, Replies::Half, Replies::Slices, Replies::Garbled][round % 4]);
        tokio::time::sleep(random.moment(60)).await;
        proxy.set(Replies::Pass);
        tokio::time::sleep(Duration::from_millis(60) + random.moment(60)).await;
    }
    for _ in 0..3 {
        proxy.set(Replies::Swallowed);
        load.goes_on().await;
        proxy.set(Replies::Pass);
        load.goes_on().await;
    }
    load.finish(&gateway).await.check(&redis.jobs("default").await);
}
