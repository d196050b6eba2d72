//! The real gateway under strace, which lets the k-th write or fsync of a thread fail with EIO, or kills the gateway there.
//! Nothing is lost, doubled or there against its answer, and an error never ends the process.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::support::attempts::{ATTEMPTS_HAVE_ADDRESSES, Attempts};
use crate::support::client::get;
use crate::support::fault_run::FaultRun;
use crate::support::gateway::{SMALL_FILES, jobs, journal_is_sent_within};
use crate::support::process::{GatewayProcess, RunningGateway};
use crate::support::random::Random;
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

/// Starts it in the same way, and takes each refusal's outcome from its log.
async fn start_noted(
    inject: &str,
    folder: &TempDir,
    settings: &[(&str, &str)],
    attempts: &Arc<Attempts>,
) -> Option<RunningGateway> {
    let settings = [settings, &ATTEMPTS_HAVE_ADDRESSES].concat();
    Some(attempts.note_refusals_of(start(inject, folder, &settings).await?))
}

/// An error for one call, or for some behind each other.
fn error_at(random: &mut Random) -> String {
    let call = *random.pick(&["fdatasync", "fdatasync", "pwrite64"]);
    let first = 8 + random.below(if call == "pwrite64" { 400 } else { 60 });
    let last = first + random.pick(&[0, 0, 3, 12]);
    format!("inject={call}:error=EIO:when={first}..{last}")
}

fn kill_at(random: &mut Random) -> String {
    format!("inject={CALLS}:signal=KILL:when={}", 1 + random.below(500))
}

/// Sends until jobs were taken for a while behind whatever failed. If the last one is refused while nothing can be written, the
/// outcome is that it may be there (`queue_unconfirmed`): that it counts for nothing is noted only when that can be.
async fn send_through(attempts: &Arc<Attempts>, gateway: &RunningGateway, what: &str) {
    let sending = attempts.start_clients(gateway.address, 4);
    attempts.go_on_within(120, 150).await;
    attempts.finish();
    sending.join_all().await;
    attempts.refusals_are_noted().await;
    assert_eq!(get(gateway.admin, "/live").await.status, 200, "{what}");
}

/// Ends a gateway that hasn't ended by itself.
async fn stop(mut gateway: RunningGateway, what: &str) {
    assert!(gateway.is_running(), "{what}");
    gateway.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_disk_under_the_embedded_queue_lose_and_double_nothing() {
    let folder = TempDir::new().unwrap();
    let mut run = FaultRun::begin("EIO", "embedded", 8);
    let attempts = Arc::new(Attempts::default());
    let mut begun = 0;
    for _ in 0..run.rounds {
        let inject = error_at(&mut run.random);
        // An error while the files are opened refuses the start, in words.
        let Some(gateway) = start_noted(&inject, &folder, &[SMALL_FILES], &attempts).await else { continue };
        begun += 1;
        send_through(&attempts, &gateway, &inject).await;
        stop(gateway, &inject).await;
    }
    let gateway = GatewayProcess::start(&folder, &[SMALL_FILES]).await;
    run.end(attempts.account(&jobs(gateway.admin).await), &json!({}));
    assert!(begun > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_disk_under_the_journal_lose_and_double_nothing() {
    let folder = TempDir::new().unwrap();
    let mut redis = RedisServer::start().await;
    let mut run = FaultRun::begin("EIO", "journal", 8);
    let attempts = Arc::new(Attempts::default());
    let url = redis.url();
    let settings = [("RETRIEVE_QUEUE", url.as_str()), ("RETRIEVE_QUEUE_TIMEOUT", "400ms")];
    redis.kill();
    let mut begun = 0;
    for _ in 0..run.rounds {
        let inject = error_at(&mut run.random);
        let Some(gateway) = start_noted(&inject, &folder, &settings, &attempts).await else { continue };
        begun += 1;
        send_through(&attempts, &gateway, &inject).await;
        if run.random.below(2) == 0 {
            redis.restart().await;
            tokio::time::sleep(run.random.moment(300)).await;
            redis.kill();
        }
        stop(gateway, &inject).await;
    }
    redis.restart().await;
    let gateway = GatewayProcess::start(&folder, &settings).await;
    journal_is_sent_within(120, gateway.admin).await;
    run.end(attempts.account(&redis.jobs("default").await), &json!({}));
    assert!(begun > 0);
}

/// Sends until the kill comes; where it doesn't come in time, it is done by hand.
async fn send_until_killed(attempts: &Arc<Attempts>, gateway: GatewayProcess) -> bool {
    let sending = attempts.start_clients(gateway.address, 4);
    let (_, _, mut child) = gateway.ignore_log();
    let came = tokio::time::timeout(Duration::from_secs(3), child.wait()).await.is_ok();
    child.kill().await.unwrap();
    sending.join_all().await;
    came
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_step_of_the_embedded_queues_writes_lose_and_double_nothing() {
    let folder = TempDir::new().unwrap();
    let mut run = FaultRun::begin("kill at a write", "embedded", 20);
    let attempts = Arc::new(Attempts::default());
    let mut killed = 0;
    for _ in 0..run.rounds {
        killed += match start(&kill_at(&mut run.random), &folder, &[SMALL_FILES]).await {
            Some(gateway) => u64::from(send_until_killed(&attempts, gateway).await),
            None => 1,
        };
    }
    let gateway = GatewayProcess::start(&folder, &[SMALL_FILES]).await;
    println!("{killed} of {} killed at a call", run.rounds);
    run.end(attempts.account(&jobs(gateway.admin).await), &json!({}));
    assert!(killed > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_step_of_the_journals_writes_lose_and_double_nothing() {
    let folder = TempDir::new().unwrap();
    let mut redis = RedisServer::start().await;
    let mut run = FaultRun::begin("kill at a write", "journal", 20);
    let attempts = Arc::new(Attempts::default());
    let url = redis.url();
    let settings = [("RETRIEVE_QUEUE", url.as_str()), ("RETRIEVE_QUEUE_TIMEOUT", "400ms")];
    redis.kill();
    let mut killed = 0;
    for round in 0..run.rounds {
        // Redis is there for some of the rounds, so that the journal is also numbered anew and emptied.
        if round % 4 == 3 {
            redis.restart().await;
        }
        killed += match start(&kill_at(&mut run.random), &folder, &settings).await {
            Some(gateway) => u64::from(send_until_killed(&attempts, gateway).await),
            None => 1,
        };
        redis.kill();
    }
    redis.restart().await;
    let gateway = GatewayProcess::start(&folder, &settings).await;
    println!("{killed} of {} killed at a call", run.rounds);
    journal_is_sent_within(120, gateway.admin).await;
    run.end(attempts.account(&redis.jobs("default").await), &json!({}));
    assert!(killed > 0);
}
