//! The real gateway under strace, which lets the k-th write or fsync of a thread fail with EIO, or kills the gateway there.
//! Nothing is lost, doubled or there against its answer, and an error never ends the process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::attempts::{Attempts, Random, rounds};
use crate::support::client::get;
use crate::support::eventually_within;
use crate::support::gateway::jobs;
use crate::support::process::GatewayProcess;
use crate::support::redis_server::RedisServer;

/// What goes to the disk.
const CALLS: &str = "pwrite64,fdatasync,fsync,ftruncate,rename,unlink,openat";

/// Starts the gateway under strace, which stays out of its way: the gateway is our child, and strace ends with it. None
/// if it ended before it listened.
async fn start(inject: &str, folder: &TempDir, settings: &[(&str, &str)]) -> Option<GatewayProcess> {
    let trace = format!("trace={CALLS}");
    let program = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", inject];
    GatewayProcess::start_under(&program, folder, settings).await
}

fn clients(attempts: &Arc<Attempts>, address: SocketAddr) -> Vec<tokio::task::JoinHandle<()>> {
    attempts.go_on();
    (0..4).map(|_| tokio::spawn(Arc::clone(attempts).send_until_gone(address))).collect()
}

async fn end(clients: Vec<tokio::task::JoinHandle<()>>) {
    for client in clients {
        client.await.unwrap();
    }
}

/// An error for one call, or for some behind each other.
fn error_at(random: &mut Random) -> String {
    let call = ["fdatasync", "fdatasync", "pwrite64"][usize::try_from(random.below(3)).unwrap()];
    let first = 8 + random.below(if call == "pwrite64" { 400 } else { 60 });
    let last = first + [0, 0, 3, 12][usize::try_from(random.below(4)).unwrap()];
    format!("inject={call}:error=EIO:when={first}..{last}")
}

fn kill_at(random: &mut Random) -> String {
    format!("inject={CALLS}:signal=KILL:when={}", 1 + random.below(500))
}

/// Sends until jobs were taken for a while behind whatever failed.
async fn send_through(attempts: &Arc<Attempts>, gateway: &GatewayProcess, what: &str) {
    let (before, sending) = (attempts.accepted(), clients(attempts, gateway.address));
    eventually_within(120, &format!("jobs are taken again, {what}"), || async {
        (attempts.accepted() > before + 150).then_some(())
    })
    .await;
    attempts.finish();
    end(sending).await;
    assert_eq!(get(gateway.admin, "/live").await.status, 200, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_disk_under_the_embedded_queue_lose_and_double_nothing() {
    let folder = TempDir::new().unwrap();
    let mut random = Random::from_environment();
    let (attempts, rounds) = (Arc::new(Attempts::default()), rounds(8));
    let mut begun = 0;
    for _ in 0..rounds {
        let inject = error_at(&mut random);
        // An error while the files are opened refuses the start, in words.
        let Some(gateway) = start(&inject, &folder, &[]).await else { continue };
        begun += 1;
        send_through(&attempts, &gateway, &inject).await;
        let (_, _, mut child) = gateway.ignore_log();
        assert!(child.try_wait().unwrap().is_none(), "{inject}");
        child.kill().await.unwrap();
    }
    let gateway = GatewayProcess::start(&folder, &[]).await;
    attempts.prove("EIO", "embedded", &random, rounds, &jobs(gateway.admin).await);
    assert!(begun > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_disk_under_the_journal_lose_and_double_nothing() {
    let folder = TempDir::new().unwrap();
    let mut redis = RedisServer::start().await;
    let mut random = Random::from_environment();
    let (attempts, rounds) = (Arc::new(Attempts::default()), rounds(8));
    let url = redis.url();
    let settings = [("RETRIEVE_QUEUE", url.as_str()), ("RETRIEVE_QUEUE_TIMEOUT", "400ms")];
    redis.kill();
    let mut begun = 0;
    for _ in 0..rounds {
        let inject = error_at(&mut random);
        let Some(gateway) = start(&inject, &folder, &settings).await else { continue };
        begun += 1;
        send_through(&attempts, &gateway, &inject).await;
        if random.below(2) == 0 {
            redis.restart().await;
            tokio::time::sleep(Duration::from_millis(random.below(300))).await;
            redis.kill();
        }
        let (_, _, mut child) = gateway.ignore_log();
        assert!(child.try_wait().unwrap().is_none(), "{inject}");
        child.kill().await.unwrap();
    }
    redis.restart().await;
    let gateway = GatewayProcess::start(&folder, &settings).await;
    drained(gateway.admin).await;
    attempts.prove("EIO", "journal", &random, rounds, &redis.jobs("default").await);
    assert!(begun > 0);
}

/// Sends until the kill comes; where it doesn't come in time, it is done by hand.
async fn send_until_killed(attempts: &Arc<Attempts>, gateway: GatewayProcess) -> bool {
    let sending = clients(attempts, gateway.address);
    let (_, _, mut child) = gateway.ignore_log();
    let came = tokio::time::timeout(Duration::from_secs(3), child.wait()).await.is_ok();
    child.kill().await.unwrap();
    end(sending).await;
    came
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_step_of_the_embedded_queues_writes_lose_and_double_nothing() {
    let folder = TempDir::new().unwrap();
    let mut random = Random::from_environment();
    let (attempts, rounds) = (Arc::new(Attempts::default()), rounds(20));
    let mut killed = 0;
    for _ in 0..rounds {
        killed += match start(&kill_at(&mut random), &folder, &[]).await {
            Some(gateway) => u64::from(send_until_killed(&attempts, gateway).await),
            None => 1,
        };
    }
    let gateway = GatewayProcess::start(&folder, &[]).await;
    println!("{killed} of {rounds} killed at a call");
    attempts.prove("kill at a write", "embedded", &random, rounds, &jobs(gateway.admin).await);
    assert!(killed > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_step_of_the_journals_writes_lose_and_double_nothing() {
    let folder = TempDir::new().unwrap();
    let mut redis = RedisServer::start().await;
    let mut random = Random::from_environment();
    let (attempts, rounds) = (Arc::new(Attempts::default()), rounds(20));
    let url = redis.url();
    let settings = [("RETRIEVE_QUEUE", url.as_str()), ("RETRIEVE_QUEUE_TIMEOUT", "400ms")];
    redis.kill();
    let mut killed = 0;
    for round in 0..rounds {
        // Redis is there for some of the rounds, so that the journal is also numbered anew and emptied.
        if round % 4 == 3 {
            redis.restart().await;
        }
        killed += match start(&kill_at(&mut random), &folder, &settings).await {
            Some(gateway) => u64::from(send_until_killed(&attempts, gateway).await),
            None => 1,
        };
        redis.kill();
    }
    redis.restart().await;
    let gateway = GatewayProcess::start(&folder, &settings).await;
    println!("{killed} of {rounds} killed at a call");
    drained(gateway.admin).await;
    attempts.prove("kill at a write", "journal", &random, rounds, &redis.jobs("default").await);
    assert!(killed > 0);
}

async fn drained(admin: SocketAddr) {
    eventually_within(120, "Redis has what the journal held", || async {
        let text = get(admin, "/metrics").await.body;
        text.contains("\nretrieve_journal_jobs 0\n").then_some(())
    })
    .await;
}
