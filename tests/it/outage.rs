//! Redis with its outage journal: the order of what came, moving up from the embedded queue, a full journal, a Redis that is
//! emptied, a copied folder. Kills and freezes by the hundred: `faults`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::attempts::Attempts;
use crate::support::client::{exchange, get, post};
use crate::support::process::GatewayProcess;
use crate::support::random::Random;
use crate::support::redis_server::{RedisServer, STREAM, without_a_file};
use crate::support::{eventually, eventually_within};

/// Freezes and kills take longer than the three quarters of this that Redis has, and a busy machine's fsync less.
const TIMEOUT: (&str, &str) = ("RETRIEVE_QUEUE_TIMEOUT", "400ms");

async fn send(gateway: &GatewayProcess, number: usize) -> u16 {
    let body = format!("{{\"n\":{number}}}");
    exchange(gateway.address, post("/integration/demo", "application/json", body)).await.status
}

async fn metric(gateway: &GatewayProcess, name: &str) -> f64 {
    metric_at(gateway.admin, name).await
}

async fn metric_at(admin: std::net::SocketAddr, name: &str) -> f64 {
    let text = get(admin, "/metrics").await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Waits until Redis has all that the journal held, and Redis takes jobs directly again.
async fn drained(admin: std::net::SocketAddr) {
    eventually_within(60, "the journal is empty", || async {
        (metric_at(admin, "retrieve_journal_jobs").await == 0.0).then_some(())
    })
    .await;
}

fn numbers(jobs: &[Value]) -> Vec<u64> {
    jobs.iter().map(|job| job["data"]["data"]["n"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_during_an_outage_survives_a_kill_and_arrives_in_order() {
    let folder = TempDir::new().unwrap();
    let mut redis = RedisServer::start().await;
    let url = redis.url();
    let settings = [("RETRIEVE_QUEUE", url.as_str()), TIMEOUT];
    let gateway = GatewayProcess::start(&folder, &settings).await;
    for number in 0..5 {
        assert_eq!(send(&gateway, number).await, 200);
    }
    redis.kill();
    for number in 5..25 {
        assert_eq!(send(&gateway, number).await, 200, "{number}");
    }
    let ready = get(gateway.admin, "/ready").await;
    assert_eq!(ready.status, 200, "the journal takes jobs: {}", ready.body);
    assert!(ready.json()["probes"]["queue"]["note"].is_string(), "and says that it does: {}", ready.body);
    assert_eq!(metric(&gateway, "retrieve_journal_jobs").await, 20.0);
    let (_, _, mut child) = gateway.ignore_log();
    child.kill().await.unwrap();

    // Still without Redis: what is there stays there, and more is taken behind it.
    let gateway = GatewayProcess::start(&folder, &settings).await;
    for number in 25..30 {
        assert_eq!(send(&gateway, number).await, 200, "{number}");
    }
    redis.restart().await;
    drained(gateway.admin).await;
    assert_eq!(send(&gateway, 30).await, 200);
    assert_eq!(numbers(&redis.jobs("default").await), (0..=30).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_up_takes_the_backlog_along_once_while_webhooks_are_taken() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data").display().to_string();
    let gateway = GatewayProcess::start(&folder, &[]).await;
    let attempts = Arc::new(Attempts::default());
    let clients: Vec<_> =
        (0..4).map(|_| tokio::spawn(Arc::clone(&attempts).send_until_gone(gateway.address))).collect();
    eventually("there is a backlog", || async { (attempts.accepted() > 1500).then_some(()) }).await;
    let (_, _, mut child) = gateway.ignore_log();
    child.kill().await.unwrap();
    for client in clients {
        client.await.unwrap();
    }

    // Killed on the way, several times, with new webhooks coming in.
    let redis = RedisServer::start().await;
    let url = redis.url();
    let settings = [("RETRIEVE_QUEUE", url.as_str()), ("RETRIEVE_DATA_DIR", data.as_str()), TIMEOUT];
    let mut random = Random::from_environment();
    for _ in 0..8 {
        let (address, _, mut child) = GatewayProcess::start(&folder, &settings).await.ignore_log();
        let client = tokio::spawn(Arc::clone(&attempts).send_until_gone(address));
        tokio::time::sleep(Duration::from_millis(random.below(80))).await;
        child.kill().await.unwrap();
        client.await.unwrap();
    }
    let gateway = GatewayProcess::start(&folder, &settings).await;
    eventually("everything is moved", || async {
        (metric(&gateway, "retrieve_moving_jobs").await == 0.0
            && attempts.accepted() <= redis.jobs("default").await.len())
        .then_some(())
    })
    .await;
    drained(gateway.admin).await;
    attempts.check(&redis.jobs("default").await);

    // Back to the embedded queue: it is empty, and its numbers go on.
    let (_, _, mut child) = gateway.ignore_log();
    child.kill().await.unwrap();
    let gateway = GatewayProcess::start(&folder, &[]).await;
    let jobs = get(gateway.admin, "/api/jobs?after=0").await;
    assert_eq!(jobs.body, "", "everything was moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_refuses_and_takes_jobs_again_when_redis_is_back() {
    let folder = TempDir::new().unwrap();
    let mut redis = RedisServer::start().await;
    redis.kill();
    let url = redis.url();
    let settings = [("RETRIEVE_QUEUE", url.as_str()), TIMEOUT, ("RETRIEVE_JOURNAL_LIMIT", "4KiB")];
    let gateway = GatewayProcess::start(&folder, &settings).await;
    let mut accepted = 0;
    while send(&gateway, accepted).await == 200 {
        accepted += 1;
        assert!(accepted < 50, "it never becomes full");
    }
    let ready = get(gateway.admin, "/ready").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("journal is full"), "{}", ready.body);
    redis.restart().await;
    drained(gateway.admin).await;
    assert_eq!(send(&gateway, accepted).await, 200);
    let expect: Vec<u64> = (0..=accepted as u64).collect();
    assert_eq!(numbers(&redis.jobs("default").await), expect, "what was refused is not there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_jobs_gets_them_again_and_what_is_gone_for_good_is_counted() {
    let folder = TempDir::new().unwrap();
    let redis = RedisServer::start().await;
    let url = redis.url();
    let settings = [("RETRIEVE_QUEUE", url.as_str()), TIMEOUT];
    let gateway = GatewayProcess::start(&folder, &settings).await;
    for number in 0..10 {
        assert_eq!(send(&gateway, number).await, 200);
    }
    // Emptied as a replica is that never heard of the jobs: the gateway still holds what it was told is there.
    redis.command(&["FLUSHALL"]).await;
    assert_eq!(send(&gateway, 10).await, 200);
    let is_back = async || {
        eventually("everything is back", || async {
            (numbers(&redis.jobs("default").await) == (0..=10).collect::<Vec<_>>()).then_some(())
        })
        .await;
    };
    is_back().await;
    // The stream alone is gone, or made anew for a group. Without a webhook the gateway sees that, too.
    for makes_anew in [false, true] {
        redis.command(&["DEL", STREAM]).await;
        if makes_anew {
            redis.command(&["XGROUP", "CREATE", STREAM, "workers", "0", "MKSTREAM"]).await;
        }
        is_back().await;
    }
    assert_eq!(metric(&gateway, "retrieve_redis_losses_total").await, 0.0);

    // After a restart it holds nothing any more, but still knows what Redis should have.
    gateway.signal(rustix::process::Signal::TERM);
    let (_, _, mut child) = gateway.ignore_log();
    child.wait().await.unwrap();
    redis.command(&["FLUSHALL"]).await;
    let gateway = GatewayProcess::start(&folder, &settings).await;
    assert_eq!(send(&gateway, 11).await, 200);
    eventually("the loss is counted", || async {
        (metric(&gateway, "retrieve_redis_losses_total").await == 1.0).then_some(())
    })
    .await;
    assert_eq!(numbers(&redis.jobs("default").await), [11], "and work goes on");

    // The marker alone is gone: nothing is sent twice, and the operator is told.
    redis.command(&["DEL", "retrieve:{default}:producers"]).await;
    assert_eq!(send(&gateway, 12).await, 200);
    eventually("the loss of the marker is counted", || async {
        (metric(&gateway, "retrieve_redis_losses_total").await == 2.0).then_some(())
    })
    .await;
    eventually("work goes on", || async {
        (numbers(&redis.jobs("default").await) == [11, 12]).then_some(())
    })
    .await;
}

/// Longer than what was confirmed is held while Redis is there: a failover may take its time.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_after_a_long_time_gets_what_it_had_confirmed() {
    let folder = TempDir::new().unwrap();
    let mut redis = RedisServer::start_with(without_a_file).await;
    let gateway = GatewayProcess::start(&folder, &[("RETRIEVE_QUEUE", redis.url().as_str()), TIMEOUT]).await;
    for number in 0..10 {
        assert_eq!(send(&gateway, number).await, 200);
    }
    redis.kill();
    tokio::time::sleep(Duration::from_secs(13)).await;
    redis.restart().await;
    eventually("everything is back", || async {
        (numbers(&redis.jobs("default").await) == (0..10).collect::<Vec<_>>()).then_some(())
    })
    .await;
    assert_eq!(metric(&gateway, "retrieve_redis_losses_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_folder_is_noticed_before_it_writes_over_the_other() {
    let (folder, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let redis = RedisServer::start().await;
    let url = redis.url();
    let settings = [("RETRIEVE_QUEUE", url.as_str()), TIMEOUT];
    let gateway = GatewayProcess::start(&folder, &settings).await;
    assert_eq!(send(&gateway, 0).await, 200);
    let (_, _, mut child) = gateway.ignore_log();
    child.kill().await.unwrap();
    std::fs::create_dir(copy.path().join("journal")).unwrap();
    for file in std::fs::read_dir(folder.path().join("journal")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join("journal").join(file.file_name())).unwrap();
    }
    let first = GatewayProcess::start(&folder, &settings).await;
    assert_eq!(send(&first, 1).await, 200);
    let second = GatewayProcess::start(&copy, &settings).await;
    let why = eventually("the second one is refused", || async {
        let ready = get(second.admin, "/ready").await;
        (ready.status == 503 && ready.body.contains("copy of this data folder")).then_some(ready.body)
    })
    .await;
    assert_eq!(send(&second, 2).await, 503, "{why}");
    assert_eq!(send(&first, 3).await, 200, "the first one isn't disturbed");
    assert_eq!(numbers(&redis.jobs("default").await), [0, 1, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_script_cache_and_killed_connections_cost_nothing() {
    let folder = TempDir::new().unwrap();
    let redis = RedisServer::start().await;
    let url = redis.url();
    let gateway = GatewayProcess::start(&folder, &[("RETRIEVE_QUEUE", url.as_str()), TIMEOUT]).await;
    let attempts = Arc::new(Attempts::default());
    let clients: Vec<_> =
        (0..4).map(|_| tokio::spawn(Arc::clone(&attempts).send_until_gone(gateway.address))).collect();
    for round in 0..40 {
        let before = attempts.accepted();
        eventually("webhooks are accepted", || async { (attempts.accepted() > before + 5).then_some(()) })
            .await;
        let trouble: &[&str] = if round % 2 == 0 {
            &["SCRIPT", "FLUSH"]
        } else {
            &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]
        };
        redis.command(trouble).await;
    }
    attempts.finish();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(attempts.refused(), HashMap::new());
    drained(gateway.admin).await;
    attempts.check(&redis.jobs("default").await);
    assert!(metric(&gateway, "retrieve_redis_broken_connections_total").await >= 20.0);
    let ready = get(gateway.admin, "/ready").await.json();
    assert_eq!(ready["probes"]["queue"], json!({ "ready": true }));
}
