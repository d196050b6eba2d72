//! Masters die and are replaced, and slots move, under load. Masters without a file and with asynchronous replicas: what a
//! replica lacks of what its master had confirmed, the gateway sends again.

use std::time::Duration;

use serde_json::json;

use super::{Site, finish};
use crate::support::eventually_within;
use crate::support::fault_run::FaultRun;
use crate::support::redis_server::{RedisServer, free_port, without_a_file, words};
use crate::support::replicated_cluster::ReplicatedCluster;

const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(8);

#[tokio::test(flavor = "multi_thread")]
async fn failovers_by_a_sentinel_lose_and_double_nothing() {
    let run = FaultRun::begin("failover by a sentinel", "redis", 3);
    let mut first = RedisServer::start_with(without_a_file).await;
    let mut second = RedisServer::start_with(without_a_file).await;
    let port = first.address.port().to_string();
    second.command(&["REPLICAOF", "127.0.0.1", &port]).await;
    let sentinel = RedisServer::start_sentinel(first.address.port(), 1000).await;
    // The first of the sentinels is away.
    let url = format!("redis-sentinel://127.0.0.1:{},{}/mymaster", free_port(), sentinel.address);
    let site = Site::start(&url, CLIENTS, PAUSE).await;
    for _ in 0..run.rounds {
        site.goes_on().await;
        second.will_say("replication", "master_link_status:up").await;
        sentinel.knows_replica(&second.address.port().to_string()).await;
        first.kill();
        // On a machine that held it up for two seconds, a sentinel does nothing for thirty (its TILT mode).
        eventually_within(120, "the sentinel names the replica as the master", || async {
            let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"];
            let named = sentinel.try_command(&words).await.ok()?;
            let (_, port): (String, u16) = redis::from_redis_value(named).ok()?;
            (port == second.address.port()).then_some(())
        })
        .await;
        site.goes_on().await;
        site.drained().await;
        // The old master comes back without what it had, as a replica of the new one.
        let port = second.address.port();
        first.more = [without_a_file(), words(&format!("--replicaof 127.0.0.1 {port}"))].concat();
        first.restart().await;
        std::mem::swap(&mut first, &mut second);
    }
    finish(run, site, &first, json!({})).await;
}

/// Each round the owner of the app's slot is replaced, once by a kill and once by command, and then the slot moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_clusters_failovers_and_moves_of_its_slot_lose_and_double_nothing() {
    let run = FaultRun::begin("cluster: failover and move of the slot", "redis", 10);
    let mut cluster = ReplicatedCluster::start().await;
    let site = Site::start(&cluster.url(), CLIENTS, PAUSE).await;
    let mut kills = 0;
    let rounds = run.rounds;
    for round in 0..rounds {
        site.goes_on().await;
        if round % 2 == 0 {
            cluster.fail_over_by_a_kill().await;
            kills += 1;
        } else {
            cluster.fail_over_by_command().await;
        }
        site.goes_on().await;
        site.drained().await;
        cluster.move_slot().await;
        site.goes_on().await;
    }
    let more = json!({
        "failovers_by_kill": kills,
        "failovers_by_command": rounds - kills,
        "slot_moves": rounds,
    });
    finish(run, site, cluster.owner(), more).await;
}
