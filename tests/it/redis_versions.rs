//! The same proofs on every release that the gateway is for: the oldest Redis, the system's, a recent one, and Valkey.

use std::sync::Arc;

use retrieve_gateway::queue::redis::RIGHTS;
use tempfile::TempDir;

use crate::support::attempts::Attempts;
use crate::support::client::get;
use crate::support::gateway::{TestGateway, journal_is_sent_within};
use crate::support::groups;
use crate::support::load::Load;
use crate::support::process::GatewayProcess;
use crate::support::random::Random;
use crate::support::redis_server::{RedisServer, Release, STREAM, words};
use crate::support::{eventually, eventually_within};

const NO_JOURNAL: (&str, &str) = ("RETRIEVE_DATA_DIR", "off");
/// What batches have before they go to the journal is three quarters of this.
const TIMEOUT: (&str, &str) = ("RETRIEVE_QUEUE_TIMEOUT", "1s");

macro_rules! on_release {
    ($module:ident $release:ident $($proof:ident)*) => {
        mod $module {
            use crate::support::redis_server::Release;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $proof() {
                if Release::$release.is_made_for_this_machine() {
                    super::$proof(Release::$release).await;
                } else {
                    println!("{:?} isn't made for this machine", Release::$release);
                }
            })*
        }
    };
}

macro_rules! on_every_release {
    ($($proof:ident)*) => {
        on_release!(redis_6_2 Redis62 $($proof)*);
        on_release!(redis_usual Usual $($proof)*);
        on_release!(redis_8 Redis8 $($proof)*);
        on_release!(valkey Valkey $($proof)*);
    };
}

on_every_release! {
    every_script_runs_with_the_documented_rights
    a_right_that_is_missing_is_named
    kills_of_both_sides_lose_and_double_nothing
    a_transaction_torn_on_the_disk_comes_again_and_only_once
    an_outage_is_drained_in_order
    a_failover_behind_a_sentinel_loses_and_doubles_nothing
    writes_that_are_refused_are_told_and_end
    replicas_confirm_what_counts
    fsync_confirms_what_counts_or_is_refused_in_plain_words
    a_group_that_nobody_reads_is_dead_while_entries_wait_for_it
}

/// Takes what the group hasn't taken yet, and acknowledges it.
async fn handle(redis: &RedisServer, group: &str) -> usize {
    let ids = groups::take(redis, group, 100).await;
    groups::acknowledge(redis, group, &ids).await;
    ids.len()
}

async fn every_script_runs_with_the_documented_rights(release: Release) {
    let redis = RedisServer::start_release(release, Vec::new).await;
    let all: Vec<&str> = RIGHTS.split_whitespace().collect();
    let url = user(&redis, "~retrieve:{default}:*", &all).await;
    let toml = "[[integration]]\nid = \"demo\"\ndedupe = { by = \"body\", within = \"1h\" }\n";
    let gateway = TestGateway::with_integrations(toml, &[("RETRIEVE_QUEUE", &url)]).await;
    gateway.ready().await;
    gateway.take_numbers(0..3).await;
    let first = gateway.post_json("{\"n\":3}").await;
    let repeat = gateway.post_json("{\"n\":3}").await;
    assert_eq!(repeat.header("x-retrieve-job-id"), first.header("x-retrieve-job-id"));
    assert_eq!(redis.numbers().await, [0, 1, 2, 3], "appended in order, a repeat not again");
    assert_eq!(gateway.jobs().await.len(), 4, "and read");

    // A server that forgot everything is given it again behind a fence.
    redis.command(&["FLUSHALL"]).await;
    gateway.take_numbers(4..5).await;
    eventually("the jobs are back", || async { (redis.numbers().await == [0, 1, 2, 3, 4]).then_some(()) })
        .await;

    groups::create(&redis, "workers", "0").await;
    let taken = groups::take(&redis, "workers", 2).await;
    eventually_within(30, "what the group holds is counted", || async {
        (gateway.metric(&groups::metric("pending", "workers")).await? == 2.0).then_some(())
    })
    .await;
    let lag = gateway.metric(&groups::metric("lag", "workers")).await;
    assert_eq!(lag, (release.version() >= (7, 0)).then_some(3.0), "Redis 6.2 doesn't say it");
    groups::acknowledge(&redis, "workers", &taken).await;
    eventually_within(30, "what was acknowledged goes", || async {
        (redis.numbers().await == [2, 3, 4]).then_some(())
    })
    .await;
    assert_eq!(handle(&redis, "workers").await, 3);
    eventually_within(30, "the rest goes", || async { redis.numbers().await.is_empty().then_some(()) }).await;
    gateway.take_numbers(5..6).await;
    assert_eq!(redis.numbers().await, [5]);
}

/// A user with these rights and no other, and the URL with its login.
async fn user(redis: &RedisServer, keys: &str, rights: &[&str]) -> String {
    let mut words = vec!["ACL", "SETUSER", "gateway", "reset", "on", ">canary", keys];
    words.extend(rights);
    redis.command(&words).await;
    redis.url().replace("redis://", "redis://gateway:canary@")
}

async fn a_right_that_is_missing_is_named(release: Release) {
    let all: Vec<&str> = RIGHTS.split_whitespace().collect();
    let keys = "~retrieve:{default}:*";
    let redis = RedisServer::start_release(release, Vec::new).await;
    let needed = "evalsha script|load multi exec hget hset xadd xlen xinfo type exists rename renamenx set get pexpire";
    for missing in needed.split(' ') {
        let rights: Vec<&str> = all.iter().copied().filter(|right| right[1..] != *missing).collect();
        assert_eq!(rights.len() + 1, all.len(), "{missing}");
        let url = user(&redis, keys, &rights).await;
        let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &url), NO_JOURNAL]).await;
        let why = gateway.why_not_ready(&["the rights that this user needs: +evalsha"]).await;
        let told = why.split("the rights").next().unwrap().to_lowercase();
        // Redis 6.2 names the command without its subcommand.
        let named = if release.version() < (7, 0) { missing.split('|').next().unwrap() } else { missing };
        assert!(told.contains(named) && !why.contains("canary"), "{missing}: {why}");
    }
    for missing in ["info", "config|get", "role", "cluster", "wait", "xtrim", "xpending", "time"] {
        let rights: Vec<&str> = all.iter().copied().filter(|right| right[1..] != *missing).collect();
        let url = user(&redis, keys, &rights).await;
        let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &url), NO_JOURNAL]).await;
        gateway.ready().await;
    }
    let url = user(&redis, "~retrieve:{other}:*", &all).await;
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &url), NO_JOURNAL]).await;
    gateway.why_not_ready(&["the rights that this user needs"]).await;
}

async fn kills_of_both_sides_lose_and_double_nothing(release: Release) {
    const KILLS: u64 = 12;
    let folder = TempDir::new().unwrap();
    let mut redis = RedisServer::start_release(release, Vec::new).await;
    let url = redis.url();
    let settings = [("RETRIEVE_QUEUE", url.as_str()), TIMEOUT];
    let attempts = Arc::new(Attempts::default());
    let mut random = Random::from_environment();
    for round in 0..KILLS {
        let gateway = GatewayProcess::start(&folder, &settings).await;
        let (address, _, mut child) = gateway.ignore_log();
        let clients = attempts.start_clients(address, 4);
        attempts.go_on_within(10, 20).await;
        tokio::time::sleep(random.moment(100)).await;
        match round % 3 {
            0 => redis.kill(),
            1 => redis.restart().await,
            _ => redis.freeze(),
        }
        tokio::time::sleep(random.moment(200)).await;
        child.kill().await.unwrap();
        clients.join_all().await;
        if round % 3 == 2 {
            redis.thaw();
        }
    }
    redis.restart().await;
    let gateway = GatewayProcess::start(&folder, &settings).await;
    let (_, admin, _child) = gateway.ignore_log();
    journal_is_sent_within(10, admin).await;
    let accepted = attempts.check(&redis.jobs("default").await);
    assert!(accepted > 200, "the load was too small to prove anything: {accepted}");
}

/// A server that dies while it writes tears its last transaction. It forgets that batch, so the gateway sends it again; and
/// what lies in the file mustn't come back at a later start.
async fn a_transaction_torn_on_the_disk_comes_again_and_only_once(release: Release) {
    let mut redis = RedisServer::start_release(release, Vec::new).await;
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url())]).await;
    gateway.ready().await;
    gateway.take_numbers(0..5).await;
    redis.kill();
    redis.tear_file_behind("{\"n\":4}");
    redis.restart().await;
    assert_eq!(redis.numbers().await.iter().filter(|n| **n < 4).count(), 4, "only the last batch is torn");
    gateway.take_numbers(5..6).await;
    gateway.sent_its_journal().await;
    assert_eq!(redis.numbers().await, [0, 1, 2, 3, 4, 5]);
    redis.restart().await;
    gateway.take_numbers(6..7).await;
    gateway.sent_its_journal().await;
    assert_eq!(redis.numbers().await, [0, 1, 2, 3, 4, 5, 6]);
}

async fn an_outage_is_drained_in_order(release: Release) {
    let mut redis = RedisServer::start_release(release, Vec::new).await;
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), TIMEOUT]).await;
    gateway.ready().await;
    gateway.take_numbers(0..5).await;
    redis.kill();
    gateway.take_numbers(5..60).await;
    assert_eq!(gateway.metric("retrieve_journal_jobs").await, Some(55.0));
    redis.restart().await;
    gateway.sent_its_journal().await;
    gateway.take_numbers(60..61).await;
    assert_eq!(redis.numbers().await, (0..=60).collect::<Vec<_>>());
}

async fn a_failover_behind_a_sentinel_loses_and_doubles_nothing(release: Release) {
    let settings = || words("--appendonly no --repl-diskless-sync-delay 0");
    let mut master = RedisServer::start_release(release, settings).await;
    let replica = RedisServer::start_release(release, settings).await;
    let port = master.address.port();
    replica.command(&["REPLICAOF", "127.0.0.1", &port.to_string()]).await;
    let sentinel = RedisServer::start_sentinel_of(release, port, 2000, Vec::new).await;
    let url = format!("redis-sentinel://{}/mymaster", sentinel.address);
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &url), TIMEOUT]).await;
    gateway.ready().await;
    let load = Load::start(gateway.address);
    load.goes_on().await;
    replica.will_say("replication", "master_link_status:up").await;
    sentinel.knows_replica(&replica.address.port().to_string()).await;
    master.kill();
    load.goes_on().await;
    replica.will_say("replication", "role:master").await;
    load.goes_on().await;
    load.finish(&gateway).await.check(&replica.jobs("default").await);
}

async fn writes_that_are_refused_are_told_and_end(release: Release) {
    let redis = RedisServer::start_release(release, Vec::new).await;
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), TIMEOUT]).await;
    gateway.ready().await;
    let set = |name: &'static str, value: &'static str| vec!["CONFIG", "SET", name, value];
    let mut sent = 0;
    for (expect, breaking, mending) in [
        ("OOM", set("maxmemory", "1"), set("maxmemory", "0")),
        ("READONLY", vec!["REPLICAOF", "127.0.0.1", "1"], vec!["REPLICAOF", "NO", "ONE"]),
        ("NOREPLICAS", set("min-replicas-to-write", "1"), set("min-replicas-to-write", "0")),
        ("+xadd", vec!["ACL", "SETUSER", "default", "-xadd"], vec!["ACL", "SETUSER", "default", "+@all"]),
        ("allkeys-lru", set("maxmemory-policy", "allkeys-lru"), set("maxmemory-policy", "noeviction")),
    ] {
        redis.command(&breaking).await;
        gateway.note(&[expect]).await;
        gateway.take_numbers(sent..sent + 3).await;
        sent += 3;
        assert_eq!(gateway.metric("retrieve_journal_jobs").await, Some(3.0), "{expect}");
        redis.command(&mending).await;
        gateway.sent_its_journal().await;
        assert_eq!(redis.numbers().await, (0..sent).collect::<Vec<_>>(), "{expect}");
    }
}

async fn replicas_confirm_what_counts(release: Release) {
    let redis = RedisServer::start_release(release, Vec::new).await;
    let replica = RedisServer::start_release(release, Vec::new).await;
    let ack = ("RETRIEVE_ACK", "replicas:1");
    let gateway = TestGateway::start(&[("RETRIEVE_QUEUE", &redis.url()), ack, TIMEOUT]).await;
    gateway.note(&["0 of 1 replicas confirmed"]).await;
    gateway.take_numbers(0..2).await;
    assert_eq!(redis.numbers().await, [] as [u64; 0], "nothing is sent before a replica can confirm it");
    let port = redis.address.port().to_string();
    replica.command(&["REPLICAOF", "127.0.0.1", &port]).await;
    gateway.sent_its_journal().await;
    gateway.take_numbers(2..3).await;
    assert_eq!(replica.numbers().await, [0, 1, 2], "a 200 means that the replica has it");
    // Executed and not confirmed: sent again it would be a second one.
    replica.freeze();
    gateway.take_numbers(3..5).await;
    assert_eq!(gateway.metric("retrieve_journal_jobs").await, Some(2.0));
    replica.thaw();
    gateway.sent_its_journal().await;
    assert_eq!(redis.numbers().await, [0, 1, 2, 3, 4]);
    eventually("the replica has them", || async { (replica.numbers().await.len() == 5).then_some(()) }).await;
}

async fn fsync_confirms_what_counts_or_is_refused_in_plain_words(release: Release) {
    let fsync = ("RETRIEVE_ACK", "fsync");
    // Fsynced by Redis itself a second later; the gateway waits for that.
    let everysec = || words("--appendfsync everysec");
    let mut redis = RedisServer::start_release(release, everysec).await;
    let mut rights: Vec<&str> = RIGHTS.split_whitespace().collect();
    if release.has_waitaof() {
        rights.push("+waitaof");
    }
    let queue = user(&redis, "~retrieve:{default}:*", &rights).await;
    let settings = [("RETRIEVE_QUEUE", queue.as_str()), fsync];
    let gateway = TestGateway::start(&settings).await;
    if !release.has_waitaof() {
        let (major, minor) = release.version();
        let needs = format!("needs WAITAOF, so Redis 7.2 or later; this is {major}.{minor}");
        gateway.note(&[&needs]).await;
        gateway.take_numbers(0..1).await;
        assert_eq!(gateway.metric("retrieve_journal_jobs").await, Some(1.0));
        let refusing = TestGateway::start(&[settings[0], settings[1], NO_JOURNAL]).await;
        refusing.why_not_ready(&["needs WAITAOF, so Redis 7.2 or later"]).await;
        assert_eq!(refusing.post_json("{}").await.status, 503);
        return;
    }
    gateway.ready().await;
    gateway.take_numbers(0..4).await;
    let without_journal = TestGateway::start(&[settings[0], settings[1], NO_JOURNAL]).await;
    without_journal.ready().await;
    without_journal.take_numbers(4..5).await;
    drop(without_journal);
    redis.restart().await;
    user(&redis, "~retrieve:{default}:*", &rights).await;
    gateway.take_numbers(5..6).await;
    gateway.sent_its_journal().await;
    assert_eq!(redis.numbers().await, [0, 1, 2, 3, 4, 5]);
    redis.command(&["CONFIG", "SET", "appendfsync", "no"]).await;
    redis.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    gateway.note(&["needs `appendfsync always` or `everysec`"]).await;
    redis.command(&["CONFIG", "SET", "appendfsync", "always"]).await;
    gateway.sent_its_journal().await;
    redis.command(&["CONFIG", "SET", "appendonly", "no"]).await;
    redis.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    gateway.note(&["needs `appendonly yes`"]).await;
    gateway.take_numbers(6..7).await;
    redis.command(&["CONFIG", "SET", "appendonly", "yes"]).await;
    gateway.sent_its_journal().await;
    assert_eq!(redis.numbers().await, [0, 1, 2, 3, 4, 5, 6]);
}

async fn a_group_that_nobody_reads_is_dead_while_entries_wait_for_it(release: Release) {
    let redis = RedisServer::start_release(release, Vec::new).await;
    let gateway = groups::impatient_gateway(&redis).await;
    gateway.take_numbers(0..2).await;
    for group in ["reading", "gone"] {
        groups::create(&redis, group, "0").await;
        assert_eq!(handle(&redis, group).await, 2);
    }
    groups::create(&redis, "never", "$").await;
    gateway.take_numbers(2..3).await;
    assert_eq!(handle(&redis, "reading").await, 1);
    for group in ["gone", "never"] {
        eventually_within(40, &format!("the group `{group}` is dead"), || async {
            (gateway.metric(&groups::metric("dead", group)).await? == 1.0).then_some(())
        })
        .await;
    }
    // It was as silent as the others, but nothing waits for it.
    assert_eq!(gateway.metric(&groups::metric("dead", "reading")).await, Some(0.0));
    assert_eq!(redis.numbers().await, [2], "what a dead group hasn't taken stays");
    assert_eq!(handle(&redis, "gone").await, 1);
    redis.command(&["XGROUP", "DESTROY", STREAM, "never"]).await;
    eventually_within(30, "a group that was read again isn't dead", || async {
        (gateway.metric(&groups::metric("dead", "gone")).await? == 0.0).then_some(())
    })
    .await;
    eventually_within(30, "what nobody needs goes", || async {
        redis.numbers().await.is_empty().then_some(())
    })
    .await;
    let metrics = get(gateway.admin, "/metrics").await.body;
    assert!(!metrics.contains("group=\"never\""), "a destroyed group is measured no more");
}
