//! The gateway dies by `kill -9` under load, at any moment, and starts again over its folder.
//!
//! A kill leaves the kernel's page cache in place, so it proves the order of commit and answer, not the fsync;
//! `failing_disk` shows that a failed fsync gives no receipt.

use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use super::{DRAIN_SECONDS, TIMEOUT, start_gateway};
use crate::support::attempts::Attempts;
use crate::support::fault_run::FaultRun;
use crate::support::gateway::{SMALL_FILES, file_names, jobs, journal_is_sent_within};
use crate::support::redis_server::RedisServer;

const KILLS: u64 = 100;
const CLIENTS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_loses_and_doubles_nothing_in_the_embedded_queue() {
    let mut run = FaultRun::begin("gateway kill -9", "embedded", KILLS);
    let folder = TempDir::new().unwrap();
    let attempts = Arc::new(Attempts::default());
    for _ in 0..run.rounds {
        let gateway = start_gateway(&folder, &[SMALL_FILES], &attempts).await;
        let clients = attempts.start_clients(gateway.address, CLIENTS);
        tokio::time::sleep(run.random.moment(200)).await;
        gateway.kill().await;
        clients.join_all().await;
    }
    let gateway = start_gateway(&folder, &[SMALL_FILES], &attempts).await;
    let jobs = jobs(gateway.admin).await;
    gateway.kill().await;
    let files = file_names(&folder).len();
    run.end(attempts.account(&jobs), &json!({ "files": files }));
    assert!(files > 1, "gateways died while files were begun, too");
}

/// In two of five rounds Redis dies, comes back, freezes or thaws before the gateway is killed, and stays so for the next
/// one, so that gateways die while they write the journal, send it, or have copies on their way to a frozen Redis.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_loses_and_doubles_nothing_on_redis_with_its_journal() {
    let mut run = FaultRun::begin("gateway kill -9", "redis", KILLS);
    let folder = TempDir::new().unwrap();
    let mut redis = RedisServer::start().await;
    let url = redis.url();
    let settings = [("RETRIEVE_QUEUE", url.as_str()), TIMEOUT];
    let attempts = Arc::new(Attempts::default());
    let mut is_up = true;
    let (mut redis_kills, mut redis_stops) = (0, 0);
    for _ in 0..run.rounds {
        let gateway = start_gateway(&folder, &settings, &attempts).await;
        let clients = attempts.start_clients(gateway.address, CLIENTS / 2);
        tokio::time::sleep(run.random.moment(100)).await;
        match run.random.below(10) {
            0 if is_up => {
                redis.kill();
                is_up = false;
                redis_kills += 1;
            }
            1 if is_up => {
                redis.freeze();
                redis_stops += 1;
            }
            2 | 3 if is_up => redis.thaw(),
            0..=3 => {
                redis.restart().await;
                is_up = true;
            }
            _ => {}
        }
        tokio::time::sleep(run.random.moment(100)).await;
        gateway.kill().await;
        clients.join_all().await;
    }
    match is_up {
        true => redis.thaw(),
        false => redis.restart().await,
    }
    let gateway = start_gateway(&folder, &settings, &attempts).await;
    journal_is_sent_within(DRAIN_SECONDS, gateway.admin).await;
    gateway.kill().await;
    let account = attempts.account(&redis.jobs("default").await);
    run.end(account, &json!({ "redis_kills": redis_kills, "redis_stops": redis_stops }));
}
