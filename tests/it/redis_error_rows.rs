//! docs/redis.md's table of errors, row by row, on real servers: what the batch meets, whether Redis executed it, what
//! readiness says, that the caller sees a 200, and that each job comes out once and in order when the error has ended.

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};
use serde_json::json;

use crate::support::client::get;
use crate::support::cluster::Cluster;
use crate::support::gateway::TestGateway;
use crate::support::redis_server::{RedisServer, Release, STREAM, command_of, words};
use crate::support::tcp_proxy::{Replies, TcpProxy};
use crate::support::{eventually, eventually_within};

/// What batches have before they go to the journal is three quarters of this.
const TIMEOUT: (&str, &str) = ("RETRIEVE_QUEUE_TIMEOUT", "800ms");

/// A connection of the administrator's, which stays one when the password changes.
struct Admin(MultiplexedConnection);

impl Admin {
    async fn of(redis: &RedisServer) -> Admin {
        let client = redis::Client::open(redis.url()).unwrap();
        Admin(client.get_multiplexed_async_connection().await.unwrap())
    }

    async fn try_command(&self, words: &[&str]) -> RedisResult<Value> {
        command_of(words).query_async(&mut self.0.clone()).await
    }

    async fn commands(&self, commands: &[&str]) {
        for command in commands {
            let words: Vec<&str> = command.split(' ').collect();
            let reply = self.try_command(&words).await;
            assert!(reply.is_ok(), "{command}: {reply:?}");
        }
    }

    /// How many jobs are on the stream, if Redis tells.
    async fn length(&self) -> Option<u64> {
        redis::from_redis_value(self.try_command(&["XLEN", STREAM]).await.ok()?).ok()
    }
}

/// A gateway, and how many jobs were sent to it.
struct Row {
    gateway: TestGateway,
    sent: u64,
}

impl Row {
    /// Starts it, so that jobs go straight to Redis.
    async fn start(url: &str, more: &[(&str, &str)]) -> Row {
        let gateway = TestGateway::start(&[&[("RETRIEVE_QUEUE", url), TIMEOUT], more].concat()).await;
        eventually("jobs go straight to Redis", || async {
            let ready = get(gateway.admin, "/ready").await.json();
            (ready["probes"]["queue"] == json!({ "ready": true })).then_some(())
        })
        .await;
        Row { gateway, sent: 0 }
    }

    /// Sends a job; the caller sees a 200, whatever Redis does.
    async fn send(&mut self) {
        let answer = self.gateway.post_json(format!("{{\"n\":{}}}", self.sent)).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{\"result\":true,\"error\":\"\"}"));
        self.sent += 1;
    }

    /// Jobs lie in the journal, and readiness says why.
    async fn is_told(&self, expect: &str) {
        self.gateway.note(&[expect]).await;
        assert!(self.journaled().await > 0.0, "{expect}");
    }

    async fn journaled(&self) -> f64 {
        self.gateway.metric("retrieve_journal_jobs").await.unwrap()
    }

    /// Everything that was sent is on the stream, once and in order.
    async fn is_whole(&self, redis: &RedisServer, after: &str) {
        self.gateway.sent_its_journal().await;
        assert_eq!(redis.numbers().await, (0..self.sent).collect::<Vec<_>>(), "after {after}");
        assert_eq!(self.gateway.metric("retrieve_redis_losses_total").await, Some(0.0), "after {after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_that_redis_answers_execute_nothing_and_end_in_order() {
    let redis = RedisServer::start().await;
    let admin = Admin::of(&redis).await;
    let mut row = Row::start(&redis.url(), &[]).await;
    let kill = "CLIENT KILL TYPE normal SKIPME yes";
    for (expect, breaking, mending) in [
        ("OOM", &["CONFIG SET maxmemory 1"][..], &["CONFIG SET maxmemory 0"][..]),
        ("READONLY", &["REPLICAOF 127.0.0.1 1"], &["REPLICAOF NO ONE"]),
        ("NOREPLICAS", &["CONFIG SET min-replicas-to-write 1"], &["CONFIG SET min-replicas-to-write 0"]),
        (
            "MASTERDOWN",
            &["CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1"],
            &["REPLICAOF NO ONE", "CONFIG SET replica-serve-stale-data yes"],
        ),
        ("NOPERM", &["ACL SETUSER default -xadd"], &["ACL SETUSER default +@all"]),
        ("NOAUTH", &["ACL SETUSER default resetpass >canary", kill], &["ACL SETUSER default nopass"]),
        (
            "holds a string, not a stream",
            &["RENAME retrieve:{default}:jobs kept", "SET retrieve:{default}:jobs mine"],
            &["RENAME kept retrieve:{default}:jobs"],
        ),
        (
            "maxmemory-policy is allkeys-lfu",
            &["CONFIG SET maxmemory-policy allkeys-lfu", kill],
            &["CONFIG SET maxmemory-policy noeviction"],
        ),
        ("as many clients as it may", &["CONFIG SET maxclients 1", kill], &["CONFIG SET maxclients 1000"]),
    ] {
        println!("{expect}");
        row.send().await;
        row.is_whole(&redis, "a good beginning").await;
        let before = admin.length().await;
        admin.commands(breaking).await;
        row.send().await;
        row.send().await;
        row.is_told(expect).await;
        if let Some(length) = admin.length().await {
            assert_eq!(Some(length), before, "{expect}: not executed");
        }
        admin.commands(mending).await;
        row.is_whole(&redis, expect).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_changes_is_told_until_it_is_the_old_one() {
    let redis = RedisServer::start().await;
    let admin = Admin::of(&redis).await;
    admin.commands(&["ACL SETUSER gateway on >old-canary ~* +@all"]).await;
    let url = redis.url().replace("redis://", "redis://gateway:old-canary@");
    let mut row = Row::start(&url, &[]).await;
    admin.commands(&["ACL SETUSER gateway resetpass >new-canary"]).await;
    row.send().await;
    row.is_whole(&redis, "a change that the connection hasn't noticed").await;
    admin.commands(&["CLIENT KILL USER gateway"]).await;
    row.send().await;
    row.is_told("WRONGPASS").await;
    assert!(!get(row.gateway.admin, "/ready").await.body.contains("canary"));
    admin.commands(&["ACL SETUSER gateway >old-canary"]).await;
    row.is_whole(&redis, "WRONGPASS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flushed_scripts_and_killed_clients_cost_a_connection() {
    let redis = RedisServer::start().await;
    let admin = Admin::of(&redis).await;
    let mut row = Row::start(&redis.url(), &[]).await;
    for breaking in ["SCRIPT FLUSH", "CLIENT KILL TYPE normal SKIPME yes"] {
        let broken = "retrieve_redis_broken_connections_total";
        let before = row.gateway.metric(broken).await.unwrap();
        admin.commands(&[breaking]).await;
        row.send().await;
        row.is_whole(&redis, breaking).await;
        assert!(row.gateway.metric(broken).await.unwrap() > before, "{breaking}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_executes_nothing() {
    let redis = RedisServer::start().await;
    let admin = Admin::of(&redis).await;
    let mut row = Row::start(&redis.url(), &[]).await;
    admin.commands(&["CONFIG SET lua-time-limit 10"]).await;
    let busy = redis.try_command(&["EVAL", "while true do end", "0"]);
    let rest = async {
        eventually("the script runs", || async { admin.try_command(&["PING"]).await.err() }).await;
        row.send().await;
        row.is_told("BUSY").await;
        admin.commands(&["SCRIPT KILL"]).await;
    };
    let (ended, ()) = tokio::join!(busy, rest);
    assert!(ended.is_err());
    row.is_whole(&redis, "BUSY").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loading_executes_nothing() {
    let mut redis = RedisServer::start().await;
    let fill = "for i = 1, 8000 do redis.call('SET', 'filler:' .. i, i) end";
    redis.command(&["EVAL", fill, "0"]).await;
    let mut row = Row::start(&redis.url(), &[]).await;
    row.send().await;
    // Half a millisecond for each key.
    redis.more = words("--key-load-delay 500");
    redis.begin_restart();
    row.send().await;
    row.is_told("LOADING").await;
    row.send().await;
    row.is_whole(&redis, "LOADING").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_fails_executes_nothing() {
    let settings = || words("--appendonly no");
    let redis = RedisServer::start_with(settings).await;
    let admin = Admin::of(&redis).await;
    admin.try_command(&["CONFIG", "SET", "save", "3600 1000000"]).await.unwrap();
    let saved = async |status: &str| {
        redis.command(&["BGSAVE"]).await;
        eventually("the snapshot has ended", || async {
            (redis.says("persistence", "rdb_bgsave_in_progress:0").await
                && redis.says("persistence", &format!("rdb_last_bgsave_status:{status}")).await)
                .then_some(())
        })
        .await;
    };
    let mut row = Row::start(&redis.url(), &[]).await;
    row.send().await;
    redis.fill_disk(true);
    saved("err").await;
    row.send().await;
    row.is_told("MISCONF").await;
    assert_eq!(admin.length().await, Some(1), "not executed");
    redis.fill_disk(false);
    saved("ok").await;
    row.is_whole(&redis, "MISCONF").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_redis_loses_and_doubles_nothing() {
    // Redis goes on for as long as it may lose what it confirmed, and then refuses.
    let mut redis = RedisServer::start_with(|| words("--appendfsync everysec")).await;
    let mut row = Row::start(&redis.url(), &[]).await;
    row.send().await;
    redis.fill_disk(true);
    row.send().await;
    row.send().await;
    row.is_told("MISCONF").await;
    redis.fill_disk(false);
    row.is_whole(&redis, "MISCONF").await;
    row.send().await;
    redis.restart().await;
    row.is_whole(&redis, "a restart").await;

    // With an fsync for each job, it ends itself instead, without an answer.
    redis.more = Vec::new();
    redis.restart().await;
    row.send().await;
    row.is_whole(&redis, "a restart").await;
    redis.fill_disk(true);
    row.send().await;
    redis.ended().await;
    row.send().await;
    row.is_told("refused").await;
    redis.restart().await;
    row.is_whole(&redis, "a disk that was full").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_network_does_is_unknown_and_settled_by_the_next_connection() {
    let mut redis = RedisServer::start().await;
    let admin = Admin::of(&redis).await;
    let proxy = TcpProxy::start(redis.address).await;
    let mut row = Row::start(&format!("redis://{}", proxy.address), &[]).await;
    for replies in [Replies::Lost, Replies::Half, Replies::Garbled, Replies::Swallowed] {
        row.send().await;
        row.is_whole(&redis, "a good beginning").await;
        proxy.set(replies);
        row.send().await;
        eventually("it is executed", || async { (admin.length().await? == row.sent).then_some(()) }).await;
        row.send().await;
        eventually("jobs lie in the journal", || async { (row.journaled().await >= 2.0).then_some(()) })
            .await;
        proxy.set(Replies::Pass);
        row.is_whole(&redis, &format!("{replies:?}")).await;
    }
    redis.kill();
    row.send().await;
    row.is_told("").await;
    redis.restart().await;
    row.is_whole(&redis, "a server that was away").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reply_is_known_as_done_without_another_connection() {
    let redis = RedisServer::start().await;
    let mut row = Row::start(&redis.url(), &[]).await;
    row.send().await;
    row.is_whole(&redis, "a good beginning").await;
    let broken = "retrieve_redis_broken_connections_total";
    let mut before = row.gateway.metric(broken).await;
    // A busy machine may make the reply slower than a command may be; then it comes to the next connection's comparison.
    for _ in 0..10 {
        // Longer than a batch may wait, shorter than a command may take.
        redis.command(&["CLIENT", "PAUSE", "700", "WRITE"]).await;
        row.send().await;
        row.is_whole(&redis, "a slow reply").await;
        let after = row.gateway.metric(broken).await;
        if after == before {
            return;
        }
        before = after;
    }
    panic!("each slow reply cost a connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_that_is_cut_short_is_executed_and_not_confirmed() {
    let redis = RedisServer::start().await;
    let replica = RedisServer::start().await;
    replica.command(&["REPLICAOF", "127.0.0.1", &redis.address.port().to_string()]).await;
    let admin = Admin::of(&redis).await;
    let mut row = Row::start(&redis.url(), &[("RETRIEVE_ACK", "replicas:1")]).await;
    row.send().await;
    replica.freeze();
    let unblocking = async {
        let blocked = eventually("a client waits for replicas", || async {
            let list = admin.try_command(&["CLIENT", "LIST"]).await.ok()?;
            let list: String = redis::from_redis_value(list).ok()?;
            let line = list.lines().find(|line| line.contains(" cmd=wait "))?;
            line.split([' ', '=']).nth(1).map(str::to_owned)
        })
        .await;
        admin.commands(&[&format!("CLIENT UNBLOCK {blocked} ERROR")]).await;
    };
    let ((), ()) = tokio::join!(row.send(), unblocking);
    assert_eq!(admin.length().await, Some(2), "executed");
    row.is_told("replicas").await;
    replica.thaw();
    row.is_whole(&redis, "UNBLOCKED").await;
    let on_replica = eventually_within(30, "the replica has them", || async {
        Some(replica.jobs("default").await).filter(|jobs| jobs.len() == 2)
    });
    assert_eq!(on_replica.await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cluster_answers_executes_nothing_and_leads_to_the_owner() {
    for release in [Release::Redis62, Release::Usual, Release::Redis8, Release::Valkey] {
        if release.is_made_for_this_machine() {
            cluster_rows(release).await;
        } else {
            println!("{release:?} isn't made for this machine");
        }
    }
}

async fn cluster_rows(release: Release) {
    let cluster = Cluster::start(release, 2, || words("--appendonly no")).await;
    let slot = cluster.nodes[0].slot().await;
    let (owner, other) = cluster.owner_and_other(slot);
    let mut row = Row::start(&format!("redis-cluster://{}", other.server.address), &[]).await;
    row.send().await;

    // One slot without an owner is enough.
    for node in &cluster.nodes {
        node.server.command(&["CLUSTER", "DELSLOTS", &slot.to_string()]).await;
    }
    row.send().await;
    row.is_told("the cluster is down").await;
    owner.server.command(&["CLUSTER", "ADDSLOTS", &slot.to_string()]).await;
    other.server.command(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &owner.id]).await;
    row.is_whole(&owner.server, "CLUSTERDOWN").await;

    owner.begin_to_give(slot, other).await;
    owner.give_key(STREAM, other).await;
    row.send().await;
    // Redis 6.2 says ASK as soon as one key is there already.
    row.is_told(if release.version() < (7, 0) { "ASK" } else { "TRYAGAIN" }).await;
    owner.give_keys(slot, other).await;
    row.send().await;
    row.is_told("ASK").await;
    cluster.give(slot, other).await;
    row.is_whole(&other.server, "TRYAGAIN and ASK").await;

    other.begin_to_give(slot, owner).await;
    other.give_keys(slot, owner).await;
    cluster.give(slot, owner).await;
    row.send().await;
    row.is_whole(&owner.server, "MOVED").await;
}
