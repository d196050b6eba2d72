//! Consumer groups on the stream of the app `default`, as workers use them.

use std::time::Duration;

use redis::streams::StreamReadReply;
use retrieve_gateway::config::Backend;

use super::gateway::TestGateway;
use super::redis_server::{RedisServer, STREAM};

pub async fn create(redis: &RedisServer, group: &str, from: &str) {
    redis.command(&["XGROUP", "CREATE", STREAM, group, from]).await;
}

/// Takes up to so many jobs as a consumer of the group; their entry ids.
pub async fn take(redis: &RedisServer, group: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    let words = ["XREADGROUP", "GROUP", group, "one", "COUNT", &count, "STREAMS", STREAM, ">"];
    let reply: StreamReadReply = redis::from_redis_value(redis.command(&words).await).unwrap();
    reply.keys.into_iter().flat_map(|key| key.ids).map(|entry| entry.id).collect()
}

pub async fn acknowledge(redis: &RedisServer, group: &str, ids: &[String]) {
    let mut words = vec!["XACK", STREAM, group];
    words.extend(ids.iter().map(String::as_str));
    redis.command(&words).await;
}

/// The name and labels of a metric of a group.
pub fn metric(name: &str, group: &str) -> String {
    format!("retrieve_stream_group_{name}{{stream=\"{STREAM}\",group=\"{group}\"}}")
}

/// A gateway that takes a group for dead when jobs have waited for it for a second.
pub async fn impatient_gateway(redis: &RedisServer) -> TestGateway {
    let gateway = TestGateway::start_with(&[("RETRIEVE_QUEUE", &redis.url())], |config| {
        let Backend::Redis(settings) = &mut config.queue else { unreachable!() };
        settings.dead_after = Duration::from_secs(1);
    })
    .await;
    gateway.ready().await;
    gateway
}
