//! Batches that Redis executed and whose replies never come: the case in which a plain retry doubles.

use std::time::Duration;

use serde_json::json;

use super::Site;
use crate::support::fault_run::FaultRun;
use crate::support::redis_server::RedisServer;
use crate::support::tcp_proxy::{Replies, TcpProxy};

/// One round is one batch that was appended and whose reply was lost.
#[tokio::test(flavor = "multi_thread")]
async fn batches_whose_replies_are_lost_after_execution_are_not_doubled() {
    let mut run = FaultRun::begin("replies lost after execution", "redis", 1000);
    let redis = RedisServer::start().await;
    let proxy = TcpProxy::start(redis.address).await;
    let site = Site::start(&format!("redis://{}", proxy.address), 8, Duration::ZERO).await;
    let mut hangs = 0;
    while proxy.lost_appends() < run.rounds {
        match run.random.below(16) {
            // The connection stays open: the gateway gives it up after a second, with the journal in use by then.
            0 => {
                let before = proxy.lost_appends();
                proxy.set(Replies::AppendsSwallowed);
                site.goes_on().await;
                hangs += u64::from(proxy.lost_appends() > before);
            }
            1..=4 => {
                proxy.set(Replies::Pass);
                tokio::time::sleep(run.random.moment(60)).await;
            }
            _ => {
                proxy.set(Replies::AppendsLost);
                tokio::time::sleep(run.random.moment(400)).await;
            }
        }
    }
    proxy.set(Replies::Pass);
    let (attempts, said) = site.end().await;
    let account = attempts.account(&redis.jobs("default").await);
    let more = json!({ "lost_batches": proxy.lost_appends(), "hangs": hangs });
    run.end(account, &said.beside(more));
}
